"""The file of a record: read with every check, and written so that it can be read again."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.store.cells import SHORT
from harness.store.files.folders import CELLS, RECORD, entries_of, key_of_attempt
from harness.store.files.reading import MOST_BYTES, DamagedFile, digest_of, read_object, without_checksum
from harness.store.records import SCHEMA, check_files, check_record


class RecordError(StoreError):
    """A record, or a file that it names, that cannot be used; all other cells can.

    Attributes:
        key: of the cell.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class NewerRecordError(RecordError):
    """A record of a newer schema, which is no damage."""


def remedy(key: str) -> str:
    """What to do about a damaged attempt at a cell."""
    return f"`ddbench results discard {key[:SHORT]}` sets it aside, and then a run makes it again"


def read_record(folder: Path) -> dict[str, Any]:
    """The record in the folder of an attempt.

    Raises:
        RecordError: it cannot be read, was altered, is of a newer schema, or holds what no record can.
    """
    key, path = key_of_attempt(folder), folder / RECORD
    try:
        record = read_object(path)
    except FileNotFoundError:
        raise RecordError(key, f"{path} cannot be read (there is none): {remedy(key)}") from None
    except DamagedFile as damage:
        raise RecordError(key, f"{damage}: {remedy(key)}") from None
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        newer = f"{path} has schema {schema}, and this ddbench knows up to {SCHEMA}: use a newer one"
        raise NewerRecordError(key, f"{newer}; if none has written here, {remedy(key)}")
    try:
        _check(record, schema, key)
    except ValueError as error:
        raise RecordError(key, f"{path} {error}: {remedy(key)}") from None
    return record


def has_record(folder: Path) -> bool:
    """Whether something lies in the place of an attempt's record."""
    return os.path.lexists(folder / RECORD)


def newest(folders: Sequence[Path]) -> Path:
    """Of the attempts at a cell, the newest that has a record; the newest if none has."""
    return next((folder for folder in reversed(folders) if has_record(folder)), folders[-1])


def damaged_files(
    folder: Path, record: Mapping[str, Any], what_to_do: str, left_out: Collection[str] = ()
) -> Iterator[str]:
    """Hash the files of an attempt: a line for each that is not as the record says, with the remedy.

    Args:
        folder: of the attempt.
        record: what its record holds.
        what_to_do: the remedy.
        left_out: paths in the store of files that are missing on purpose.

    Raises:
        OSError: the folder cannot be read.
    """
    for name, digest in record["files"].items():
        try:
            if digest_of(folder / name) != digest:
                yield f"{folder / name} was altered: {what_to_do}"
        except FileNotFoundError:
            if f"{CELLS}/{folder.parent.name}/{folder.name}/{name}" not in left_out:
                yield f"{folder / name} is missing: {what_to_do}"
        except DamagedFile as damage:
            yield f"{damage}: {what_to_do}"
    for entry in entries_of(folder):
        if entry.name not in record["files"] and entry.name != RECORD:
            yield f"{entry.path} is in no record: move it away"


def text_of(record: Mapping[str, Any]) -> str:
    """A record as it stands in its file.

    Raises:
        ValueError: it cannot be read again: it is too long, or holds NaN or infinity.
    """
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    if len(text) > MOST_BYTES:
        raise ValueError(f"its record takes {len(text):,} bytes, and one may take {MOST_BYTES:,}")
    return text


def _check(record: Mapping[str, Any], schema: object, key: str) -> None:
    """Raise `ValueError` with what is wrong with a record, as it follows on the name of its file."""
    try:
        content = without_checksum(record)
    except ValueError:
        raise ValueError("was altered (checksum)") from None
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise ValueError(f"cannot be used (its schema is {schema!r:.40})")
    if record.get("key") != key:
        raise ValueError(f"is of another cell ({str(record.get('key'))[:80]!r})")
    check_files(record.get("files"))
    try:
        check_record(content)
    except ValueError as error:
        raise ValueError(f"cannot be used ({error})") from None
