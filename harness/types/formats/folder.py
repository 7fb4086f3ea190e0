"""A folder of images, ``CLASS/NAME.png``: pixels, rounded to 8 bits and clipped, for people and for other loaders."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save

from harness.types.distilled import DistilledSet
from harness.types.errors import DataError
from harness.types.formats.content import Content, told_of
from harness.types.formats.foldernames import folder_names
from harness.types.formats.format import Format, packing
from harness.types.formats.limits import MOST_TEXT, MOST_VALUES, beside, plain_file, reason_of
from harness.types.formats.safe import read_safetensors
from harness.types.formats.told import as_text, read_told, told_of_set
from harness.types.images import decode_files, is_image
from harness.types.options import Options
from harness.types.preprocessing import Preprocessing, preprocessing_from

ABOUT = "ddbench.json"
"""A file beside the class folders that tells the classes' names, the step size and the provenance."""
PREPROCESSING = "preprocessing.safetensors"
"""A file beside `ABOUT` that holds the tensors of the preprocessing that it names."""
_MODES = {1: "L", 3: "RGB"}


def read(path: Path, _options: Options, _entry: int) -> Content:
    """Read a folder with a folder for each class; labels follow the sorted names unless `ABOUT` tells them."""
    base, name = path.resolve(), told_of(path)
    about = _about(base, name)
    found = _folders(base, name)
    folders = [folder for folder, _ in about["folders"]] if about else sorted(found, key=_order)
    if unknown := set(folders) ^ set(found):
        raise DataError(f"{name}: {min(unknown)!r} is not both a folder and in {ABOUT}: give the folder as it was made")
    files = [_files(base, folder, name) for folder in folders]
    listed = [file for of_class in files for file in of_class]
    if not listed:
        raise DataError(f"{name} holds no images: they belong into CLASS/NAME.png")
    labels = torch.arange(len(files)).repeat_interleave(torch.tensor([len(of_class) for of_class in files]))
    pixels = decode_files(listed, None, most_values=MOST_VALUES)
    return Content(
        where=name,
        images=pixels.float().div_(255.0),
        labels=labels,
        pixels=True,
        classes=tuple(about["classes"] if about else folders),
        named=not about,
        preprocessing=_preprocessing(base, name, about) if about else None,
        step_size=about["step_size"] if about else None,
        provenance=about["provenance"] if about else {"file": name, "format": "images"},
    )


def write(distilled: DistilledSet, path: Path) -> tuple[str, ...]:
    """Write the images as they look before preprocessing.

    Raises:
        DataError: labels are soft, or images have neither one channel nor three.
    """
    if distilled.label_kind == "soft":
        raise DataError("a folder holds one class an image, and these labels are soft: write safetensors or npz")
    images, labels = distilled.training_data()
    if images.shape[1] not in _MODES:
        raise DataError(f"a picture has 1 or 3 channels, and these have {images.shape[1]}: write safetensors or npz")
    folders = folder_names(distilled.classes)
    told = {**told_of_set(distilled), "format": 1, "folders": list(zip(folders, distilled.classes, strict=True))}
    told.pop("decoder", None)
    text = as_text(told, indent=1)
    pixels = distilled.preprocessing.invert(images) * 255.0
    clipped = float(((pixels < -0.5) | (pixels >= 255.5)).double().mean())
    levels = pixels.round().clamp(0, 255).to(torch.uint8)
    width = len(str(int(torch.bincount(labels).max()) - 1))
    for label, folder in enumerate(folders):
        (path / folder).mkdir(parents=True)
        for number, picture in enumerate(levels[labels == label]):
            whole = picture[0] if len(picture) == 1 else picture.permute(1, 2, 0)
            Image.fromarray(whole.contiguous().numpy()).save(path / folder / f"{number:0{max(width, 3)}}.png")
    (path / ABOUT).write_text(text)
    parts = {name: value.contiguous() for name, value in distilled.preprocessing.tensors().items()}
    (path / PREPROCESSING).write_bytes(save(parts))
    lost = f"pixels are rounded to 8 bits, {100 * clipped:.3g} % of them clipped to [0, 1]"
    return (lost, *packing(distilled))


def _about(base: Path, name: str) -> dict[str, Any] | None:
    """What `write` told of the folder, checked; None where there is nothing."""
    file = beside(base / ABOUT, ABOUT)
    if file is None:
        return None
    where = f"{name}/{ABOUT}"
    if plain_file(file) > MOST_TEXT:
        raise DataError(f"{where} is too large to be what ddbench writes: delete it, or give the folder as it was made")
    try:
        told = read_told(file.read_text(), where)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where} cannot be read ({reason_of(error)})") from None
    if not _names_folders(told.get("folders"), told["classes"]):
        raise DataError(f"{where} does not tell a folder for each class: delete it, or give the folder as it was made")
    return told


def _preprocessing(base: Path, name: str, about: Mapping[str, Any]) -> Preprocessing | None:
    """What has to be done to the pixels; None if the folder does not say, as those of earlier versions do not."""
    file = beside(base / PREPROCESSING, PREPROCESSING)
    if file is None:
        return None
    _, tensors = read_safetensors(file, lambda _: True)
    try:
        return preprocessing_from(about["preprocessing"], tensors)
    except DataError as error:
        raise DataError(f"{name}/{PREPROCESSING}: {error}") from None


def _names_folders(pairs: object, classes: Sequence[str]) -> bool:
    """Whether these are [folder, class] for each class, and the folders differ."""
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return False
    folders = [folder for folder, _ in pairs]
    texts = all(isinstance(folder, str) for folder in folders)
    return texts and len(set(folders)) == len(folders) and [name for _, name in pairs] == list(classes)


def _folders(base: Path, name: str) -> list[str]:
    """The names of the class folders."""
    found = []
    for entry in _entries(base, name):
        if _inside(entry, base, name).is_dir():
            found.append(entry.name)
        elif is_image(entry.name):
            raise DataError(f"{name}: {entry.name!r} is in no class: images belong into CLASS/")
    if not found:
        raise DataError(f"{name} has no class folders: images belong into CLASS/NAME.png")
    return found


def _files(base: Path, folder: str, name: str) -> list[str]:
    files = []
    for entry in _entries(base / folder, name):
        inside = _inside(entry, base, name)
        if inside.is_dir():
            raise DataError(f"{name}: {folder!r} holds the folder {entry.name!r}: images belong into CLASS/ itself")
        if is_image(entry.name):
            if not stat.S_ISREG(inside.stat().st_mode):
                raise DataError(f"{name}: {entry.name!r} in {folder!r} is no plain file, but a pipe or a device")
            files.append(os.fspath(inside))
    return sorted(files)


def _entries(folder: Path, name: str) -> Sequence[Path]:
    """What lies in a folder, but for what is hidden."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{name} cannot be read: {reason_of(error)}") from None


def _inside(entry: Path, base: Path, name: str) -> Path:
    """What an entry stands for, which must lie in the folder itself."""
    try:
        target = entry.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name}: {entry.name!r} leads nowhere ({reason_of(error)}): delete it") from None
    if not target.is_relative_to(base):
        raise DataError(f"{name}: {entry.name!r} is a link out of the folder: put the images themselves there")
    return target


def _order(name: str) -> tuple[int, str]:
    """Numbers by their value, before names."""
    return (int(name), name) if name.isdecimal() and len(name) < 10 else (10**10, name)


FORMAT = Format("images", (), "a folder CLASS/NAME.png (or .jpg, ...): pixels", read, write)
