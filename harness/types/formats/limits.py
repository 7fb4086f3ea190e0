"""Checks before a file is read: it is a plain file, and it can hold what its header promises."""

import os
import stat
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO

from harness.errors import DataError

MOST_VALUES = 2**31
"""Highest number of values of a distilled set: 8 GiB as float32."""
MOST_BYTES = 8 * MOST_VALUES
"""Size in bytes of the largest file that is read."""
MOST_LISTED = 2**22
"""Largest member list of a zip archive in bytes: it holds some forty thousand members."""
_ZIP_COMMENT, _ZIP_END, _ZIP64 = 2**16, 22, 76
"""Sizes in bytes at the end of a zip archive: its longest comment, its last record, the two records of a large one."""
MOST_TEXT = 2**22
"""Largest JSON beside a set's tensors in bytes: parsed, it takes up to thirty times as much memory."""
MOST_PER_BYTE, SMALL = 100, 2**26
"""Values that a file may unpack to, per byte or in all: more is not an image but an attack on the memory."""


def plain_file(path: Path) -> int:
    """Return the size in bytes of a plain file.

    Raises:
        DataError: there is none, it is a folder, a pipe or a device, or it is larger than any set.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r}: there is no such file ({reason_of(error)})") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is not a file, but something else (a folder, a pipe or a device)")
    if status.st_size > MOST_BYTES:
        raise DataError(f"{path.name} is {status.st_size:,} bytes, and a distilled set takes at most {MOST_BYTES:,}")
    return status.st_size


def beside(path: Path, name: str) -> Path | None:
    """Return the file ``name`` in the folder of ``path``; None if there is none.

    Raises:
        DataError: it is a link out of the folder, or not a plain file.
    """
    other = path.parent / name
    if not os.path.lexists(other):
        return None
    # The name comes from a file of somebody else's: a link could make a private file part of a published set.
    if other.resolve().parent != path.parent.resolve():
        raise DataError(f"{other} is a link to another folder: put the file itself there")
    plain_file(other)
    return other


def within(path: Path, name: str) -> Path:
    """Return the path itself if it is a file, otherwise the file ``name`` in the folder.

    Raises:
        DataError: the folder has no such file, or it is a link out of the folder.
    """
    if not path.is_dir():
        return path
    file = beside(path / name, name)
    if file is None:
        raise DataError(f"{path} has no {name}: there is no such file")
    return file


def check_promise(shapes: Sequence[Sequence[int]], stored: int, where: str) -> None:
    """Check the shapes that a header promises before memory is allocated for them.

    Args:
        shapes: shapes of all arrays that will be read.
        stored: size of the file in bytes.
        where: the file's name in messages.

    Raises:
        DataError: a size is negative, or there are more values than a set may have or the file can hold.
    """
    # Two negative sizes would multiply to a harmless product.
    if any(size < 0 for shape in shapes for size in shape):
        raise DataError(f"{where} promises an array of a negative size: it is damaged")
    values = sum(prod(shape) for shape in shapes)
    if values > MOST_VALUES:
        raise DataError(f"{where} promises {values:,} numbers, and a distilled set may have {MOST_VALUES:,}")
    if values > max(SMALL, MOST_PER_BYTE * stored):
        raise DataError(f"{where} promises {values:,} numbers in {stored:,} bytes: that is not a distilled set")


def check_directory(file: IO[bytes], name: str) -> None:
    """Check the length of a zip archive's member list, which `zipfile` reads as a whole; the file is rewound.

    Raises:
        DataError: it is longer than that of any distilled set.
    """
    file.seek(0, os.SEEK_END)
    end = file.tell()
    # The last record may be followed by a comment of any length up to 64 KiB, so it has to be searched from the end.
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
        raise DataError(f"{name} is an archive that lists its members in {listed:,} bytes: that is not a distilled set")


def reason_of(error: BaseException) -> str:
    """Return an error's message as one line of at most 120 characters."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (message.splitlines() or [type(error).__name__])[0][:120]
