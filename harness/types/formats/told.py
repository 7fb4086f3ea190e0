"""What a set tells beside its tensors, as JSON: in our own files, in .npz files and beside image folders."""

import json
import math
from collections.abc import Mapping
from typing import Any

from harness.types.decoders import decoder_from, told_by
from harness.types.distilled import DistilledSet
from harness.types.errors import DataError

PLAIN, PACKED = 1, 2
"""Version of the format; a reader of version 1 would take packed images for images."""


def told_of_set(distilled: DistilledSet) -> dict[str, Any]:
    """Classes, the kind of labels, the name of the preprocessing, step size, provenance and decoder."""
    told = {
        "format": PACKED if distilled.decoder else PLAIN,
        "classes": distilled.classes,
        "label_kind": distilled.label_kind,
        "preprocessing": distilled.preprocessing.name,
        "step_size": distilled.step_size,
        "provenance": dict(distilled.provenance),
    }
    return {**told, "decoder": told_by(distilled.decoder)} if distilled.decoder else told


def read_told(text: str, name: str) -> dict[str, Any]:
    """What `told_of_set` gave, checked; ``decoder`` is a decoder or None.

    Raises:
        DataError: it is of a newer version, or something in it cannot be meant.
    """
    try:
        told = json.loads(text)
        version = told["format"]
        if version > PACKED:
            raise DataError(f"{name} has format {version}, and this ddbench knows up to {PACKED}: use a newer one")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{name} is no distilled set of ddbench ({type(error).__name__}: {error})") from None
    _check(told, name)
    try:
        return {**told, "decoder": decoder_from(told["decoder"]) if told.get("decoder") is not None else None}
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _check(told: Mapping[str, Any], name: str) -> None:
    classes, step_size = told.get("classes"), told.get("step_size", "missing")
    sound = {
        "classes": isinstance(classes, list) and all(isinstance(word, str) for word in classes),
        "preprocessing": isinstance(told.get("preprocessing"), str),
        "step_size": step_size is None or _is_number(step_size),
        "provenance": isinstance(told.get("provenance"), dict),
        "decoder": isinstance(told.get("decoder"), dict | None),
    }
    for key, is_sound in sound.items():
        if not is_sound:
            raise DataError(f"{name} is no distilled set of ddbench ({key} is {told.get(key)!r:.100})")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
