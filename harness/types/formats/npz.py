"""Arrays in a ``.npz`` file: ``images`` and ``labels``, and optionally the rest of a set.

========================  ============================================================================================
``images``                (n, channels, height, width), or channels last; uint8: pixels; floats: network inputs
``labels``                class indices (n,), integers; or class weights or real values (n, classes), floats
``step_size``             a number, optional
``classes``               names of the classes, text (classes,), optional
``ddbench``               JSON, as in our own files, optional; with it come ``preprocessing.mean`` and so on, and
                          ``parametrisation.NAME`` of a set that is not of plain images
========================  ============================================================================================
"""

import io
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.errors import DataError
from harness.types.distilled import DistilledSet
from harness.types.formats.content import Content
from harness.types.formats.format import SetFormat
from harness.types.formats.limits import check_directory, check_promise, plain_file, reason_of
from harness.types.formats.metadata import as_text, metadata_of, parse_metadata
from harness.types.formats.own import ENCODING, PREFIX, content_of, tensors_of
from harness.types.options import Options, option

Array = NDArray[Any]
_LONGEST_HEADER = 2**14
KEYS = ("images", "labels", "step_size", "classes", "ddbench")


class ArrayOptions(Options):
    """Options of the format: what float images and float labels are."""

    pixels: bool = option(False, "float images are pixels in [0, 1] and not yet normalised")
    regression: bool = option(False, "float labels are real values for the squared error, not class weights")


class Npz(SetFormat[ArrayOptions]):
    """An .npz file of arrays, as NumPy writes it."""

    Options = ArrayOptions
    suffixes = (".npz",)

    def read(self, path: Path, entry: int) -> Content:
        """Read a file of these arrays; nothing in it is unpickled."""
        arrays = read_arrays(path, lambda name: name in KEYS or name.startswith((PREFIX, ENCODING)))
        for name in ("images", "labels"):
            if name not in arrays:
                raise DataError(f"{path.name} has no array {name!r}: it must hold images and labels")
        if "ddbench" in arrays:
            metadata = parse_metadata(_text(arrays["ddbench"], "ddbench", path.name), path.name)
            tensors = {key: _tensor(value, key, path.name) for key, value in arrays.items() if key not in KEYS[2:]}
            return content_of(metadata, tensors, path.name)
        images = _images(arrays["images"], path.name)
        pixels = images.dtype == np.uint8
        if pixels:
            images = images.astype(np.float32) / 255
        return Content(
            where=path.name,
            images=_tensor(images, "images", path.name),
            labels=_tensor(arrays["labels"], "labels", path.name),
            pixels=pixels or self.options.pixels,
            classes=_classes(arrays["classes"], path.name) if "classes" in arrays else None,
            step_size=_number(arrays["step_size"], path.name) if "step_size" in arrays else None,
            provenance={"file": path.name, "format": "npz"},
            label_kind="regression" if self.options.regression else None,
        )

    def write(self, distilled: DistilledSet, path: Path) -> tuple[str, ...]:
        """Write a set with all its metadata: nothing is lost."""
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors_of(distilled).items()}
        arrays["ddbench"] = np.array(as_text(metadata_of(distilled)))
        arrays["classes"] = np.array(distilled.classes, dtype=np.str_)
        if distilled.step_size is not None:
            arrays["step_size"] = np.array(distilled.step_size)
        # Given a path, NumPy would append ``.npz`` to it.
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return ()


def read_arrays(path: Path, wanted: Callable[[str], bool]) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file whose names are wanted; nothing in it is unpickled.

    Args:
        path: the file.
        wanted: returns whether an array of that name is read.

    Raises:
        DataError: it is not a plain file, is damaged, holds objects, or promises more than it can hold.
    """
    size = plain_file(path)
    try:
        with path.open("rb") as file:
            _check_headers(file, size, path.name)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files if wanted(name)}
    except DataError:
        raise
    except Exception as error:  # a damaged archive fails in many ways
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise DataError(f"{path.name} cannot be read as plain arrays ({reason}): np.savez writes such files") from None


def _check_headers(file: Any, size: int, name: str) -> None:  # noqa: ANN401
    """Check the header of every array before any array is read."""
    shapes = []
    check_directory(file, name)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            # zipfile would also unpack bz2 and lzma, whose ratio no limit of ours was measured for.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{name}: {member.filename} is packed in a way that np.savez does not use")
            with archive.open(member) as packed:
                stream = io.BytesIO(packed.read(_LONGEST_HEADER))  # a header may say that it is of any length
                version = np.lib.format.read_magic(stream)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(stream)
            # An array of objects is a pickle, and loading a pickle runs code.
            if dtype.hasobject:
                raise DataError(f"{name} is not read, because {member.filename} holds objects, which could run code")
            check_promise([shape], size, name)
            if prod(shape) * dtype.itemsize > member.file_size:
                raise DataError(f"{name} promises more in {member.filename} than it holds: it is damaged")
            # A value of 8 bytes or a long text counts as several numbers, so that the limits hold for memory too.
            shapes.append((*shape, max(1, dtype.itemsize // 4)))
    check_promise(shapes, size, name)
    file.seek(0)


def _tensor(array: Array, key: str, name: str) -> torch.Tensor:
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name}: {key} must be numbers, not {array.dtype}")
    if array.dtype.kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{name}: {key} go up to {array.max()}: labels must be class indices from 0")
    # Files from other machines may be big-endian or half precision, which torch does not take.
    wanted = np.float32 if array.dtype.kind == "f" else np.int64
    return torch.from_numpy(np.ascontiguousarray(array.astype(wanted)).reshape(array.shape))


def _images(images: Array, name: str) -> Array:
    """Return images as (n, channels, height, width)."""
    if images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        form = f"{images.dtype} {images.shape}"
        raise DataError(f"{name}: images must be (n, channels, height, width), uint8 or floats, not {form}")
    return images


def _classes(classes: Array, name: str) -> tuple[str, ...]:
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise DataError(f"{name}: classes must be names (text), not {classes.dtype} {classes.shape}")
    return tuple(classes.tolist())


def _number(value: Array, name: str) -> float:
    if value.size != 1 or value.dtype.kind not in "iuf":
        raise DataError(f"{name}: step_size must be one number, not {value.dtype} {value.shape}")
    return float(value.reshape(()))


def _text(value: Array, key: str, name: str) -> str:
    if value.ndim != 0 or value.dtype.kind != "U":
        raise DataError(f"{name}: {key} must be a text, not {value.dtype} {value.shape}")
    return str(value)
