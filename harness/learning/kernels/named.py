"""Kernels by name, with options in brackets as components have them: ``fc[depth=2,act=erf]``."""

from harness.errors import UsageError, did_you_mean
from harness.learning.kernels.convolutional import Convolutional
from harness.learning.kernels.fully_connected import FullyConnected
from harness.learning.kernels.kernel import Kernel
from harness.types.names import Name, parse_name

KERNELS: dict[str, type[Kernel]] = {"fc": FullyConnected, "conv": Convolutional}
"""The kernels by the names that users type."""


def kernel_named(text: str) -> Kernel:
    """Return the kernel of a name.

    Raises:
        UsageError: there is no such kernel, or an option is unknown or outside its range.
    """
    name = parse_name(text)
    if name.name not in KERNELS:
        raise UsageError(f"there is no kernel {name.name!r}: {did_you_mean(name.name, KERNELS)}")
    kind = KERNELS[name.name]
    return kind(kind.Options.from_name(name))  # type: ignore[arg-type]  # from_name returns the class it belongs to


def kernel_name(text: str) -> str:
    """Return the shortest name of the same kernel: without options at their defaults.

    Raises:
        UsageError: as `kernel_named`.
    """
    kernel = kernel_named(text)
    return str(Name(parse_name(text).name, tuple(kernel.options.changed().items())))
