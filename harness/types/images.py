"""Image files: listing, hashing and decoding many of them."""

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from harness.types.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The suffixes that make a file an image, as in torchvision."""

_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""What is decoded, whatever the suffix says: other formats of Pillow's start programs."""
_GREY_MODES = ("1", "L", "LA", "La")
_THREADS = 4  # reading small files waits for the disk; decoding large ones runs outside the interpreter's lock
_CHUNK = 256

R = TypeVar("R")


def files_below(folder: Path) -> list[str]:
    """All image files below ``folder``, sorted; what is hidden or has another suffix is passed over.

    Raises:
        OSError: a folder cannot be read.
    """
    found = []
    for where, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(where, name) for name in names if is_image(name)]
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def hash_files(files: Sequence[str]) -> bytes:
    """SHA-256 over the contents of ``files``, in their order.

    Raises:
        DataError: a file cannot be read.
    """
    digests = _in_chunks(files, lambda _, chunk: b"".join(map(_hash_file, chunk)))
    return hashlib.sha256(b"".join(digests)).digest()


def decode_files(files: Sequence[str], size: int | None, *, most_values: int | None = None) -> Tensor:
    """Decode ``files`` to uint8 (n, channels, height, width), with one channel if all are grey and three otherwise.

    Transparency is dropped, and of several frames the first is taken.

    Args:
        files: at least one.
        size: resize all to ``size`` x ``size`` (bilinear); None: all must have the same size.
        most_values: how many numbers they may be in all; None: as many as the memory holds.

    Raises:
        DataError: a file is no image or enormous, the sizes differ, or they are too many.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return _decode_all(files, size, most_values)


def _decode_all(files: Sequence[str], size: int | None, most_values: int | None) -> Tensor:
    first = _decode(files[0], size)[0]
    values = len(files) * first.size
    if most_values is not None and values > most_values:
        raise DataError(f"{len(files)} images of {first.shape[1]}x{first.shape[0]} are more than a set may hold")
    pixels = np.empty((len(files), 3, *first.shape[:2]), dtype=np.uint8)

    def fill(start: int, chunk: Sequence[str]) -> bool:
        grey = True
        for index, file in enumerate(chunk, start):
            image, image_is_grey = _decode(file, size)
            if image.shape != first.shape:
                raise DataError(_sizes_differ(files[0], first, file, image))
            pixels[index] = image.transpose(2, 0, 1)
            grey &= image_is_grey
        return grey

    all_grey = all(_in_chunks(files, fill))
    return torch.from_numpy(pixels[:, :1].copy() if all_grey else pixels)


def _in_chunks(files: Sequence[str], function: Callable[[int, Sequence[str]], R]) -> list[R]:
    """Apply ``function`` to (index of the first, files) of each chunk, on threads; results in order."""
    starts = range(0, len(files), _CHUNK)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        return list(pool.map(function, starts, (files[start : start + _CHUNK] for start in starts)))
    finally:
        pool.shutdown(cancel_futures=True)


def _hash_file(file: str) -> bytes:
    try:
        with open(file, "rb", buffering=0) as stream:
            return hashlib.sha256(stream.read()).digest()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error


def _decode(file: str, size: int | None) -> tuple[NDArray[np.uint8], bool]:
    """Pixels (height, width, 3) of an image file, and whether it is grey."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            mode = image.mode
            if mode.startswith(("I", "F")):
                raise DataError(f"{file} has more than 8 bits a channel: convert it to 8 bits")
            colour = image.convert("RGB")
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{file} is not an image that can be read: replace or delete it") from error
    except Exception as error:  # Pillow meets damage in many ways
        raise DataError(f"{file} cannot be decoded, replace or delete it ({error})") from error
    if size is not None and colour.size != (size, size):
        colour = colour.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(colour), mode in _GREY_MODES


def _sizes_differ(one: str, first: NDArray[np.uint8], other: str, second: NDArray[np.uint8]) -> str:
    (h1, w1), (h2, w2) = first.shape[:2], second.shape[:2]
    return f"{other} is {w2}x{h2} but {one} is {w1}x{h1}: give size=N, to which all images are resized"


def _raise(error: OSError) -> None:
    raise error
