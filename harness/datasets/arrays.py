"""The data set ``arrays``: the user's own images in an .npz file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from harness.datasets.mapped import Pixels, held
from harness.datasets.npz_images import NpzImages, below
from harness.datasets.paths import named_file
from harness.datasets.traits import OwnImagesOptions
from harness.errors import DataError
from harness.types.dataset import Dataset, RawData, Traits
from harness.types.options import option
from harness.types.problem import Split

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_WANTED = "an .npz file with x_train, y_train, x_test, y_test and, if wanted, classes (names)"


class ArraysOptions(OwnImagesOptions):
    """Options of the data set: the path of its file."""

    path: str = option(..., _WANTED)


class Arrays(Dataset[ArraysOptions]):
    """An .npz file with the arrays ``x_train``, ``y_train``, ``x_test``, ``y_test`` and perhaps ``classes``.

    Images are (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels; where both of the latter are possible, the
    channels are taken to be last. They are uint8, or floats in [0, 1], which are rounded to the 256 levels. Labels are
    integers 0 ... K-1, one for each image; ``classes`` holds K names (text). Nothing is unpickled. From a gigabyte of
    levels on, images are stored in the data root once and mapped from there, and take no memory.
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
        """Read and check the file."""
        file = NpzImages(named_file(self.options.path, _WANTED), _WANTED)
        file.check(_KEYS, ("classes",))
        try:
            return _load(file, root)
        except DataError as error:
            if str(file.path) in str(error):
                raise
            raise DataError(f"{file.path}: {error}") from None


def _load(file: NpzImages, root: Path) -> RawData:
    classes = _classes(file)
    train, test = (_split(file, part, classes, root) for part in ("train", "test"))
    return RawData(train, test, classes)


def _split(file: NpzImages, part: str, classes: tuple[str, ...], root: Path) -> Split:
    count, shape = file.shape(f"x_{part}")
    labels = file.labels(f"y_{part}")
    if count != len(labels):
        raise DataError(f"x_{part} has {count} images but y_{part} has {len(labels)} labels")
    own = torch.from_numpy(below(labels, len(classes), f"y_{part}"))

    def fill(pixels: Mapping[str, Pixels]) -> None:
        file.fill(f"x_{part}", pixels[part])

    return held(root, f"arrays-{part}", file.digest, {part: own}, shape, fill)[part]


def _classes(file: NpzImages) -> tuple[str, ...]:
    """Return the class names in the file, or the training labels as text."""
    # Training labels alone name the classes: a class that only the test set has could never be learned.
    labels = np.unique(file.labels("y_train"))
    if (names := file.array("classes")) is not None:
        if names.ndim != 1 or names.dtype.kind != "U":
            raise DataError(f"classes must be a list of names (text), not {names.dtype} of shape {names.shape}")
        return tuple(names.tolist())
    gaps = np.nonzero(labels != np.arange(len(labels)))[0]
    if len(gaps):
        raise DataError(f"y_train must have every label from 0 up, but has no {gaps[0]} and goes to {labels[-1]}")
    return tuple(str(label) for label in labels)
