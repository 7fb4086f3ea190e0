"""The file of a record: read with every check, and written so that it can be read again."""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.store.cells import SHORT
from harness.store.files.folders import CELLS, RECORD, entries_of, key_of_attempt
from harness.store.files.reading import (
    CHECKSUM,
    MOST_BYTES,
    DamagedFile,
    digest_of,
    read_object,
    with_checksum,
    without_checksum,
)
from harness.store.records import SCHEMA, Record, parse_record

_FILE_NAME = re.compile(r"[^/\0]+")


class RecordError(StoreError):
    """A record, or a file that it names, that cannot be used; all other cells can.

    Attributes:
        key: of the cell.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class NewerRecordError(RecordError):
    """A record of a newer schema, which is not damaged."""


def remedy(key: str) -> str:
    """Return what to do about a damaged attempt at a cell."""
    return f"`ddbench results discard {key[:SHORT]}` sets it aside, and then a run makes it again"


def read_record(folder: Path) -> Record:
    """Return the record in the folder of an attempt.

    Raises:
        RecordError: it cannot be read, was altered, is of a newer schema, or holds what no record can.
    """
    return _read(folder)[1]


def read_raw_record(folder: Path) -> dict[str, Any]:
    """Return the record in the folder of an attempt as it lies on disk, checked like any other.

    Raises:
        RecordError: as `read_record`.
    """
    return _read(folder)[0]


def _read(folder: Path) -> tuple[dict[str, Any], Record]:
    """Return a record as JSON, and as its model."""
    key, path = key_of_attempt(folder), folder / RECORD
    try:
        content = read_object(path)
    except FileNotFoundError:
        # It was listed a moment ago: a person or `results clean` has removed it since.
        raise RecordError(key, f"{path} cannot be read (there is none): {remedy(key)}") from None
    except DamagedFile as damage:
        raise RecordError(key, f"{damage}: {remedy(key)}") from None
    # Before the checksum and the fields: a newer version may compute the one and name the others differently.
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        newer = f"{path} has schema {schema}, and this ddbench knows up to {SCHEMA}: use a newer one"
        raise NewerRecordError(key, f"{newer}; if none has written here, {remedy(key)}")
    try:
        return content, _parse(content, schema, key)
    except ValueError as error:
        raise RecordError(key, f"{path} {error}: {remedy(key)}") from None


def has_record(folder: Path) -> bool:
    """Return whether something lies in the place of an attempt's record."""
    # A broken link counts too: an attempt whose record is damaged must not look like one that was never finished.
    return os.path.lexists(folder / RECORD)


def newest(folders: Sequence[Path]) -> Path:
    """Return the newest attempt at a cell that has a record; the newest of all if none has."""
    return next((folder for folder in reversed(folders) if has_record(folder)), folders[-1])


def damaged_files(folder: Path, record: Record, what_to_do: str, left_out: Collection[str] = ()) -> Iterator[str]:
    """Hash the files of an attempt, and yield a line for each that differs from the record, with the remedy.

    Args:
        folder: the folder of the attempt.
        record: its record.
        what_to_do: the remedy.
        left_out: paths in the store of files that are missing on purpose.

    Raises:
        OSError: the folder cannot be read.
    """
    for name, digest in record.files.items():
        try:
            if digest_of(folder / name) != digest:
                yield f"{folder / name} was altered: {what_to_do}"
        except FileNotFoundError:
            if f"{CELLS}/{folder.parent.name}/{folder.name}/{name}" not in left_out:
                yield f"{folder / name} is missing: {what_to_do}"
        except DamagedFile as damage:
            yield f"{damage}: {what_to_do}"
    for entry in entries_of(folder):
        if entry.name not in record.files and entry.name != RECORD:
            yield f"{entry.path} is in no record: move it away"


def sealed_record(record: Record, digests: Mapping[str, str]) -> tuple[Record, str]:
    """Return a record as it is written, with the digests of its files and a checksum, and the text of its file.

    Raises:
        ValueError: the text could not be read again: it is too long, or holds NaN or infinity.
    """
    content = {name: part for name, part in record.as_json().items() if name != CHECKSUM}
    whole = with_checksum({**content, "schema": SCHEMA, "files": dict(digests)})
    # Sorted and indented, so that a person can read it and two records can be compared line by line.
    text = json.dumps(whole, indent=1, sort_keys=True, allow_nan=False)
    if len(text) > MOST_BYTES:
        raise ValueError(f"its record takes {len(text):,} bytes, and one may take {MOST_BYTES:,}")
    return parse_record(whole), text  # parsed again, so that nothing is written that no reader accepts


def _parse(content: Mapping[str, Any], schema: object, key: str) -> Record:
    """Return the record that JSON holds.

    Raises:
        ValueError: with the reason, as it follows on the name of the file.
    """
    # The checksum first: of a flipped bit in a number it alone knows, and it names the cause of all that follows.
    try:
        without_checksum(content)
    except ValueError:
        raise ValueError("was altered (checksum)") from None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ValueError(f"cannot be used (its schema is {schema!r:.40})")
    # A folder that was copied or renamed by hand would give one cell the numbers of another.
    if content.get("key") != key:
        raise ValueError(f"is of another cell ({str(content.get('key'))[:80]!r})")
    check_files(content.get("files"))
    try:
        return parse_record(content)
    except ValueError as error:
        raise ValueError(f"cannot be used ({error})") from None


def check_files(files: object) -> None:
    """Check the names and digests of the files in a record.

    Raises:
        ValueError: with the reason.
    """
    # A record is read from a folder that may come from anywhere: a name with a slash would lead out of the attempt.
    if not isinstance(files, dict):
        raise ValueError("names no files")
    for name, digest in files.items():
        if not _FILE_NAME.fullmatch(name) or name in (".", ".."):
            raise ValueError(f"names {name[:80]!r}, which is not a file beside it")
        if not isinstance(digest, str):
            raise ValueError(f"names {name[:80]!r} without a digest")
