"""MedMNIST: medical images of 28x28 and more (Yang et al., Scientific Data 2023)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from pydantic import field_validator

from harness.datasets.mapped import Pixels, held
from harness.datasets.npz_images import NpzImages, below
from harness.datasets.paths import named_file
from harness.datasets.traits import MEDICAL_TRAITS, sized
from harness.errors import DataError, did_you_mean
from harness.system.packages import require_packages
from harness.types.dataset import Dataset, DatasetOptions, RawData, Traits
from harness.types.options import option

CLASSES = {
    "pathmnist": 9, "dermamnist": 7, "octmnist": 4, "pneumoniamnist": 2, "retinamnist": 5, "breastmnist": 2,
    "bloodmnist": 8, "tissuemnist": 8, "organamnist": 11, "organcmnist": 11, "organsmnist": 11,
}  # fmt: skip
"""The number of classes of each two-dimensional set with one label an image."""
SIZES = (28, 64, 128, 224)
_KEYS = ("train_images", "train_labels", "test_images", "test_labels")


class MedMNISTOptions(DatasetOptions):
    """Options of the data set: which, of which size, and where it lies."""

    name: str = option(..., f"which: {', '.join(CLASSES)}")
    size: int = option(28, f"pixels a side: {', '.join(map(str, SIZES))} (MedMNIST+)")
    path: str | None = option(None, "the .npz file; auto: medmnist/NAME.npz (NAME_64.npz) in the folder of data sets")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name == "chestmnist":
            raise ValueError("its images have several labels each, and only sets with one can be distilled here")
        if name not in CLASSES:
            raise ValueError(f"there is no such set with two dimensions: {did_you_mean(name, CLASSES)}")
        return name

    @field_validator("size")
    @classmethod
    def _is_usual(cls, size: int) -> int:
        if size not in SIZES:
            raise ValueError(f"must be {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]}")
        return size

    @property
    def file(self) -> str:
        """The name of the file that MedMNIST distributes."""
        return f"{self.name}.npz" if self.size == 28 else f"{self.name}_{self.size}.npz"


class MedMNIST(Dataset[MedMNISTOptions]):
    """A two-dimensional set of MedMNIST v2, with its own training and test images; classes are called by their labels.

    Its validation images are not used: a run cuts its own split from the training images. `ddbench prepare` downloads
    the file with the package ``medmnist`` (``pip install 'ddbench[medmnist]'``); reading it needs no package.
    """

    Options = MedMNISTOptions

    @property
    def traits(self) -> Traits:
        """Traits of medical images: computed normalisation, nothing flips, main models for the size."""
        return sized(MEDICAL_TRAITS, self.options.size)

    def check_files(self, root: Path) -> None:
        """Raise `DataError` if the file that ``path`` names is missing; without it, the file can be downloaded."""
        if self.options.path:
            named_file(self.options.path, self._wanted)

    def load(self, root: Path) -> RawData:
        """Read and check the file."""
        place = self.options.path or os.path.join(root, "medmnist", self.options.file)
        if not self.options.path and not os.path.exists(place):
            fetch = f"put it there, or run `ddbench prepare 'medmnist[name={self.options.name}]'` with a network"
            raise DataError(f"{place} does not exist: {fetch}")
        file = NpzImages(named_file(place, self._wanted), self._wanted)
        file.check(_KEYS)
        classes, size = CLASSES[self.options.name], self.options.size
        labels = {part: torch.from_numpy(_labels(file, part, classes)) for part in ("train", "test")}
        shapes = {part: file.shape(f"{part}_images") for part in labels}
        for part, (count, (_, *sides)) in shapes.items():
            if count != len(labels[part]) or sides != [size, size]:
                fault = f"{count} {part} images of {sides} with {len(labels[part])} labels, not of {size}x{size}"
                raise DataError(f"{file.path} has {fault}: path= must name {self._wanted}")

        def fill(pixels: Mapping[str, Pixels]) -> None:
            for part, array in pixels.items():
                file.fill(f"{part}_images", array)

        splits = held(root, "medmnist", file.digest, labels, shapes["train"][1], fill)
        return RawData(splits["train"], splits["test"], tuple(map(str, range(classes))))

    def prepare(self, root: Path) -> None:
        """Download the file with the package ``medmnist``, unless it is there.

        Raises:
            UsageError: the package is not installed.
            DataError: the download fails.
        """
        folder = root / "medmnist"
        if self.options.path or (folder / self.options.file).exists():
            return
        require_packages("the download of MedMNIST", {"medmnist": "ddbench[medmnist]"})
        import medmnist

        cls = getattr(medmnist, medmnist.INFO[self.options.name]["python_class"])
        folder.mkdir(parents=True, exist_ok=True)
        try:
            cls(split="train", download=True, root=str(folder), size=self.options.size)
        except Exception as error:  # no network is met in many ways
            fault = f"{self.options.file} cannot be fetched: put it into {folder} ({' '.join(str(error).split())})"
            raise DataError(fault) from error

    @property
    def _wanted(self) -> str:
        return f"{self.options.file} of MedMNIST with {', '.join(_KEYS)}"


def _labels(file: NpzImages, part: str, classes: int) -> NDArray[Any]:
    key = f"{part}_labels"
    labels = file.array(key)
    if labels is None or labels.ndim != 2 or labels.shape[1] != 1 or labels.dtype.kind not in "iu":
        fault = "nothing" if labels is None else f"{labels.dtype} {labels.shape}"
        raise DataError(f"{file.path}: {key} must be a whole number for each image (n, 1), not {fault}")
    try:
        return below(labels[:, 0], classes, key)
    except DataError as error:
        raise DataError(f"{file.path}: {error}") from None
