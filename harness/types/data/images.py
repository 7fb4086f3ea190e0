"""Hashing and decoding of many image files, on a few threads."""

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from harness.errors import DataError
from harness.system.memory import require_memory

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes by which a file counts as an image, as in torchvision."""
LARGEST_FILE = 2**30
"""Largest image file in bytes: even an uncompressed one of as many pixels as are decoded takes less."""

_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""Formats that are decoded, whatever the suffix: some of Pillow's other formats start external programs."""
_GREY_MODES = ("1", "L", "LA", "La")
_THREADS = 4  # reading small files waits for the disk; decoding large ones runs outside the interpreter's lock
_CHUNK = 256
_DECODING = 7
"""Peak memory in bytes per pixel while a file is decoded: up to 4 channels as stored, and 3 as colour."""
_BITS_PER_SAMPLE = 258  # TIFF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn that brings a picture upright, by EXIF orientation (as `PIL.ImageOps.exif_transpose`)."""

R = TypeVar("R")


def is_image(name: str) -> bool:
    """Return whether a file name has an image suffix and is not hidden."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def file_digests(files: Sequence[str]) -> list[bytes]:
    """Return the SHA-256 digest of the content of each file, in order.

    Raises:
        DataError: a file cannot be read, or is larger than any image.
    """
    parts = _in_chunks(files, lambda _, chunk: [_digest(file) for file in chunk])
    return [digest for part in parts for digest in part]


@dataclass(frozen=True)
class Headers:
    """The sizes that the headers of image files promise; no pixel has been decoded.

    Attributes:
        count: how many files there are.
        channels: 1 if all are grey, else 3.
        height, width: of the first, or of all as they will be resized.
        largest: pixels of the largest file.
    """

    count: int
    channels: int
    height: int
    width: int
    largest: int

    @property
    def values(self) -> int:
        """Return the number of values in all images together."""
        return self.count * self.channels * self.height * self.width

    def check_memory(self, bytes_per_value: int, remedy: str) -> None:
        """Refuse to decode images that would need more memory than this process may use.

        Args:
            bytes_per_value: memory in bytes for each decoded value, all copies counted.
            remedy: what the user can do, for the error message.

        Raises:
            DataError: there is not enough.
        """
        needed = self.values * bytes_per_value + self.largest * _DECODING * min(_THREADS, self.count)
        what = f"{self.count:,} images of {self.channels}x{self.height}x{self.width}"
        require_memory(needed, f"decoding {what}", remedy)


@dataclass(frozen=True)
class Fitting:
    """How images of files are brought to one size.

    Attributes:
        size: pixels a side of all images; None: all must have the same size already.
        crop: resize the shorter side to ``size`` and take the middle, as ImageNet is read; otherwise both sides are
            resized to ``size``.
        turn: turn images as their EXIF data say; field code that reads with torchvision does not.
        remedy: what to do if sizes differ, for the message.
    """

    size: int | None = None
    crop: bool = False
    turn: bool = True
    remedy: str = "give size=N, to which all images are resized"


def read_headers(files: Sequence[str], fitting: Fitting) -> Headers:
    """Read the headers of ``files``, of which there is at least one.

    Args:
        files: their paths.
        fitting: the size that they will have.

    Raises:
        DataError: a file is not an image, is enormous, has more than 8 bits a channel or another size than the first.
    """
    with _pillow_warnings():
        # The size of the first file is what all others are compared with, so it is read before the threads start.
        first, size = _header(files[0], fitting.turn), fitting.size

        def read(_: int, chunk: Sequence[str]) -> tuple[bool, int]:
            headers = [_header(file, fitting.turn) for file in chunk]
            for file, header in zip(chunk, headers, strict=True):
                if size is None and header.size != first.size:
                    raise DataError(sizes_differ(files[0], first.size, file, header.size, fitting))
            return all(header.grey for header in headers), max(header.size[0] * header.size[1] for header in headers)

        parts = _in_chunks(files, read)
    width, height = first.size if size is None else (size, size)
    channels = 1 if all(grey for grey, _ in parts) else 3
    return Headers(len(files), channels, height, width, max(largest for _, largest in parts))


def decode_files(files: Sequence[str], fitting: Fitting, headers: Headers | None = None) -> Tensor:
    """Decode ``files``, at least one, to uint8 (n, channels, height, width); one channel if all are grey, else three.

    Args:
        files: their paths.
        fitting: how they come to one size.
        headers: the result of `read_headers` for these files, if they were read already.

    Raises:
        DataError: a file is damaged or not a usable image.
    """
    headers = headers or read_headers(files, fitting)
    pixels = np.empty((headers.count, headers.channels, headers.height, headers.width), dtype=np.uint8)
    decode_into(pixels, files, fitting)
    return torch.from_numpy(pixels)


def decode_into(
    pixels: NDArray[np.uint8], files: Sequence[str], fitting: Fitting, digests: Sequence[bytes] | None = None
) -> None:
    """Decode ``files`` into ``pixels`` (n, channels, height, width), which may be mapped from a file.

    Transparency is dropped, and of several frames the first is taken.

    Args:
        pixels: one channel if all files are grey, otherwise three.
        files: at least one.
        fitting: how they come to the size of ``pixels``.
        digests: the result of `file_digests` for these files, if their content must still be the same.

    Raises:
        DataError: a file is damaged or not a usable image, or has changed since it was first read.
    """
    channels, side = pixels.shape[1], (pixels.shape[3], pixels.shape[2])

    def fill(start: int, chunk: Sequence[str]) -> None:
        for index, file in enumerate(chunk, start):
            with _opened(file, digests[index] if digests else None) as opened:
                image, grey = _decode(opened, fitting)
            height, width = image.shape[:2]
            if (width, height) != side:
                raise DataError(sizes_differ(files[0], side, file, (width, height), fitting))
            # Headers were read earlier: a file that was replaced since would silently lose its colours.
            if channels == 1 and not grey:
                raise DataError(_changed(file))
            pixels[index] = image.transpose(2, 0, 1)[:channels]

    with _pillow_warnings():
        _in_chunks(files, fill)


def header_of_bytes(content: bytes, shown: str, fitting: Fitting) -> tuple[tuple[int, int], bool]:
    """Return width and height of an encoded image as it will be decoded, and whether it is grey; see `decode_bytes`."""
    with _pillow_warnings(), _decoding(io.BytesIO(content), shown) as image:
        header = _header_of(image, fitting.turn)
    return header.size if fitting.size is None else (fitting.size, fitting.size), header.grey


def decode_bytes(content: bytes, shown: str, fitting: Fitting) -> tuple[NDArray[np.uint8], bool]:
    """Return the pixels (height, width, 3) of an encoded image, and whether it is grey.

    Args:
        content: the content of an image file.
        shown: what it is called in messages.
        fitting: how it is brought to a size.

    Raises:
        DataError: it is damaged or not a usable image.
    """
    with _pillow_warnings(), _decoding(io.BytesIO(content), shown) as image:
        return _decode(image, fitting)


@contextmanager
def _pillow_warnings() -> Iterator[None]:
    """Turn Pillow's warnings about enormous images into errors and ignore its others (metadata, transparency)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _in_chunks(files: Sequence[str], function: Callable[[int, Sequence[str]], R]) -> list[R]:
    """Apply ``function`` to (index of the first file, files) of each chunk on threads; return the results in order."""
    starts = range(0, len(files), _CHUNK)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        return list(pool.map(function, starts, (files[start : start + _CHUNK] for start in starts)))
    finally:
        # After an error in one chunk the remaining chunks are of no use: without this, thousands of files are still
        # read.
        pool.shutdown(cancel_futures=True)


def _open_plain(file: str) -> io.BufferedReader:
    """Open a plain file for reading, without blocking if a pipe has taken its place.

    Raises:
        DataError: it is not a plain file, is larger than any image, or cannot be opened.
    """
    try:
        stream = os.fdopen(os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    status = os.fstat(stream.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST_FILE:
        return stream
    stream.close()
    fault = f"{status.st_size:,} bytes, too many for an image" if stat.S_ISREG(status.st_mode) else "no plain file"
    raise DataError(f"{file} is {fault}: delete it or give it another name")


def _digest(file: str) -> bytes:
    with _open_plain(file) as stream:
        try:
            return hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class _Header:
    """The width and height of an image as it will be decoded, and whether it is grey."""

    size: tuple[int, int]
    grey: bool


def _header(file: str, turn: bool) -> _Header:
    with _opened(file, None) as image:
        return _header_of(image, turn)


def _header_of(image: Image.Image, turn: bool) -> _Header:
    # Pillow turns TIFF itself.
    turned = turn and image.format != "TIFF" and _orientation(image, loaded=False) >= 5
    return _Header(image.size[::-1] if turned else image.size, image.mode in _GREY_MODES)


def _decode(image: Image.Image, fitting: Fitting) -> tuple[NDArray[np.uint8], bool]:
    """Return the pixels (height, width, 3) of an opened image, and whether it is grey."""
    grey = image.mode in _GREY_MODES
    colour = image.convert("RGB")
    turn = _TURNS.get(_orientation(image, loaded=True)) if fitting.turn else None
    if turn is not None:
        colour = colour.transpose(turn)
    return np.asarray(_fitted(colour, fitting)), grey


def _fitted(image: Image.Image, fitting: Fitting) -> Image.Image:
    size = fitting.size
    if size is None or image.size == (size, size):
        return image
    if not fitting.crop:
        return image.resize((size, size), Image.Resampling.BILINEAR)
    # As torchvision's Resize and CenterCrop round: the longer side down, the offset to the nearest even number.
    shorter = min(image.size)
    width, height = (size if side == shorter else int(size * side / shorter) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


@contextmanager
def _opened(file: str, digest: bytes | None) -> Iterator[Image.Image]:
    """Open an image file and read its header; every failure becomes a `DataError` that names the file."""
    with _open_plain(file) as stream:
        content: IO[bytes] = stream
        if digest is not None:
            # Hash and decode the same bytes: the file could be replaced between two reads, and the cache key would lie.
            try:
                # Not read(LARGEST_FILE), which takes that much memory before it reads.
                content = io.BytesIO(stream.read(os.fstat(stream.fileno()).st_size))
            except OSError as error:
                raise DataError(f"{file} cannot be read: {error.strerror}") from error
            if hashlib.sha256(content.getbuffer()).digest() != digest:
                raise DataError(_changed(file))
        with _decoding(content, file) as image:
            yield image


@contextmanager
def _decoding(content: IO[bytes], shown: str) -> Iterator[Image.Image]:
    """Open an encoded image and read its header; every failure becomes a `DataError` that names it."""
    try:
        with Image.open(content, formats=_FORMATS) as image:
            if _is_deep(image):
                raise DataError(f"{shown} has more than 8 bits a channel: convert it to 8 bits")
            yield image
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{shown} is not an image that can be read: replace or delete it") from error
    except Exception as error:  # Pillow meets damage in many ways
        raise DataError(f"{shown} cannot be decoded, replace or delete it ({error})") from error


def _is_deep(image: Image.Image) -> bool:
    """Return whether a channel has more than 8 bits, which Pillow would silently cut off or rescale."""
    if image.mode.startswith(("I", "F")):
        return True
    if image.format == "TIFF":
        return any(int(bits) > 8 for bits in _listed(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 1)))
    arguments = [part for tile in getattr(image, "tile", ()) for part in _listed(tile[3])]
    if image.format == "PPM":
        return any(isinstance(part, int) and part > 255 for part in arguments)
    return image.format == "PNG" and any(isinstance(part, str) and part.endswith(";16B") for part in arguments)


def _listed(value: Any) -> Sequence[Any]:  # noqa: ANN401
    return value if isinstance(value, tuple) else (value,)


def _orientation(image: Image.Image, *, loaded: bool) -> int:
    """Return EXIF's orientation, 1 if there is none."""
    # PNG may store EXIF after the pixels, where Pillow finds it only by loading them; the header pass must stay cheap.
    if image.format == "PNG" and not loaded and "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata, over which every viewer passes
        return 1
    return orientation if isinstance(orientation, int) else 1


def _changed(file: str) -> str:
    return f"{file} was changed while it was read: run again when nobody writes there"


def sizes_differ(reference: str, first: tuple[int, int], other: str, second: tuple[int, int], fitting: Fitting) -> str:
    """Return the message that an image has another size (width, height) than the one it is compared with."""
    (w1, h1), (w2, h2) = first, second
    return f"{other} is {w2}x{h2} but {reference} is {w1}x{h1}: {fitting.remedy}"
