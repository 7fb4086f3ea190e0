"""The data set ``folder``: the user's own images in folders."""

from pathlib import Path

import torch
from torch import Tensor

from harness.datasets.image_files import SPLITS, ImageFiles
from harness.datasets.paths import named_folder
from harness.datasets.traits import OwnImagesOptions
from harness.errors import DataError
from harness.types.data.class_names import check_class_names, label_order
from harness.types.data.image_folder import ImageFolder
from harness.types.data.images import Fitting
from harness.types.dataset import Dataset, RawData, Traits
from harness.types.options import option

_LAYOUT = "train/CLASS/ and test/CLASS/"


class FolderOptions(OwnImagesOptions):
    """Options of the data set: where the images lie, and how they are read."""

    path: str = option(..., "the folder that holds train/CLASS/ and test/CLASS/")
    size: int | None = option(None, "resize all images to size x size pixels (bilinear); auto: all have one size", gt=0)


class Folder(Dataset[FolderOptions]):
    """An image folder ``PATH/{train,test}/CLASS/**/*.jpg`` (or another suffix that torchvision takes for an image).

    Classes are the folder names, in the order of their values if all are whole numbers, and otherwise as text. Images
    are turned as their EXIF data say; they are grey if all of both splits are, and colour otherwise. Links are
    followed, and each real folder is read once. Decoded images are cached in the data root; the key is the files'
    content, so a changed file is seen. From a gigabyte on they are mapped from there, and take no memory.
    """

    Options = FolderOptions
    version = 2
    """2: numbers as class names are ordered by value, and EXIF's orientation is applied."""

    @property
    def traits(self) -> Traits:
        """The traits of the set that the images are a copy of."""
        return self.options.traits

    def check_files(self, root: Path) -> None:
        """Raise `DataError` if the folder, ``train`` or ``test`` is missing."""
        self._base()

    def load(self, root: Path) -> RawData:
        """List, hash and decode the images, or take them from the cache."""
        size = self.options.size
        return _find(self._base()).by_content(root, "folder", {"version": self.version, "size": size}, Fitting(size))

    def _base(self) -> Path:
        base = named_folder(self.options.path, f"a folder with {_LAYOUT}")
        for split in SPLITS:
            if not (base / split).is_dir():
                raise DataError(f"{base} has no folder {split!r}: it must hold {_LAYOUT}")
        return base


def _find(base: Path) -> ImageFiles:
    """List the images of both splits, which must have the same classes."""
    tree = ImageFolder(base, str(base))
    folders = {split: tree.class_folders(split) for split in SPLITS}
    classes = label_order(folders["train"])
    try:
        check_class_names(classes)
    except DataError as error:  # before millions of images are read
        raise DataError(f"{base}: {error}") from None
    # A class in one split alone usually is a misspelt folder; it would shift the labels of all classes after it.
    for name in sorted(set(classes) ^ set(folders["test"])):
        here, missing = ("train", "test") if name in folders["train"] else ("test", "train")
        raise DataError(f"class {name!r} is in {base / here} but not in {base / missing}: both must have the same")
    paths: dict[str, list[str]] = {}
    labels: dict[str, Tensor] = {}
    for split in SPLITS:
        of_class = [_images(tree, split, folders[split][name], base) for name in classes]
        paths[split] = [path for listed in of_class for path in listed]
        counts = torch.tensor([len(listed) for listed in of_class])
        labels[split] = torch.arange(len(classes)).repeat_interleave(counts)
    return ImageFiles(base, tuple(classes), paths, labels)


def _images(tree: ImageFolder, split: str, folder: str, base: Path) -> list[str]:
    images = tree.images(split, folder)
    if not images:
        raise DataError(f"class {folder!r} is empty: there are no images in {base / split / folder}")
    return images
