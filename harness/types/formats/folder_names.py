"""Names of class folders that are valid on every file system and sort in the order of the labels."""

import re
import unicodedata
from collections.abc import Sequence

from harness.types.data.class_names import label_order

_KEPT = 60
_UNSAFE = re.compile(r"[^\w+-]+|^[_-]+")
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{name}{n}" for name in ("COM", "LPT") for n in range(10))}


def folder_names(classes: Sequence[str]) -> list[str]:
    """Return a folder name for each class: all different even if case is ignored, and in sorted order.

    Letters, digits, ``+``, ``-`` and ``_`` are retained, and every other character becomes ``_``. If the names would
    clash, or sort in another order than the labels (numbers by value, all else as text), each begins with its label.
    """
    plain = [_safe(name) for name in classes]
    in_order = plain == sorted(plain) == label_order(plain)
    if in_order and len({name.casefold() for name in plain}) == len(plain) and all(plain):
        return plain
    width = len(str(max(len(classes) - 1, 0)))
    return [f"{label:0{width}}_{name}".rstrip("_") for label, name in enumerate(plain)]


def _safe(name: str) -> str:
    safe = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip("_")[:_KEPT]
    # Windows reserves these names for devices, with any suffix.
    return f"{safe}_" if safe.upper() in _RESERVED else safe
