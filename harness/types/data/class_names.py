"""Class names: which names are valid, how they are compared, and in which order labels count them."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from harness.errors import DataError

LONGEST_NAME = 200
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


def canonical_name(name: str) -> str:
    """Return a name in composed Unicode (NFC), the form in which names are compared and recorded.

    macOS file systems return names in decomposed form, which looks the same but compares as different text.
    """
    return unicodedata.normalize("NFC", name)


def are_whole_numbers(names: Iterable[str]) -> bool:
    """Return whether each name is a whole number in digits; a sign and leading zeros are allowed."""
    return all(_WHOLE_NUMBER.fullmatch(name) for name in names)


def label_order(names: Iterable[str]) -> list[str]:
    """Sort class names in the order of their labels: by value if all are whole numbers, otherwise as text.

    As text, ``10`` would come before ``2``, which is not what numbered folders mean.
    """
    listed = list(names)
    if are_whole_numbers(listed):
        return sorted(listed, key=lambda name: (int(name), name))
    return sorted(listed)


def check_class_names(names: Sequence[str]) -> None:
    """Check that a set with these class names can be stored, shown and read again.

    Raises:
        DataError: a name is empty, too long, not printable or not Unicode, or two classes have the same.
    """
    labels: dict[str, int] = {}
    for label, name in enumerate(names):
        if fault := _fault(name):
            raise DataError(f"{_shortened(name)} is not a name for a class (label {label}), because {fault}: rename it")
        first = labels.setdefault(canonical_name(name), label)
        if first != label:
            # The two look alike on screen, so the message has to say how they differ.
            form = "" if names[first] == name else ", in composed and in decomposed Unicode"
            both = f"{_shortened(name)} (labels {first} and {label}{form})"
            raise DataError(f"two classes have the same name {both}: rename one, or put their images together")


def _fault(name: str) -> str | None:
    if not name:
        return "it is empty"
    if len(name) > LONGEST_NAME:
        return f"its {len(name)} characters are more than {LONGEST_NAME}"
    # Python decodes bytes that are not UTF-8 into lone surrogates, which JSON and file formats refuse to encode.
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "it is not UTF-8"
    return None if name.isprintable() else "it has characters that cannot be printed"


def _shortened(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:50]}...")
