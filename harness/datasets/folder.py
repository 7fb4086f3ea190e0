"""One's own images in folders."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.datasets.cache import Tensors, cached
from harness.datasets.traits import OwnImagesOptions
from harness.types.dataset import Dataset, RawData, Traits
from harness.types.errors import DataError
from harness.types.images import decode_files, files_below, hash_files, is_image
from harness.types.options import option
from harness.types.problem import Split

SPLITS = ("train", "test")


class FolderOptions(OwnImagesOptions):
    """Where the images lie, and how they are read."""

    path: str = option(..., "the folder that holds train/CLASS/ and test/CLASS/")
    size: int | None = option(None, "resize all images to size x size pixels (bilinear); auto: all have one size", gt=0)


@dataclass(frozen=True)
class _Files:
    """The image files of both splits with their labels."""

    classes: tuple[str, ...]
    paths: dict[str, list[str]]
    labels: dict[str, Tensor]

    @property
    def all_paths(self) -> list[str]:
        return [path for split in SPLITS for path in self.paths[split]]


class Folder(Dataset[FolderOptions]):
    """An image folder ``PATH/{train,test}/CLASS/**/*.jpg`` (or another suffix that torchvision takes for an image).

    Classes are the folder names, sorted. Images are grey if all of both splits are, and colour otherwise. Decoded
    images are cached in the data root; the key is the files' content, so a changed file is seen.
    """

    Options = FolderOptions

    @property
    def traits(self) -> Traits:
        """Those of the set that the images are a copy of."""
        return self.options.traits

    def load(self, root: Path) -> RawData:
        """List, hash and decode the images, or take them from the cache."""
        base = Path(self.options.path).expanduser()
        try:
            files = _find(base)
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
        pixels = cached(root, "folder", self._key(base, files), lambda: self._decode(files))
        train, test = (Split(pixels[split], files.labels[split]) for split in SPLITS)
        return RawData(train, test, files.classes)

    def _key(self, base: Path, files: _Files) -> str:
        """Digest of all that decides the pixels: relative names, contents, version and the options that matter."""
        prefix = len(os.path.join(base, ""))
        names = [os.fsencode(path[prefix:].replace(os.sep, "/")) for path in files.all_paths]
        digest = hashlib.sha256(json.dumps({"version": self.version, "size": self.options.size}).encode())
        digest.update(hashlib.sha256(b"\0".join(names)).digest())
        digest.update(hash_files(files.all_paths))
        return digest.hexdigest()

    def _decode(self, files: _Files) -> Tensors:
        pixels = decode_files(files.all_paths, self.options.size)
        boundary = len(files.paths["train"])
        return {"train": pixels[:boundary], "test": pixels[boundary:]}


def _find(base: Path) -> _Files:
    """List the images of both splits, which must have the same classes."""
    for split in SPLITS:
        if not (base / split).is_dir():
            raise DataError(f"{base} has no folder {split!r}: it must hold train/CLASS/ and test/CLASS/")
    classes = _classes(base / "train")
    for name in sorted(set(classes) ^ set(_classes(base / "test"))):
        here, missing = ("train", "test") if name in classes else ("test", "train")
        raise DataError(f"class {name!r} is in {base / here} but not in {base / missing}: both must have the same")
    paths: dict[str, list[str]] = {}
    labels: dict[str, Tensor] = {}
    for split in SPLITS:
        of_class = [_images(base / split / name) for name in classes]
        paths[split] = [path for found in of_class for path in found]
        labels[split] = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(found) for found in of_class]))
    return _Files(tuple(classes), paths, labels)


def _classes(folder: Path) -> list[str]:
    classes = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            classes.append(entry.name)
        elif is_image(entry.name):
            raise DataError(f"{entry} is in no class: images belong into {folder}/CLASS/")
    if not classes:
        raise DataError(f"{folder} has no class folders: images belong into {folder}/CLASS/")
    return classes


def _images(folder: Path) -> list[str]:
    found = files_below(folder)
    if not found:
        raise DataError(f"class {folder.name!r} is empty: there are no images in {folder}")
    return found
