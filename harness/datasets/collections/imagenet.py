"""ImageNet-1k (ILSVRC 2012) and its subsets of ten classes, resized and decoded once."""

import os
from pathlib import Path

import torch
from pydantic import field_validator

from harness.datasets.image_files import ImageFiles
from harness.datasets.paths import named_folder
from harness.datasets.traits import IMAGENET_TRAITS, sized
from harness.errors import DataError, did_you_mean
from harness.types.data.image_folder import ImageFolder
from harness.types.data.images import Fitting
from harness.types.dataset import Dataset, DatasetOptions, Outline, RawData, Traits
from harness.types.options import option

CLASSES = 1000
SIZES = (32, 64, 128, 224, 256)
SUBSETS = {
    "nette": (0, 217, 482, 491, 497, 566, 569, 571, 574, 701),
    "woof": (193, 182, 258, 162, 155, 167, 159, 273, 207, 229),
    "meow": (281, 282, 283, 284, 285, 291, 292, 290, 289, 287),
    "squawk": (84, 130, 88, 144, 145, 22, 96, 9, 100, 89),
    "fruit": (953, 954, 949, 950, 951, 957, 952, 945, 943, 948),
    "yellow": (309, 986, 954, 951, 987, 779, 599, 291, 72, 11),
}
"""Classes of the subsets by their index in ImageNet-1k; label i is the i-th of the list (MTT)."""
_WANTED = "a folder of ImageNet-1k with train/CLASS/ and val/CLASS/ for its 1000 classes (n01440764, ...)"
_PARTS = {"train": "train", "test": "val"}


class ImageNetOptions(DatasetOptions):
    """Options of the data set: where it lies, which classes, and their size."""

    path: str | None = option(None, "the folder with train/ and val/; auto: imagenet in the folder of data sets")
    subset: str | None = option(None, f"ten classes: {', '.join(SUBSETS)}; auto: all 1000", source="MTT")
    size: int | None = option(
        None, f"pixels a side: {', '.join(map(str, SIZES))}; auto: 128 of a subset, 64 of all classes", source="MTT"
    )

    @field_validator("subset")
    @classmethod
    def _is_known(cls, subset: str | None) -> str | None:
        if subset is not None and subset not in SUBSETS:
            raise ValueError(f"there is no such subset: {did_you_mean(subset, SUBSETS)}")
        return subset

    @field_validator("size")
    @classmethod
    def _is_usual(cls, size: int | None) -> int | None:
        if size is not None and size not in SIZES:
            raise ValueError(f"must be {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]}")
        return size

    @property
    def side(self) -> int:
        """Pixels a side."""
        return self.size or (128 if self.subset else 64)

    @property
    def indices(self) -> tuple[int, ...]:
        """The classes by their index in ImageNet-1k."""
        return SUBSETS[self.subset] if self.subset else tuple(range(CLASSES))


class ImageNet(Dataset[ImageNetOptions]):
    """ImageNet-1k with its own validation set as test images, or ten of its classes with their original split.

    Images are read as the field's code does: the shorter side resized (bilinear), the middle cropped, EXIF's
    orientation ignored. Classes are numbered as torchvision numbers them, by their sorted identifiers, and have its
    names. They are decoded once; all classes at 64 pixels take 16 GB of disk, and are mapped from there.
    """

    Options = ImageNetOptions

    @property
    def traits(self) -> Traits:
        """The traits of ImageNet, with main models for the size."""
        return sized(IMAGENET_TRAITS, self.options.side)

    @property
    def outline(self) -> Outline:
        """The outline: names of torchvision, and the size."""
        return Outline(_names(self.options.indices), (3, self.options.side, self.options.side))

    def check_files(self, root: Path) -> None:
        """Raise `DataError` if the folder that ``path`` names is missing, or ``train`` or ``val`` in it."""
        if self.options.path:
            self._base(root)

    def load(self, root: Path) -> RawData:
        """List the images of the classes, and decode them once."""
        base, size = self._base(root), self.options.side
        tree = ImageFolder(base, str(base))
        identifiers = _identifiers(tree, base)
        paths: dict[str, list[str]] = {}
        labels: dict[str, torch.Tensor] = {}
        for split, part in _PARTS.items():
            of_class = [_images(tree, base, part, identifiers[index]) for index in self.options.indices]
            paths[split] = [path for listed in of_class for path in listed]
            labels[split] = torch.arange(len(of_class)).repeat_interleave(torch.tensor(list(map(len, of_class))))
        files = ImageFiles(base, self.outline.classes, paths, labels)
        options = {"version": self.version, "size": size}
        return files.by_stamp(root, "imagenet", options, Fitting(size, crop=True, turn=False), size)

    def _base(self, root: Path) -> Path:
        typed = self.options.path is not None
        base = named_folder(self.options.path or os.path.join(root, "imagenet"), _WANTED, typed)
        for part in _PARTS.values():
            if not (base / part).is_dir():
                raise DataError(f"{base} has no folder {part!r}: path= must name {_WANTED}")
        return base


def _identifiers(tree: ImageFolder, base: Path) -> list[str]:
    """Return the sorted identifiers of all classes, which must be there: classes are known by their place."""
    identifiers = sorted(tree.class_folders("train"))
    if len(identifiers) != CLASSES:
        remedy = f"classes are counted among all {CLASSES}; for others use folder[path=...,size=...]"
        raise DataError(f"{base / 'train'} has {len(identifiers)} class folders, not {CLASSES}: {remedy}")
    return identifiers


def _images(tree: ImageFolder, base: Path, part: str, identifier: str) -> list[str]:
    place = base / part / identifier
    if not place.is_dir():
        sort = " (the archive of the validation set is flat: sort its images into such folders)" * (part == "val")
        raise DataError(f"{place} is missing: path= must name {_WANTED}{sort}")
    images = tree.images(part, identifier)
    if not images:
        raise DataError(f"{place} has no images: path= must name {_WANTED}")
    return images


def _names(indices: tuple[int, ...]) -> tuple[str, ...]:
    """Return torchvision's names of classes, which it has made different where ImageNet's are not."""
    from torchvision.models import ResNet18_Weights

    categories = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    return tuple(categories[index] for index in indices)
