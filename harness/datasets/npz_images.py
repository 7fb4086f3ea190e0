"""Images and labels in an .npz file; images are read a part at a time, so that they need not fit in memory."""

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from harness.datasets.mapped import Pixels, is_large
from harness.errors import DataError
from harness.system.memory import require_memory
from harness.types.problem import Shape

MOST_PER_BYTE, SMALL = 100, 2**26
"""Values that an array may unpack to, per byte or in all: more is an attack on the memory."""
_AT_ONCE = 2**24
"""Bytes that are read at once, or an image if that is more."""
Array = NDArray[Any]


@dataclass(frozen=True)
class _Header:
    """What the beginning of an array says of it."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @classmethod
    def read(cls, stream: IO[bytes]) -> "_Header":
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        header = cls(*read(stream))
        if header.dtype.hasobject or any(length < 0 for length in header.shape):
            raise ValueError(f"an array of {header.dtype} {header.shape}")
        return header

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_in_parts(self) -> bool:
        """Whether image follows image, so that some can be read without the others."""
        return len(self.shape) > 2 and not self.fortran


@dataclass(frozen=True)
class NpzImages:
    """An .npz file of images and labels, of which nothing is unpickled.

    Attributes:
        path: the file.
        wanted: what it should be, for messages.
    """

    path: Path
    wanted: str

    def check(self, keys: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        """Check what the headers of the arrays promise, before memory is allocated for any.

        Raises:
            DataError: the file is no archive, or an array is missing, damaged or enormous.
        """
        # np.load would unpickle a file that is not an archive, or fail with a message about pickles.
        if not zipfile.is_zipfile(self.path):
            raise DataError(f"{self.path} is not a readable .npz file: path= must name {self.wanted}")
        with self._reading(), zipfile.ZipFile(self.path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            for key in keys:
                if key not in members:
                    raise DataError(f"{self.path} has no {key!r}: it must hold {', '.join(keys)}")
            read = (*keys, *(key for key in optional if key in members))
            promised = sum(self._promised(archive, members[key], key) for key in read)
        require_memory(promised, f"the arrays in {self.path}", "give fewer or smaller images")

    def array(self, key: str) -> Array | None:
        """Return a whole array; None if the file has none of this name."""
        with self._reading(), np.load(self.path, allow_pickle=False) as file:
            return file[key] if key in file.files else None

    def labels(self, key: str) -> Array:
        """Return labels (n,), integers.

        Raises:
            DataError: they are something else, or there are none.
        """
        labels = self.array(key)
        if labels is None or labels.ndim != 1 or not labels.size or labels.dtype.kind not in "iu":
            what = "nothing" if labels is None else f"{labels.dtype} of shape {labels.shape}"
            raise DataError(f"{key} must be integers of shape (n,), not {what}")
        return labels

    def shape(self, key: str) -> tuple[int, Shape]:
        """Return the number of images in an array, and the shape (channels, height, width) of each.

        Raises:
            DataError: the array does not hold images, or neither levels nor floats.
        """
        with self._reading(), self._opened(key) as stream:
            header = _Header.read(stream)
        shape = header.shape
        if len(shape) == 3:
            return self._of(header, key, (1, *shape[1:]))
        # Channels last is checked first: an image 3 pixels high is rare, and it is what most libraries store.
        if len(shape) == 4 and shape[3] in (1, 3):
            return self._of(header, key, (shape[3], *shape[1:3]))
        if len(shape) == 4 and shape[1] in (1, 3):
            return self._of(header, key, shape[1:])
        raise DataError(f"{key} must be (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3, not {shape}")

    def fill(self, key: str, pixels: Pixels) -> None:
        """Write the images of an array into ``pixels`` (n, channels, height, width), which may be mapped from a file.

        Raises:
            DataError: the file is damaged, or floats are not in [0, 1].
        """
        start = 0
        for part in self._parts(key):
            images = part[:, None] if part.ndim == 3 else part
            images = images.transpose(0, 3, 1, 2) if part.ndim == 4 and part.shape[3] in (1, 3) else images
            pixels[start : start + len(part)] = self._levels(images, key) if images.dtype.kind == "f" else images
            start += len(part)

    def digest(self) -> str:
        """Return the SHA-256 digest of the file."""
        with self._reading(), self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _of(self, header: _Header, key: str, shape: tuple[int, ...]) -> tuple[int, Shape]:
        if header.dtype != np.uint8 and header.dtype.kind != "f":
            raise DataError(f"{key} must be uint8 or floats in [0, 1], not {header.dtype}")
        channels, height, width = shape
        return header.shape[0], (channels, height, width)

    def _promised(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> int:
        """Return the memory in bytes that an array takes, as it is read and as levels or labels of our own."""
        with archive.open(member) as stream:
            header = _Header.read(stream)
        size, values = header.size, prod(header.shape)
        if size > member.file_size:
            raise DataError(f"{self.path} promises more in {key} than it holds: it is damaged, write it again")
        if values > max(SMALL, MOST_PER_BYTE * member.compress_size):
            promise = f"{values:,} numbers in {member.compress_size:,} bytes"
            raise DataError(f"{self.path} promises {promise} of {key}, which are not images: write it by np.savez, "
                            "which does not compress")  # fmt: skip
        # Images are read in parts, and those that are large are written to a file.
        return (min(size, _AT_ONCE) if header.is_in_parts else size) + (0 if is_large(values) else values)

    def _parts(self, key: str) -> Iterator[Array]:
        """Yield the images of an array in parts, as they are stored."""
        with self._reading(), self._opened(key) as stream:
            header = _Header.read(stream)
            if not header.is_in_parts:
                whole = self.array(key)
                assert whole is not None
                yield whole
                return
            of_image = prod(header.shape[1:]) * header.dtype.itemsize
            at_once = max(1, _AT_ONCE // max(of_image, 1))
            for start in range(0, header.shape[0], at_once):
                count = min(at_once, header.shape[0] - start)
                content = stream.read(count * of_image)
                yield np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])

    def _levels(self, images: Array, key: str) -> Array:
        """Round floats in [0, 1] to the 256 levels."""
        if not np.isfinite(images).all():
            raise DataError(f"{key} has NaN or infinite values")
        if images.size and (images.min() < 0 or images.max() > 1):
            limits = [(part.min(), part.max()) for part in self._parts(key)]
            low, high = min(low for low, _ in limits), max(high for _, high in limits)
            raise DataError(f"{key} has floats in [{low:g}, {high:g}]: scale them to [0, 1], or store uint8")
        levels: Array = np.rint(images * 255).astype(np.uint8)
        return levels

    @contextmanager
    def _opened(self, key: str) -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{key}.npy") as stream:
            yield stream

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (DataError, MemoryError):
            raise
        except Exception as error:  # a damaged archive, an array of objects
            raise DataError(f"{self.path} cannot be read as plain arrays ({str(error)[:200]})") from error


def below(labels: Array, classes: int, key: str) -> Array:
    """Return labels as int64 if all are from 0 to below ``classes``.

    Raises:
        DataError: a label is out of range.
    """
    beyond = labels[(labels < 0) | (labels >= classes)]
    if len(beyond):
        raise DataError(f"{key} has the label {beyond[0]}, but there are {classes} classes: 0 ... {classes - 1}")
    return labels.astype(np.int64)
