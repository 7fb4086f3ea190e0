"""Whether what a plugin's code returns is what its contract says."""

from typing import Any, TypeVar

from harness.types.errors import PluginError

T = TypeVar("T")


def returned(value: Any, wanted: type[T], what: str) -> T:  # noqa: ANN401
    """``value`` if it is a ``wanted``.

    Args:
        value: what the code returned.
        wanted: a class.
        what: whose code and which of its methods, for the message.

    Raises:
        PluginError: it is something else.
    """
    if not isinstance(value, wanted):
        article = "an" if wanted.__name__[0] in "AEIOU" else "a"
        raise PluginError(f"{what} returned {type(value).__name__} where it promises {article} {wanted.__name__}")
    return value
