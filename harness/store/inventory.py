"""Inventory of a store: its cells with their sizes, and the files that nothing needs any more.

It does not import torch, and reads the size of each file once.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import StoreError, UsageError
from harness.store.cells import key_of
from harness.store.failures import UNREADABLE, Failure
from harness.store.files.folders import CELLS, DATA, DISCARDED, FAILURES, LEASES, LOCKS, MARKER, PARTIAL, RUNS
from harness.store.record_files import damaged_files, has_record, newest
from harness.store.records import SetIdentity, StoredSet
from harness.store.store import RecordError, Store
from harness.store.unfinished import CheckpointFile, checkpoint_files_in
from harness.types.names import Name, parse_name

NO_RECORD = "an attempt without a record"
PARTS = (PARTIAL, FAILURES, DISCARDED, RUNS, LEASES, LOCKS, DATA)


@dataclass(frozen=True)
class InventoryCell:
    """A cell in the store, by its newest attempt.

    Attributes:
        result: the result in its record; empty if that cannot be read.
        size: bytes of the newest attempt's files.
        attempts: number of attempts, superseded ones included; 0 if the cell failed.
    """

    key: str
    kind: str
    status: str
    label: str
    size: int
    attempts: int
    finished: str
    result: Mapping[str, Any]

    def has(self, filters: Mapping[str, Sequence[str]]) -> bool:
        """Return whether the cell has one of the values for each name; a component may have further options."""
        own: dict[str, Any] = {**self.result, "kind": self.kind, "status": self.status}
        return all(
            any(_matches(str(own.get(name) or ""), value) for value in values) for name, values in filters.items()
        )


@dataclass(frozen=True)
class Cost:
    """The disk space that one kind of file takes."""

    kind: str
    count: int
    size: int


@dataclass(frozen=True)
class Waste:
    """A file or folder that nothing needs, with the reason."""

    path: Path
    reason: str
    size: int


def inventory_cells(store: Store) -> Iterator[InventoryCell]:
    """Yield the cells of a store by key.

    A record that cannot be read is a row of status ``unreadable``, with the reason as its label; a cell that failed,
    and was not made since, has no attempt.
    """
    attempts = store.attempts()
    failed = {failure.key: failure for failure in store.failures.all() if failure.key not in attempts}
    for key in sorted({*attempts, *failed}):
        yield _failed_row(store, failed[key]) if key in failed else _row(store, key, attempts[key])


def costs(store: Store, rows: Iterable[InventoryCell]) -> list[Cost]:
    """Return the disk space by kind: cells, superseded attempts, unfinished cells, failures, leases and so on."""
    by_kind: dict[str, tuple[int, int]] = {}
    for row in (row for row in rows if row.attempts):
        count, size = by_kind.get(row.kind, (0, 0))
        by_kind[row.kind] = (count + 1, size + row.size)
    spent = [Cost(kind, count, size) for kind, (count, size) in sorted(by_kind.items())]
    several = (folders for folders in store.attempts().values() if len(folders) > 1)
    older = [folder for folders in several for folder in folders if folder != newest(folders)]
    if older:
        spent.append(Cost("superseded", len(older), sum(map(size_of, older))))
    for part in PARTS:
        entries = _entries(store.path / part)
        if entries:
            spent.append(Cost(part, len(entries), sum(map(size_of, entries))))
    scratch = list(_scratch(store))
    return [*spent, *([Cost("leftovers", len(scratch), sum(map(size_of, scratch)))] if scratch else [])]


def waste(store: Store, superseded: bool = False) -> Iterator[Waste]:
    """Yield what can be removed: never a cell's newest attempt, unless it has no record at all.

    Args:
        store: no run may work on it.
        superseded: whether older attempts count too, if the newest one is sound.
    """
    for path in _scratch(store):
        yield _waste(path, "left by a run that was killed")
    for path in store.leases.leftovers():
        yield _waste(path, "left by a run that was killed")
    if (store.path / LOCKS).is_dir():
        yield _waste(store.path / LOCKS, "of an older ddbench")
    attempts = store.attempts()
    done = {key for key, folders in attempts.items() if has_record(newest(folders))}
    for folders in attempts.values():
        for folder in folders:
            if not has_record(folder):
                yield _waste(folder, NO_RECORD)
        older = [folder for folder in folders if has_record(folder)][:-1] if superseded else []
        # The files are hashed first: an older attempt is the only way back from a newer one that is damaged.
        if older and _is_sound(store, newest(folders)):
            yield from (_waste(folder, "superseded by a newer attempt") for folder in older)
    for path in _entries(store.path / PARTIAL):
        if path.name in done:
            yield _waste(path, "parts of a cell that is finished")
    for path in _passed_checkpoints(store, attempts):
        yield _waste(path, "checkpoints on the way to a set that is finished")
    for path in _entries(store.path / FAILURES):
        if path.name.partition(".")[0] in done:
            yield _waste(path, "of a failure that was redone")


def remove(leftovers: Iterable[Waste]) -> None:
    """Delete what `waste` yields.

    Raises:
        StoreError: something cannot be deleted.
    """
    for leftover in leftovers:
        path = leftover.path
        try:
            # Of a link only the link goes: it may lead out of the store.
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except (OSError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or "it is nested too deep"
            raise StoreError(f"{path} cannot be removed: {reason}; remove it by hand") from None


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; links are not followed."""
    # With a list and not by recursion: folders may be nested deeper than Python can call.
    size, places = 0, [path]
    while places:
        place = places.pop()
        with contextlib.suppress(OSError):
            if place.is_symlink() or not place.is_dir():
                size += place.lstat().st_size
            else:
                places += [Path(entry.path) for entry in os.scandir(place)]
    return size


def _row(store: Store, key: str, folders: Sequence[Path]) -> InventoryCell:
    folder = newest(folders)
    size = size_of(folder)
    try:
        record = store.read(folder)
        result, attempts = record.as_json()["result"], len(folders)
        return InventoryCell(key, record.kind, record.outcome, record.label, size, attempts, record.finished, result)
    except RecordError as error:
        return InventoryCell(key, UNREADABLE, UNREADABLE, str(error), size, len(folders), "", {})


def _failed_row(store: Store, failure: Failure) -> InventoryCell:
    size, result = size_of(store.failures.log(failure.key)), {"reason": failure.reason}
    return InventoryCell(failure.key, failure.kind, "failed", failure.label, size, 0, failure.at, result)


def _matches(value: str, pattern: str) -> bool:
    own, other = _parse_name(value), _parse_name(pattern)
    return own.name == other.name and set(other.options) <= set(own.options)


@cache
def _parse_name(text: str) -> Name:
    try:
        return parse_name(text)
    except UsageError:
        return Name(text)  # a kind or a status, or a name of another version: compared as it is written


def _is_sound(store: Store, folder: Path) -> bool:
    try:
        record = store.read(folder)
    except StoreError:
        return False
    return not list(damaged_files(folder, record, ""))


def _scratch(store: Store) -> Iterator[Path]:
    """Yield what killed runs leave: folders and files that were to be renamed into their places."""
    # A name that begins with a dot is never part of the store, so that no reader has to know which of them are current.
    for folder, prefixes in ((store.path / CELLS, (".writing-", ".probe-")), (store.path, (f".{MARKER}-",))):
        yield from (path for path in _entries(folder) if path.name.startswith(prefixes))
    for folder in _entries(store.path / PARTIAL):
        yield from (path for path in _entries(folder) if path.name.startswith("."))
    for place in (RUNS, DATA):
        yield from (path for path in _entries(store.path / place) if path.name.startswith("."))


def _passed_checkpoints(store: Store, attempts: Mapping[str, Sequence[Path]]) -> Iterator[Path]:
    """Yield the folders of checkpoints whose trajectories have finished sets further on."""
    checkpoints = {folder: marks for folder in _entries(store.path / PARTIAL) if (marks := checkpoint_files_in(folder))}
    sets: dict[str, list[SetIdentity]] = {folder.name: [] for folder in checkpoints}
    # Records are read only if there are checkpoints at all: in a store of many cells that takes minutes.
    for folders in attempts.values() if checkpoints else ():
        with contextlib.suppress(RecordError):
            record = store.read(newest(folders))
            if isinstance(record, StoredSet):
                sets.get(str(record.trajectory), []).append(record.identity)
    for folder, marks in checkpoints.items():
        if all(any(_is_behind(mark, identity) for identity in sets[folder.name]) for mark in marks):
            yield folder


def _is_behind(mark: CheckpointFile, identity: SetIdentity) -> bool:
    """Return whether a checkpoint lies on the way to the set of this identity."""
    # The names of checkpoints begin with the key of the set at their own iteration, all else being equal.
    there = key_of({**identity.as_json(), "iterations": mark.iteration})
    return mark.iteration <= identity.iterations and there.startswith(mark.cell)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}") from None


def _waste(path: Path, reason: str) -> Waste:
    return Waste(path, reason, size_of(path))
