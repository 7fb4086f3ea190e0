"""Tiny-ImageNet: 200 classes of 500 training and 50 validation images of 64x64 (Le and Yang, 2015)."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from harness.datasets.image_files import ImageFiles
from harness.datasets.paths import named_folder
from harness.datasets.traits import TINY_IMAGENET_TRAITS
from harness.errors import DataError, few
from harness.types.data.class_names import check_class_names
from harness.types.data.image_folder import ImageFolder
from harness.types.data.images import Fitting
from harness.types.dataset import Dataset, DatasetOptions, RawData, Traits
from harness.types.options import option

NAME = "tiny-imagenet-200"
_SIZE = 64
_FITTING = Fitting(
    turn=False, remedy=f"all images of Tiny-ImageNet have {_SIZE}x{_SIZE} pixels, unpack {NAME}.zip again"
)
_WANTED = f"the folder {NAME}, as its zip file unpacks, with wnids.txt, words.txt, train/ and val/"


class TinyImageNetOptions(DatasetOptions):
    """Options of the data set: where it lies."""

    path: str | None = option(None, f"the unpacked folder; auto: {NAME} in the folder of data sets")


class TinyImageNet(Dataset[TinyImageNetOptions]):
    """Tiny-ImageNet as its zip file unpacks: the training images, and as test images the validation set.

    Labels count the identifiers of wnids.txt in sorted order, as image folders do in the field's code. Classes are
    called by their first word in words.txt, with the identifier if two have the same. Grey images become colour. The
    official test images have no labels, and are not read.
    """

    Options = TinyImageNetOptions

    @property
    def traits(self) -> Traits:
        """The traits of the set: its normalisation in the DC code base, and a ConvNet of 4 blocks."""
        return TINY_IMAGENET_TRAITS

    def check_files(self, root: Path) -> None:
        """Raise `DataError` if the folder that ``path`` names or a file of labels in it is missing."""
        if self.options.path:
            self._base(root)

    def load(self, root: Path) -> RawData:
        """Read the labels, and decode the images once."""
        base = self._base(root)
        identifiers = _identifiers(base)
        classes = _names(base, identifiers)
        train = [_training_images(base, identifier) for identifier in identifiers]
        test, labels = _validation_images(base, identifiers)
        files = ImageFiles(
            base,
            classes,
            {"train": [file for of_class in train for file in of_class], "test": test},
            {
                "train": torch.arange(len(train)).repeat_interleave(torch.tensor(list(map(len, train)))),
                "test": torch.tensor(labels),
            },
        )
        return files.by_stamp(root, "tiny-imagenet", {"version": self.version}, _FITTING, _SIZE)

    def _base(self, root: Path) -> Path:
        typed = self.options.path is not None
        base = named_folder(self.options.path or os.path.join(root, NAME), _WANTED, typed)
        for name in ("wnids.txt", "words.txt", "train", os.path.join("val", "val_annotations.txt")):
            if not (base / name).exists():
                raise DataError(f"{base} has no {name}: path= must name {_WANTED}")
        return base


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file without those that are empty."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read as text: unpack {NAME}.zip again ({error})") from None
    return [line for line in lines if line]


def _identifiers(base: Path) -> list[str]:
    path = base / "wnids.txt"
    identifiers = sorted(_lines(path))
    if not identifiers:
        raise DataError(f"{path} is empty: unpack {NAME}.zip again")
    if doubled := [first for first, second in itertools.pairwise(identifiers) if first == second]:
        raise DataError(f"{path} has {doubled[0]} twice: delete one of the lines")
    return identifiers


def _names(base: Path, identifiers: Sequence[str]) -> tuple[str, ...]:
    words = dict(line.partition("\t")[::2] for line in _lines(base / "words.txt"))
    if missing := [identifier for identifier in identifiers if not words.get(identifier)]:
        raise DataError(f"{base / 'words.txt'} has no name for {few(missing)} of wnids.txt: unpack {NAME}.zip again")
    first = [words[identifier].split(",")[0].strip() for identifier in identifiers]
    names = tuple(
        f"{name} ({identifier})" if first.count(name) > 1 else name
        for name, identifier in zip(first, identifiers, strict=True)
    )
    try:
        check_class_names(names)
    except DataError as error:
        raise DataError(f"{base / 'words.txt'}: {error}") from None
    return names


def _training_images(base: Path, identifier: str) -> list[str]:
    place = base / "train" / identifier / "images"
    remedy = f"unpack {NAME}.zip again, or drop {identifier} from wnids.txt and val_annotations.txt"
    if not place.is_dir():
        raise DataError(f"{place} is missing: {remedy}")
    images = ImageFolder(base, str(base)).images("train", identifier, "images")
    if not images:
        raise DataError(f"{place} has no images: {remedy}")
    return images


def _validation_images(base: Path, identifiers: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the validation images in the order of their annotations, and their labels."""
    annotations, place = base / "val" / "val_annotations.txt", base / "val" / "images"
    remedy = f"unpack {NAME}.zip again, or delete the line"
    seen: set[str] = set()
    label_of = {identifier: label for label, identifier in enumerate(identifiers)}
    files: list[str] = []
    labels: list[int] = []
    if not place.is_dir():
        raise DataError(f"{place} is missing: the validation images belong there, all in one folder")
    there = {entry.name for entry in os.scandir(place) if entry.is_file()}
    for number, line in enumerate(_lines(annotations), 1):
        name, identifier = [*line.split("\t"), "", ""][:2]
        if identifier not in label_of:
            raise DataError(f"{annotations}, line {number}: {identifier[:40]!r} is not a class of wnids.txt: {remedy}")
        if name not in there:
            raise DataError(f"{annotations}, line {number}: {place} has no {name[:40]!r}: {remedy}")
        if name in seen:
            raise DataError(f"{annotations}, line {number}: {name[:40]!r} is there twice: {remedy}")
        seen.add(name)
        files.append(os.path.join(place, name))
        labels.append(label_of[identifier])
    if not files:
        raise DataError(f"{annotations} is empty: unpack {NAME}.zip again")
    return files, labels
