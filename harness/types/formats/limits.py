"""What is checked before a file is read: that it is a plain file, and that it can keep what it promises."""

import os
import stat
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO

from harness.errors import DataError

MOST_VALUES = 2**31
"""Numbers that a distilled set may have: 8 GiB as float32."""
MOST_BYTES = 8 * MOST_VALUES
"""Of a file that is read at all."""
MOST_LISTED = 2**22
"""Bytes in which a zip archive lists its members: some forty thousand of them."""
_ZIP_COMMENT, _ZIP_END, _ZIP64 = 2**16, 22, 76
"""Bytes at the end of a zip archive: of a comment at most, of its last record, of the two before it if it is large."""
MOST_TEXT = 2**22
"""Bytes of JSON beside a set's tensors: read, they take up to thirty times as much memory."""
MOST_PER_BYTE, SMALL = 100, 2**26
"""A file may unpack to so many numbers a byte, or to so many in all: more is no image but a way to fill the memory."""


def plain_file(path: Path) -> int:
    """The size in bytes of a plain file.

    Raises:
        DataError: there is none, it is a folder, a pipe or a device, or larger than any set.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r}: there is no such file ({reason_of(error)})") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: there is no such file, but something else (a folder, a pipe or a device)")
    if status.st_size > MOST_BYTES:
        raise DataError(f"{path.name} is {status.st_size:,} bytes, and a distilled set takes at most {MOST_BYTES:,}")
    return status.st_size


def beside(path: Path, name: str) -> Path | None:
    """The file ``name`` in the folder of ``path``, if there is one.

    Raises:
        DataError: it is a link out of the folder, or no plain file.
    """
    other = path.parent / name
    if not os.path.lexists(other):
        return None
    if other.resolve().parent != path.parent.resolve():
        raise DataError(f"{other} is a link to another folder: put the file itself there")
    plain_file(other)
    return other


def within(path: Path, name: str) -> Path:
    """The file itself, or the file ``name`` in a folder.

    Raises:
        DataError: the folder has none, or it is a link out of it.
    """
    if not path.is_dir():
        return path
    file = beside(path / name, name)
    if file is None:
        raise DataError(f"{path} has no {name}: there is no such file")
    return file


def check_promise(shapes: Sequence[Sequence[int]], stored: int, where: str) -> None:
    """Check the shapes that a header promises before memory is taken for them.

    Args:
        shapes: of all arrays that will be read.
        stored: bytes on disk.
        where: what the file is called.

    Raises:
        DataError: a size is negative, or there are more numbers than a set may have or the file can hold.
    """
    if any(size < 0 for shape in shapes for size in shape):
        raise DataError(f"{where} promises an array of a negative size: it is damaged")
    values = sum(prod(shape) for shape in shapes)
    if values > MOST_VALUES:
        raise DataError(f"{where} promises {values:,} numbers, and a distilled set may have {MOST_VALUES:,}")
    if values > max(SMALL, MOST_PER_BYTE * stored):
        raise DataError(f"{where} promises {values:,} numbers in {stored:,} bytes: that is no distilled set")


def check_directory(file: IO[bytes], name: str) -> None:
    """Check how long the list of a zip archive's members is, which `zipfile` reads as a whole; the file is rewound.

    Raises:
        DataError: it is longer than that of any distilled set.
    """
    file.seek(0, os.SEEK_END)
    end = file.tell()
    file.seek(max(0, end - _ZIP_COMMENT - _ZIP_END))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    if (
        at >= _ZIP64 and tail[at - 20 : at - 16] == b"PK\x06\x07"
    ):  # the record of a large archive lies before its locator
        listed = max(listed % (2**32 - 1), int.from_bytes(tail[at - 36 : at - 28], "little"))
    file.seek(0)
    if listed > MOST_LISTED:
        raise DataError(f"{name} is an archive that lists its members in {listed:,} bytes: that is no distilled set")


def reason_of(error: BaseException) -> str:
    """What an error says, on one line and not too long."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (message.splitlines() or [type(error).__name__])[0][:120]
