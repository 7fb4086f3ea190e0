"""Metadata of a set beside its tensors, as JSON: in our own files, in .npz files and beside image folders."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from harness.errors import DataError
from harness.system.bounded_json import JsonLimits, check_depth, parse_object
from harness.types.data.labels import LABEL_KINDS, kind_of
from harness.types.data.schedule import schedule_from
from harness.types.distilled import DistilledSet
from harness.types.formats.idc import MULTI_FORMATION
from harness.types.formats.limits import MOST_TEXT, MOST_VALUES, reason_of
from harness.types.parametrisation import StoredEncoding
from harness.types.problem import Shape

PLAIN, PACKED, ENCODED, DECLARED = 1, 2, 3, 4
"""Versions of the format: a reader that knows version 1 alone would take packed images for images. Version 2 knows
multi-formation alone, as its ``decoder``; version 3 any parametrisation; version 4 labels whose type does not say their
kind, and schedules. A set is written in the lowest version that can hold it, so that older readers can read it."""
_LIMITS = JsonLimits(depth=100, digits=4300, allows_infinity=True)
"""Wider than those of a store: provenance is whatever its author recorded, NaN included, and has to be read again."""


def metadata_of(distilled: DistilledSet) -> dict[str, Any]:
    """Return the metadata of a set: all that is not a tensor."""
    # A reader of version 3 would take real values for class weights, and train without the schedule.
    declared = distilled.label_kind != kind_of(distilled.labels) or distilled.schedule
    metadata = {
        "format": DECLARED if declared else ENCODED if distilled.encoding else PLAIN,
        "classes": distilled.classes,
        "label_kind": distilled.label_kind,
        "preprocessing": distilled.preprocessing.name,
        "step_size": distilled.step_size,
        "provenance": dict(distilled.provenance),
    }
    return {
        **metadata,
        **({"parametrisation": distilled.encoding.description()} if distilled.encoding else {}),
        **({"schedule": distilled.schedule.as_json()} if distilled.schedule else {}),
    }


def as_text(content: Mapping[str, Any], indent: int | None = None) -> str:
    """Return the metadata of a set as JSON that `parse_metadata` reads.

    Raises:
        DataError: it would be too long or too deep.
    """
    text = json.dumps(content, indent=indent, sort_keys=True)
    if len(text) > MOST_TEXT:
        raise DataError(f"the set's metadata takes {len(text):,} letters, and a file holds at most {MOST_TEXT:,}")
    try:
        check_depth(text.encode(), _LIMITS.depth)
    except ValueError as error:
        raise DataError(f"the set's metadata cannot be written: {error}") from None
    return text


def parse_metadata(text: str, name: str) -> dict[str, Any]:
    """Parse and check the metadata of a set; ``encoding`` is how images are stored, and ``schedule`` the schedule.

    Both are None if there is none.

    Raises:
        DataError: it is of a newer version, or a value in it is not valid.
    """
    if len(text) > MOST_TEXT:
        raise DataError(f"{name} is not a distilled set of ddbench ({len(text):,} letters of metadata)")
    try:
        metadata = parse_object(text.encode(), _LIMITS)
        version = metadata["format"]
        if not isinstance(version, int):
            raise TypeError(f"format is a {type(version).__name__}")
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise DataError(f"{name} is not a distilled set of ddbench ({reason})") from None
    # A newer version may mean something else by the same fields, so it is refused and not guessed.
    if not PLAIN <= version <= DECLARED:
        raise DataError(
            f"{name} has format {str(version)[:20]}, and this ddbench knows up to {DECLARED}: use a newer one"
        )
    _check(metadata, name)
    try:
        steps = metadata.get("schedule")
        return {
            **metadata,
            "encoding": _encoding(metadata),
            "schedule": None if steps is None else schedule_from(steps),
        }
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _encoding(metadata: Mapping[str, Any]) -> StoredEncoding | None:
    """Return how images are stored, by this version of the format or the one before; None for plain images."""
    if (old := metadata.get("decoder")) is not None:
        name, provider = MULTI_FORMATION
        if old.keys() != {"name", "factor"} or old["name"] != name:
            raise DataError(f"its images are packed by {old!r:.100}, and this ddbench knows {name}")
        return StoredEncoding(name, provider, {"factor": old["factor"]})
    if (now := metadata.get("parametrisation")) is None:
        return None
    name, provider, options, shape = (now.get(key) for key in ("name", "provider", "options", "shape"))
    if not (isinstance(name, str) and isinstance(provider, str) and isinstance(options, dict)):
        raise DataError(f"its parametrisation {now!r:.100} has no name, provider and options")
    return StoredEncoding(name, provider, options, _shape(shape))


def _shape(shape: object) -> Shape:
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(side) is int and side > 0 for side in shape):
        raise DataError(f"its training images have the shape {shape!r:.50}, which is not channels, height and width")
    channels, height, width = shape
    # A parametrisation may enlarge: a file of a few bytes must not decode to more than a set may hold.
    if channels * height * width > MOST_VALUES:
        raise DataError(f"its training images have the shape {shape!r:.50}, more than a set may hold")
    return channels, height, width


def _check(metadata: Mapping[str, Any], name: str) -> None:
    classes, step_size = metadata.get("classes"), metadata.get("step_size", "missing")
    sound = {
        "classes": isinstance(classes, list) and all(isinstance(word, str) for word in classes),
        "preprocessing": isinstance(metadata.get("preprocessing"), str),
        "step_size": step_size is None or _is_number(step_size),
        "provenance": isinstance(metadata.get("provenance"), dict),
        "decoder": isinstance(metadata.get("decoder"), dict | None),
        "parametrisation": isinstance(metadata.get("parametrisation"), dict | None),
        # Files of the first versions do not say the kind.
        "label_kind": metadata.get("label_kind") in (None, *LABEL_KINDS),
    }
    for key, is_sound in sound.items():
        if not is_sound:
            raise DataError(f"{name} is not a distilled set of ddbench ({key} is {metadata.get(key)!r:.100})")


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -sys.float_info.max <= value <= sys.float_info.max  # type: ignore[operator]
