"""The harness's own format: safetensors, with everything that is needed to use the set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from harness.errors import DataError
from harness.types.data.labels import check_kind
from harness.types.data.preprocessing import preprocessing_from
from harness.types.distilled import DistilledSet
from harness.types.formats.content import Content
from harness.types.formats.format import LAST, SetFormat
from harness.types.formats.metadata import as_text, metadata_of, parse_metadata
from harness.types.formats.safe import read_safetensors
from harness.types.formats.scores import format_scores
from harness.types.options import Options

PREFIX, ENCODING = "preprocessing.", "parametrisation."


class Safetensors(SetFormat[Options]):
    """ddbench's own format, in which stores hold their sets: everything that is needed to use a set."""

    suffixes = (".safetensors",)

    def read(self, path: Path, entry: int = LAST) -> Content:
        """Read a file that `write` wrote."""
        text, tensors = _parts(path)
        metadata = parse_metadata(text, path.name)
        return content_of(metadata, tensors, path.name)

    def write(self, distilled: DistilledSet, path: Path) -> tuple[str, ...]:
        """Write a set with its classes, preprocessing, step size, parametrisation and provenance: nothing is lost."""
        path.write_bytes(serialized(distilled))
        return ()


def serialized(distilled: DistilledSet) -> bytes:
    """Return the content of a set's file in ddbench's own format."""
    return save(tensors_of(distilled), {"ddbench": as_text(metadata_of(distilled))})


def content_of(metadata: dict[str, Any], tensors: dict[str, Tensor], name: str) -> Content:
    """Return the content that tensors and metadata make up together."""
    parts, stored = _named(tensors, PREFIX), _named(tensors, ENCODING)
    images, labels = tensors["images"], tensors["labels"]
    kind, encoding = metadata.get("label_kind"), metadata["encoding"]
    try:
        # A parametrisation may decode labels of another kind than it stores; the set is checked when it is opened.
        if encoding is None:
            check_kind(labels, kind, "its metadata")
        preprocessing = preprocessing_from(metadata["preprocessing"], parts)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if encoding is None and stored:
        raise DataError(f"{name}: it has the tensor {ENCODING + min(stored)!r}, but names no parametrisation")
    return Content(
        where=name,
        images=images,
        labels=labels,
        classes=tuple(metadata["classes"]),
        preprocessing=preprocessing,
        step_size=metadata["step_size"],
        provenance=metadata["provenance"],
        encoding=replace(encoding, tensors=stored) if encoding else None,
        notes=format_scores(metadata["provenance"]),
        label_kind=kind,
        schedule=metadata["schedule"],
    )


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def tensors_of(distilled: DistilledSet) -> dict[str, Tensor]:
    """Return all tensors by the names that they have in a file."""
    # safetensors refuses views: it stores one contiguous block for each tensor.
    images, labels = distilled.images.contiguous(), distilled.labels.contiguous()
    parts = {PREFIX + name: value.contiguous() for name, value in distilled.preprocessing.tensors().items()}
    stored = distilled.encoding.tensors if distilled.encoding else {}
    own = {ENCODING + name: value.contiguous() for name, value in stored.items()}
    return {"images": images, "labels": labels, **parts, **own}


def _parts(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the file's metadata as text, and its tensors."""
    names = ("images", "labels")
    header, tensors = read_safetensors(path, lambda name: name in names or name.startswith((PREFIX, ENCODING)))
    absent = [*({"images", "labels"} - set(tensors)), *({"ddbench"} - set(header))]
    if absent:
        raise DataError(f"{path.name} is not a distilled set of ddbench (it has no {min(absent)!r})")
    return header["ddbench"], tensors


OWN_FORMAT = Safetensors(Options())
"""The format of a store's files, which are read and written by it whatever formats plugins register."""
