"""One's own images in an .npz file."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.datasets.traits import OwnImagesOptions
from harness.types.dataset import Dataset, RawData, Traits
from harness.types.errors import DataError
from harness.types.options import option
from harness.types.problem import Split

_KEYS = ("x_train", "y_train", "x_test", "y_test")
Array = NDArray[Any]


class ArraysOptions(OwnImagesOptions):
    """Where the file lies."""

    path: str = option(..., "an .npz file with x_train, y_train, x_test, y_test and, if wanted, classes (names)")


class Arrays(Dataset[ArraysOptions]):
    """An .npz file with the arrays ``x_train``, ``y_train``, ``x_test``, ``y_test`` and perhaps ``classes``.

    Images are (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels; where both of the latter are possible, the
    channels are taken to be last. They are uint8, or floats in [0, 1], which are rounded to the 256 levels. Labels are
    integers 0 ... K-1, one for each image; ``classes`` holds K names (text). Nothing is unpickled.
    """

    Options = ArraysOptions

    @property
    def traits(self) -> Traits:
        """Those of the set that the images are a copy of."""
        return self.options.traits

    def load(self, root: Path) -> RawData:
        """Read and check the file; ``root`` is not used."""
        path = Path(self.options.path).expanduser()
        arrays = _read(path)
        try:
            classes = _classes(arrays)
            train, test = (_split(arrays, part, len(classes)) for part in ("train", "test"))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        return RawData(train, test, classes)


def _read(path: Path) -> dict[str, Array]:
    if not zipfile.is_zipfile(path):
        problem = "is not a readable .npz file" if path.exists() else "does not exist"
        raise DataError(f"{path} {problem}: path= must name an .npz file with {', '.join(_KEYS)}")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = {key: file[key] for key in (*_KEYS, "classes") if key in file.files}
    except Exception as error:  # a damaged archive, an array of objects
        raise DataError(f"{path} cannot be read as plain arrays ({error})") from error
    for key in _KEYS:
        if key not in found:
            raise DataError(f"{path} has no {key!r}: it must hold {', '.join(_KEYS)}")
    return found


def _classes(arrays: dict[str, Array]) -> tuple[str, ...]:
    """The names given, or the training labels as text."""
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
    """As uint8 (n, c, h, w)."""
    if images.ndim == 3:
        images = images[:, None]
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
    if not np.isfinite(images).all():
        raise DataError(f"{key} has NaN or infinite values")
    if images.size and (images.min() < 0 or images.max() > 1):
        low, high = images.min(), images.max()
        raise DataError(f"{key} has floats in [{low:g}, {high:g}]: scale them to [0, 1], or store uint8")
    levels: Array = np.rint(images * 255).astype(np.uint8)
    return levels
