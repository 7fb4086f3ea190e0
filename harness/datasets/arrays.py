"""The data set ``arrays``: the user's own images in an .npz file."""

import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from harness.datasets.paths import named_file
from harness.datasets.traits import OwnImagesOptions
from harness.errors import DataError
from harness.system.memory import require_memory
from harness.types.dataset import Dataset, RawData, Traits
from harness.types.options import option
from harness.types.problem import Split

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_WANTED = "an .npz file with x_train, y_train, x_test, y_test and, if wanted, classes (names)"
_CHUNK = 256
MOST_PER_BYTE, SMALL = 100, 2**26
"""Values that an array may unpack to, per byte or in all: more is an attack on the memory."""
Array = NDArray[Any]


class ArraysOptions(OwnImagesOptions):
    """Options of the data set: the path of its file."""

    path: str = option(..., _WANTED)


class Arrays(Dataset[ArraysOptions]):
    """An .npz file with the arrays ``x_train``, ``y_train``, ``x_test``, ``y_test`` and perhaps ``classes``.

    Images are (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels; where both of the latter are possible, the
    channels are taken to be last. They are uint8, or floats in [0, 1], which are rounded to the 256 levels. Labels are
    integers 0 ... K-1, one for each image; ``classes`` holds K names (text). Nothing is unpickled.
    """

    Options = ArraysOptions

    @property
    def traits(self) -> Traits:
        """The traits of the set that the images are a copy of."""
        return self.options.traits

    def check_files(self, root: Path) -> None:
        """Raise `DataError` if there is no such file."""
        named_file(self.options.path, _WANTED)

    def load(self, root: Path) -> RawData:
        """Read and check the file; ``root`` is not used."""
        path = named_file(self.options.path, _WANTED)
        arrays = _read(path)
        try:
            classes = _classes(arrays)
            train, test = (_split(arrays, part, len(classes)) for part in ("train", "test"))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        return RawData(train, test, classes)


def _read(path: Path) -> dict[str, Array]:
    # np.load would unpickle a file that is not an archive, or fail with a message about pickles.
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a readable .npz file: path= must name {_WANTED}")
    try:
        with path.open("rb") as stream:
            _check_headers(stream, path)
            with np.load(stream, allow_pickle=False) as file:
                return {key: file[key] for key in (*_KEYS, "classes") if key in file.files}
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged archive, an array of objects
        raise DataError(f"{path} cannot be read as plain arrays ({str(error)[:200]})") from error


def _check_headers(stream: BinaryIO, path: Path) -> None:
    """Check what the headers of the arrays promise, before memory is allocated for any."""
    promised = 0
    with zipfile.ZipFile(stream) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        for key in _KEYS:
            if key not in members:
                raise DataError(f"{path} has no {key!r}: it must hold {', '.join(_KEYS)}")
        for key in (*_KEYS, *({"classes"} & members.keys())):
            with archive.open(members[key]) as array:
                size, values = _promise(array)
            if size > members[key].file_size:
                raise DataError(f"{path} promises more in {key} than it holds: it is damaged, write it again")
            if values > max(SMALL, MOST_PER_BYTE * members[key].compress_size):
                promise = f"{values:,} numbers in {members[key].compress_size:,} bytes"
                raise DataError(f"{path} promises {promise} of {key}, which are not images: write it by np.savez, "
                                "which does not compress")  # fmt: skip
            promised += size + values  # as it lies there, and as levels or labels of our own
    require_memory(promised, f"the arrays in {path}", "give fewer or smaller images")
    stream.seek(0)


def _promise(array: IO[bytes]) -> tuple[int, int]:
    """Return the bytes and the number of values that an array's header promises."""
    version = np.lib.format.read_magic(array)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(array)
    if dtype.hasobject or any(length < 0 for length in shape):
        raise ValueError(f"an array of {dtype} {shape}")
    return prod(shape) * dtype.itemsize, prod(shape)


def _classes(arrays: dict[str, Array]) -> tuple[str, ...]:
    """Return the class names in the file, or the training labels as text."""
    # Training labels alone name the classes: a class that only the test set has could never be learned.
    labels = np.unique(_labels(arrays, "train"))
    if (names := arrays.get("classes")) is not None:
        if names.ndim != 1 or names.dtype.kind != "U":
            raise DataError(f"classes must be a list of names (text), not {names.dtype} of shape {names.shape}")
        return tuple(names.tolist())
    gaps = np.nonzero(labels != np.arange(len(labels)))[0]
    if len(gaps):
        raise DataError(f"y_train must have every label from 0 up, but has no {gaps[0]} and goes to {labels[-1]}")
    return tuple(str(label) for label in labels)


def _split(arrays: dict[str, Array], part: str, classes: int) -> Split:
    images, labels = _images(arrays[f"x_{part}"], f"x_{part}"), _labels(arrays, part)
    if len(images) != len(labels):
        raise DataError(f"x_{part} has {len(images)} images but y_{part} has {len(labels)} labels")
    beyond = labels[(labels < 0) | (labels >= classes)]
    if len(beyond):
        raise DataError(f"y_{part} has the label {beyond[0]}, but there are {classes} classes: 0 ... {classes - 1}")
    return Split(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _labels(arrays: dict[str, Array], part: str) -> Array:
    labels = arrays[f"y_{part}"]
    if labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iu":
        raise DataError(f"y_{part} must be integers of shape (n,), not {labels.dtype} of shape {labels.shape}")
    return labels


def _images(images: Array, key: str) -> Array:
    """Return images as uint8 (n, c, h, w)."""
    if images.ndim == 3:
        images = images[:, None]
    # Checked first: an image 3 pixels high is rare, and channels last is what most libraries store.
    elif images.ndim == 4 and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(f"{key} must be (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3, not {images.shape}")
    if images.dtype.kind == "f":
        images = _levels(images, key)
    if images.dtype != np.uint8:
        raise DataError(f"{key} must be uint8 or floats in [0, 1], not {images.dtype}")
    return np.ascontiguousarray(images)


def _levels(images: Array, key: str) -> Array:
    """Round floats in [0, 1] to the 256 levels, a chunk at a time: floats take many times the memory of levels."""
    levels: Array = np.empty(images.shape, dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        if not np.isfinite(chunk).all():
            raise DataError(f"{key} has NaN or infinite values")
        if chunk.size and (chunk.min() < 0 or chunk.max() > 1):
            low, high = images.min(), images.max()
            raise DataError(f"{key} has floats in [{low:g}, {high:g}]: scale them to [0, 1], or store uint8")
        levels[start : start + _CHUNK] = np.rint(chunk * 255)
    return levels
