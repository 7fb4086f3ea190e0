"""Reading of JSON of unknown origin: within limits, and never what is ambiguous, such as a name that occurs twice.

Records of stores and the metadata of distilled sets come from disks that fail and from other people. Python's parser
alone takes a repeated name silently, and how deep it can recurse depends on what has called it.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True)
class JsonLimits:
    """Limits of what JSON may hold; the defaults are those of a store's files.

    Attributes:
        depth: levels of brackets within brackets; records have eight.
        digits: digits of a whole number; up to 100, any such number still is a float.
        allows_infinity: whether NaN and infinity are accepted, which Python writes and JSON does not know.
    """

    depth: int = 64
    digits: int = 100
    allows_infinity: bool = False


def parse_object(content: bytes, limits: JsonLimits = JsonLimits()) -> dict[str, Any]:
    """Parse a JSON object in UTF-8.

    Raises:
        ValueError: it is not an object, is nested too deep, or has a name twice or a value that JSON cannot hold.
    """
    check_depth(content, limits.depth)
    value = json.loads(
        content.decode(),
        object_pairs_hook=_object,
        parse_int=lambda text: _whole_number(text, limits.digits),
        parse_float=float if limits.allows_infinity else _number,
        parse_constant=float if limits.allows_infinity else _no_number,
    )
    if not isinstance(value, dict):
        raise ValueError("it holds no object")
    if b"\\u" in content:  # half of a pair of surrogates can be escaped, but is no text, and cannot be printed
        json.dumps(value, ensure_ascii=False).encode()
    return value


def check_depth(content: bytes, depth: int) -> None:
    """Check how deep JSON is nested without nesting: the innermost pairs of brackets are removed again and again.

    Raises:
        ValueError: it is nested more than ``depth`` deep.
    """
    brackets = _STRING.sub(b"", content).translate(None, _ALL_BUT_BRACKETS)
    for _ in range(depth):
        fewer = _without_innermost(brackets)
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    # Brackets that do not close leave no pair to remove, but Python's parser descends into each of them all the same.
    if len(brackets) > depth or len(_without_innermost(brackets)) < len(brackets):
        raise ValueError(f"it is nested more than {depth} deep")


def _without_innermost(brackets: bytes) -> bytes:
    return brackets.replace(b"[]", b"").replace(b"{}", b"")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the name {twice[:40]!r} twice")
    return value


def _whole_number(text: str, digits: int) -> int:
    # The time that Python takes to convert a whole number grows with the square of its digits.
    if len(text) > digits:
        raise ValueError(f"it has a whole number of {len(text):,} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it has the number {text[:40]}, which is beyond what a float holds")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"it has the number {text}, which JSON does not know")
