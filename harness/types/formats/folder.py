"""Distilled sets as image folders, ``CLASS/NAME.png``: pixels rounded to 8 bits, for people and other loaders."""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save

from harness.errors import DataError
from harness.types.data.class_names import canonical_name, label_order
from harness.types.data.image_folder import ImageFolder
from harness.types.data.images import Fitting, decode_files, is_image, read_headers
from harness.types.data.preprocessing import Preprocessing, preprocessing_from
from harness.types.distilled import DistilledSet
from harness.types.formats.content import Content, display_name
from harness.types.formats.folder_names import folder_names
from harness.types.formats.format import SetFormat, lost_encoding, refusal_unless_hard
from harness.types.formats.limits import MOST_TEXT, MOST_VALUES, beside, plain_file, reason_of
from harness.types.formats.metadata import as_text, metadata_of, parse_metadata
from harness.types.formats.pickled import file_of_folder
from harness.types.formats.safe import read_safetensors
from harness.types.options import Options
from harness.types.problem import Shape

ABOUT = "ddbench.json"
"""A file beside the class folders that holds the classes' names, the step size and the provenance."""
PREPROCESSING = "preprocessing.safetensors"
"""A file beside `ABOUT` that holds the tensors of the preprocessing that it names."""
_BYTES_PER_VALUE = 13
"""Peak memory in bytes per pixel while a folder is read: decoded, as a float, and twice while it is normalised."""
_MODES = {1: "L", 3: "RGB"}
_LOOKED_AT = 1000
"""Entries of a folder that are looked at to recognise it."""


@dataclass(frozen=True)
class _Listing:
    """The listing of a set's folder: its class folders in the order of the labels, and the images of each."""

    name: str
    about: dict[str, Any] | None
    folders: list[str]
    files: list[list[str]]

    @property
    def all_files(self) -> list[str]:
        return [file for of_class in self.files for file in of_class]


class Images(SetFormat[Options]):
    """A folder with a folder of images for each class; labels follow the sorted names, or the order in `ABOUT`."""

    def recognises(self, path: Path) -> bool:
        """Return whether it is a folder with `ABOUT`, or with images in its folders, and of no other code's files."""
        if not path.is_dir() or file_of_folder(path) is not None:
            return False
        return os.path.lexists(path / ABOUT) or _has_images(path)

    def read(self, path: Path, entry: int) -> Content:
        """Read all images."""
        listing = _listing(path)
        about, files = listing.about, listing.all_files
        headers = read_headers(files, Fitting())
        if headers.values > MOST_VALUES:
            shape = f"{headers.count} images of {headers.width}x{headers.height}"
            raise DataError(f"{listing.name}: {shape} are more than a set may hold")
        headers.check_memory(_BYTES_PER_VALUE, "give a set of fewer or smaller images")
        counts = torch.tensor([len(of_class) for of_class in listing.files])
        return Content(
            where=listing.name,
            images=decode_files(files, Fitting(), headers).float().div_(255.0),
            labels=torch.arange(len(counts)).repeat_interleave(counts),
            pixels=True,
            classes=tuple(about["classes"] if about else listing.folders),
            named=not about,
            preprocessing=_preprocessing(path, listing.name, about) if about else None,
            step_size=about["step_size"] if about else None,
            provenance=about["provenance"] if about else {"file": listing.name, "format": "images"},
        )

    def check_shape(self, path: Path, shape: Callable[[], Shape]) -> None:
        """Compare the size of the images, as their headers give it, with a data set's before any image is decoded.

        Raises:
            DataError: the sizes differ, or the folder cannot be read.
        """
        _, height, width = shape()
        listing = _listing(path)
        headers = read_headers(listing.all_files, Fitting())
        if (headers.height, headers.width) != (height, width):
            sizes = f"images of {headers.width}x{headers.height}, but those of the data set are {width}x{height}"
            raise DataError(f"{listing.name} has {sizes}: choose another --dataset")

    def refusal(self, distilled: DistilledSet) -> str | None:
        """Refuse labels that are not hard, a schedule, and images of neither one channel nor three."""
        if refusal := refusal_unless_hard(distilled, "a folder holds one class an image"):
            return refusal
        channels = distilled.training_data()[0].shape[1]
        if channels not in _MODES:
            return f"a picture has 1 or 3 channels, and these have {channels}: write safetensors or npz"
        return None

    def write(self, distilled: DistilledSet, path: Path) -> tuple[str, ...]:
        """Write the images as they look before preprocessing; return what is lost, in words."""
        images, labels = distilled.training_data()
        folders = folder_names(distilled.classes)
        pairs = list(zip(folders, distilled.classes, strict=True))
        metadata = {**metadata_of(distilled), "format": 1, "folders": pairs}
        metadata.pop("parametrisation", None)
        text = as_text(metadata, indent=1)
        pixels = distilled.preprocessing.invert(images) * 255.0
        # Half a level beyond 0 and 255 is still rounding; only values further out are lost by clipping.
        clipped = float(((pixels < -0.5) | (pixels >= 255.5)).double().mean())
        levels = pixels.round().clamp(0, 255).to(torch.uint8)
        # Leading zeros keep the images in their order when a loader sorts names as text.
        width = len(str(int(torch.bincount(labels).max()) - 1))
        for label, folder in enumerate(folders):
            (path / folder).mkdir(parents=True)
            for number, picture in enumerate(levels[labels == label]):
                whole = picture[0] if len(picture) == 1 else picture.permute(1, 2, 0)
                Image.fromarray(whole.contiguous().numpy()).save(path / folder / f"{number:0{max(width, 3)}}.png")
        (path / ABOUT).write_text(text)
        parts = {name: value.contiguous() for name, value in distilled.preprocessing.tensors().items()}
        # Tensors go into a file of their own: JSON would round the values of a whitening matrix or take ten times the
        # space.
        (path / PREPROCESSING).write_bytes(save(parts))
        lost = f"pixels are rounded to 8 bits, {100 * clipped:.3g} % of them clipped to [0, 1]"
        return (lost, *lost_encoding(distilled))


def _has_images(folder: Path) -> bool:
    """Return whether a folder in this folder holds a file that is called like an image."""
    try:
        return any(any(map(is_image, _names(entry))) for entry in _entries(folder) if entry.is_dir())
    except OSError:
        return False


def _names(folder: os.DirEntry[str]) -> list[str]:
    return [entry.name for entry in _entries(folder)]


def _entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(itertools.islice(entries, _LOOKED_AT))


def _listing(path: Path) -> _Listing:
    name = display_name(path)
    tree = ImageFolder(path, name, foreign=True)
    on_disk = tree.class_folders()
    about = _about(path, name)
    # The stored list decides the labels; without it, the sorted names do, as every other loader has it.
    folders = [canonical_name(folder) for folder, _ in about["folders"]] if about else label_order(on_disk)
    if unknown := set(folders) ^ set(on_disk):
        raise DataError(f"{name}: {min(unknown)!r} is not both a folder and in {ABOUT}: give the folder as it was made")
    files = [tree.images(on_disk[folder]) for folder in folders]
    if not any(files):
        raise DataError(f"{name} holds no images: they belong in CLASS/NAME.png")
    return _Listing(name, about, folders, files)


def _about(base: Path, name: str) -> dict[str, Any] | None:
    """Return the checked metadata that `write` stored beside the images; None if there is none."""
    file = beside(base / ABOUT, ABOUT)
    if file is None:
        return None
    where = f"{name}/{ABOUT}"
    # The file came with the folder: its size is checked before it is read into memory.
    if plain_file(file) > MOST_TEXT:
        raise DataError(f"{where} is too large to be what ddbench writes: delete it, or give the folder as it was made")
    try:
        metadata = parse_metadata(file.read_text(), where)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where} cannot be read ({reason_of(error)})") from None
    if not _names_folders(metadata.get("folders"), metadata["classes"]):
        raise DataError(f"{where} does not name a folder for each class: delete it, or give the folder as it was made")
    return metadata


def _preprocessing(base: Path, name: str, about: Mapping[str, Any]) -> Preprocessing | None:
    """Return the preprocessing of the pixels; None if the folder has none, as folders of earlier versions."""
    file = beside(base / PREPROCESSING, PREPROCESSING)
    if file is None:
        return None
    _, tensors = read_safetensors(file, lambda _: True)
    try:
        return preprocessing_from(about["preprocessing"], tensors)
    except DataError as error:
        raise DataError(f"{name}/{PREPROCESSING}: {error}") from None


def _names_folders(pairs: object, classes: Sequence[str]) -> bool:
    """Return whether the pairs are [folder, class] for each class, with folders that all differ."""
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return False
    folders = [folder for folder, _ in pairs]
    if not all(isinstance(folder, str) for folder in folders):
        return False
    different = len({canonical_name(folder) for folder in folders}) == len(folders)
    return different and [name for _, name in pairs] == list(classes)
