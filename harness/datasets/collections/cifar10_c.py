"""CIFAR-10-C: the training images of CIFAR-10, and its test images corrupted (Hendrycks and Dietterich, ICLR 2019)."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import field_validator

from harness.datasets.known_classes import CIFAR10 as CLASSES
from harness.datasets.mapped import Pixels, held
from harness.datasets.paths import named_folder
from harness.datasets.torchvision import CIFAR10
from harness.datasets.traits import CORRUPTED_CIFAR10_TRAITS
from harness.errors import DataError, did_you_mean
from harness.types.dataset import Dataset, DatasetOptions, Outline, RawData, Traits
from harness.types.options import NameList, option

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
"""The corruptions over which accuracies are averaged."""
EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")
"""Corruptions that are there to tune on."""
SEVERITIES = 5
_FOLDER = "CIFAR-10-C"
_SHAPE = (3, 32, 32)
_WANTED = f"the folder {_FOLDER} with labels.npy and a file for each corruption (fog.npy, ...)"


class CIFAR10COptions(DatasetOptions):
    """Options of the data set: which corruptions, how severe, and where they lie."""

    corruption: NameList = option((), "corruptions, joined by +; empty: the 15 that papers average over")
    severity: int | None = option(None, "1 to 5; auto: all five", ge=1, le=SEVERITIES)
    path: str | None = option(None, f"the folder with the .npy files; auto: {_FOLDER} in the folder of data sets")

    @field_validator("corruption")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if doubled := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{doubled[0]!r} is there twice, and its images would count twice: name it once")
        for name in names:
            if name not in (*CORRUPTIONS, *EXTRA):
                raise ValueError(f"there is no corruption {name!r}: {did_you_mean(name, (*CORRUPTIONS, *EXTRA))}")
        return names


class CIFAR10C(Dataset[CIFAR10COptions]):
    """CIFAR-10 with corrupted test images, so that a set distilled from CIFAR-10 is scored on them.

    Training images, preprocessing and settings are those of ``cifar10``: a store that has its sets distils nothing
    anew. Each file holds the test images at severity 1, then 2, and so on; labels.npy their labels.
    """

    Options = CIFAR10COptions

    @property
    def traits(self) -> Traits:
        """The traits of CIFAR-10, without its published accuracies."""
        return CORRUPTED_CIFAR10_TRAITS

    @property
    def outline(self) -> Outline:
        """The outline of CIFAR-10."""
        return Outline(CLASSES, _SHAPE)

    def check_files(self, root: Path) -> None:
        """Raise `DataError` if the folder that ``path`` names or a file in it is missing."""
        if self.options.path:
            self._files(root)

    def load(self, root: Path) -> RawData:
        """Read CIFAR-10's training images, and the corrupted test images."""
        files = self._files(root)
        every = _read(files[0].with_name("labels.npy"))
        if every.ndim != 1 or every.dtype.kind not in "iu" or not every.size or len(every) % SEVERITIES:
            fault = f"{every.dtype} {every.shape}, not whole numbers for {SEVERITIES} severities"
            raise DataError(f"{files[0].with_name('labels.npy')} holds {fault}: unpack CIFAR-10-C.tar again")
        if every.min() < 0 or every.max() >= len(CLASSES):
            raise DataError(f"{files[0].with_name('labels.npy')} has labels that are not 0 to 9: unpack it again")
        rows = self._rows(len(every))
        labels = torch.from_numpy(np.tile(every[rows].astype(np.int64), len(files)))

        def fill(pixels: Mapping[str, Pixels]) -> None:
            count = rows.stop - rows.start
            for place, file in enumerate(files):
                images = _images(file, len(every))[rows]
                pixels["test"][place * count : (place + 1) * count] = images.transpose(0, 3, 1, 2)

        def key() -> str:
            parts = [f"{rows}", *(_digest(file) for file in files)]
            return hashlib.sha256(" ".join(parts).encode()).hexdigest()

        train = CIFAR10(DatasetOptions()).load(root)
        test = held(root, "cifar10-c", key, {"test": labels}, _SHAPE, fill)["test"]
        return RawData(train.train, test, CLASSES)

    def prepare(self, root: Path) -> None:
        """Download CIFAR-10, whose training images these sets have."""
        CIFAR10(DatasetOptions()).prepare(root)

    def _files(self, root: Path) -> list[Path]:
        typed = self.options.path is not None
        base = named_folder(self.options.path or os.path.join(root, _FOLDER), _WANTED, typed)
        files = [base / f"{name}.npy" for name in self.options.corruption or CORRUPTIONS]
        for file in (base / "labels.npy", *files):
            if not file.is_file():
                raise DataError(f"{file} is missing: path= must name {_WANTED}, as CIFAR-10-C.tar unpacks")
        return files

    def _rows(self, count: int) -> slice:
        """Return the rows of a file of ``count`` images that have the severity."""
        of_severity, severity = count // SEVERITIES, self.options.severity
        return slice(0, count) if severity is None else slice((severity - 1) * of_severity, severity * of_severity)


def _images(file: Path, count: int) -> NDArray[np.uint8]:
    """Return the images (n, 32, 32, 3) in a file, mapped from there."""
    images = _read(file)
    if images.dtype != np.uint8 or images.shape != (count, 32, 32, 3):
        wanted = f"uint8 {(count, 32, 32, 3)} as labels.npy says"
        raise DataError(f"{file} holds {images.dtype} {images.shape}, not {wanted}: unpack CIFAR-10-C.tar again")
    return images


def _read(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a truncated file, or none of NumPy's
        raise DataError(f"{file} is not a readable .npy file: unpack CIFAR-10-C.tar again ({error})") from None
    return array


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
