"""The reader of a store's files: plain files of a bounded size, and JSON that has one meaning only.

Whatever is wrong with a file ends as a `DamagedFile`, which names it and says why. Opening never waits: a pipe in the
place of a file is noticed before it is opened.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.store.cells import canonical_json
from harness.system.bounded_json import parse_object

MOST_BYTES = 2**28
"""Maximum size of a file of JSON; the record of a million iterations takes a quarter of it."""
CHECKSUM = "checksum"

NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of the operating system that mean that nothing lies at a path."""
# Without O_NONBLOCK, opening a pipe waits for a writer, for ever if there is none; O_NOFOLLOW refuses a link that was
# put in place after the check; O_NOCTTY keeps a terminal from becoming the one that sends Ctrl-C to this process.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
_OTHERS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class DamagedFile(StoreError):
    """A file of a store that cannot be read as what it should be; all others can.

    Attributes:
        reason: what is wrong with it, without its name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read ({reason})")
        self.path, self.reason = path, reason


def kind_at(path: Path) -> str | None:
    """Return the kind of what lies at a path in words; None if it is a plain file or nothing.

    Raises:
        OSError: the path cannot be looked at.
    """
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        if error.errno in NOWHERE:
            return None
        raise
    return next((word for is_kind, word in _OTHERS if is_kind(mode)), None)


@contextmanager
def open_plain(path: Path) -> Iterator[BufferedReader]:
    """Open a plain file to read its bytes.

    Raises:
        FileNotFoundError: nothing lies there.
        DamagedFile: it is not a plain file, or reading it fails.
    """
    try:
        if kind := kind_at(path):
            raise DamagedFile(path, f"it is {kind}, and not a file")
        descriptor = os.open(path, _FLAGS)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was replaced since the check above
                raise DamagedFile(path, "it is not a file")
            yield file
    except OSError as error:
        if error.errno in NOWHERE:  # of a folder above it: the check above refuses a link in its own place
            raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
        raise DamagedFile(path, error.strerror or str(error)) from None


def read_bytes(path: Path, most: int | None = MOST_BYTES) -> bytes:
    """Return the content of a plain file of at most ``most`` bytes; None allows any number.

    Raises:
        FileNotFoundError: nothing lies there.
        DamagedFile: it is something else, larger, or may not be read.
    """
    with open_plain(path) as file:
        if most is None:
            return file.read()
        # The size is asked first, so that nothing large is read, and the reading is bounded, since a file may grow.
        content = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else None
    if content is None or len(content) > most:
        raise DamagedFile(path, f"it has more than {most:,} bytes")
    return content


def read_object(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        FileNotFoundError: nothing lies there.
        DamagedFile: it cannot be read as one.
    """
    content = read_bytes(path, most)
    try:
        return parse_object(content)
    except ValueError as error:
        raise DamagedFile(path, str(error)) from None


def read_checked(path: Path, fields: Collection[str], most: int = MOST_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file, after a check of its fields and checksum.

    Raises:
        FileNotFoundError: nothing lies there.
        DamagedFile: it cannot be read as one, was altered, or lacks a field.
    """
    try:
        return parse_checked(read_bytes(path, most), fields)
    except ValueError as error:
        raise DamagedFile(path, str(error)) from None


def parse_checked(content: bytes, fields: Collection[str], needed: Collection[str] | None = None) -> dict[str, Any]:
    """Return the JSON object in bytes, after a check of its fields and checksum.

    Args:
        content: JSON in UTF-8.
        fields: all fields that any version has written without a checksum.
        needed: those of them that are required; None for all.

    Raises:
        ValueError: with the reason.
    """
    value = parse_object(content)
    if CHECKSUM in value:
        value = without_checksum(value)
    elif unknown := sorted(value.keys() - set(fields)):
        # Older versions wrote no checksum, and only these fields: here a bit of a name has flipped, perhaps that of the
        # name "checksum" itself, without which the damage would pass.
        raise ValueError(f"it has no checksum, and a field {unknown[0][:40]!r} that no version wrote without one")
    if missing := sorted(set(fields if needed is None else needed) - value.keys()):
        raise ValueError(f"it has no {missing[0]}")
    return value


def with_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with its checksum added."""
    return {**value, CHECKSUM: checksum_of(value)}


def without_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without its checksum, after a check of it.

    Raises:
        ValueError: the checksum is that of another object.
    """
    rest = {name: part for name, part in value.items() if name != CHECKSUM}
    if checksum_of(rest) != value.get(CHECKSUM):
        raise ValueError("it was altered: its checksum is that of something else")
    return rest


def checksum_of(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an object, whatever the order of its fields."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a plain file, in hexadecimal.

    Raises:
        FileNotFoundError: nothing lies there.
        DamagedFile: it is something else, or may not be read.
    """
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
