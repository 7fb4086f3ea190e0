"""What lies in a store: its cells with their sizes, and what nothing needs any more.

Needs no torch, and one look at each file's size.
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
from harness.store.files.folders import CELLS, DISCARDED, FAILURES, LEASES, LOCKS, MARKER, PARTIAL, RUNS
from harness.store.record_files import damaged_files, has_record, newest
from harness.store.records import SetIdentity, StoredSet
from harness.store.store import RecordError, Store
from harness.store.unfinished import Mark, marks_in
from harness.types.names import Name, parse_name

NO_RECORD = "an attempt without a record"
PARTS = (PARTIAL, FAILURES, DISCARDED, RUNS, LEASES, LOCKS)


@dataclass(frozen=True)
class Listed:
    """A cell in the store, by its newest attempt.

    Attributes:
        result: what its record tells; empty where it cannot be read.
        size: bytes of the newest attempt's files.
        attempts: how many there are, with those that are superseded; 0 where it failed.
    """

    key: str
    kind: str
    status: str
    label: str
    size: int
    attempts: int
    finished: str
    result: Mapping[str, Any]

    def has(self, wanted: Mapping[str, Sequence[str]]) -> bool:
        """Whether it has one of the values wanted for each name; a component may have more options than are wanted."""
        own: dict[str, Any] = {**self.result, "kind": self.kind, "status": self.status}
        return all(any(_is(str(own.get(name) or ""), one) for one in values) for name, values in wanted.items())


@dataclass(frozen=True)
class Cost:
    """What one kind of thing takes on disk."""

    kind: str
    count: int
    size: int


@dataclass(frozen=True)
class Waste:
    """Something that nothing needs, and why."""

    path: Path
    reason: str
    size: int


def listed(store: Store) -> Iterator[Listed]:
    """The cells of a store by key.

    A record that cannot be read is a row of status ``unreadable``, with the reason as its label; a cell that failed,
    and was not made since, has no attempt.
    """
    attempts = store.attempts()
    failed = {failure.key: failure for failure in store.failures.all() if failure.key not in attempts}
    for key in sorted({*attempts, *failed}):
        yield _failed_row(store, failed[key]) if key in failed else _row(store, key, attempts[key])


def costs(store: Store, rows: Iterable[Listed]) -> list[Cost]:
    """What each kind of thing takes: cells by kind, older attempts, what is in the making, failures, leases."""
    by_kind: dict[str, tuple[int, int]] = {}
    for row in (row for row in rows if row.attempts):
        count, size = by_kind.get(row.kind, (0, 0))
        by_kind[row.kind] = (count + 1, size + row.size)
    told = [Cost(kind, count, size) for kind, (count, size) in sorted(by_kind.items())]
    several = (folders for folders in store.attempts().values() if len(folders) > 1)
    older = [folder for folders in several for folder in folders if folder != newest(folders)]
    if older:
        told.append(Cost("superseded", len(older), sum(map(size_of, older))))
    for part in PARTS:
        entries = _entries(store.path / part)
        if entries:
            told.append(Cost(part, len(entries), sum(map(size_of, entries))))
    scratch = list(_scratch(store))
    return [*told, *([Cost("leftovers", len(scratch), sum(map(size_of, scratch)))] if scratch else [])]


def waste(store: Store, superseded: bool = False) -> Iterator[Waste]:
    """What can be removed: never a cell's newest attempt, unless it has no record at all.

    Args:
        store: no run may work on it.
        superseded: older attempts too, where the newest one is sound.
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
        if older and _is_sound(store, newest(folders)):
            yield from (_waste(folder, "superseded by a newer attempt") for folder in older)
    for path in _entries(store.path / PARTIAL):
        if path.name in done:
            yield _waste(path, "parts of a cell that is finished")
    for path in _passed(store, attempts):
        yield _waste(path, "checkpoints on the way to a set that is finished")
    for path in _entries(store.path / FAILURES):
        if path.name.partition(".")[0] in done:
            yield _waste(path, "of a failure that was redone")


def remove(found: Iterable[Waste]) -> None:
    """Delete what `waste` found.

    Raises:
        StoreError: something cannot be deleted.
    """
    for one in found:
        try:
            if one.path.is_dir() and not one.path.is_symlink():
                shutil.rmtree(one.path)
            else:
                one.path.unlink(missing_ok=True)
        except (OSError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or "it is nested too deep"
            raise StoreError(f"{one.path} cannot be removed: {reason}; remove it by hand") from None


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed."""
    size, places = 0, [path]
    while places:
        place = places.pop()
        with contextlib.suppress(OSError):
            if place.is_symlink() or not place.is_dir():
                size += place.lstat().st_size
            else:
                places += [Path(entry.path) for entry in os.scandir(place)]
    return size


def _row(store: Store, key: str, folders: Sequence[Path]) -> Listed:
    folder = newest(folders)
    size = size_of(folder)
    try:
        record = store.read(folder)
        result, attempts = record.as_json()["result"], len(folders)
        return Listed(key, record.kind, record.outcome, record.label, size, attempts, record.finished, result)
    except RecordError as error:
        return Listed(key, UNREADABLE, UNREADABLE, str(error), size, len(folders), "", {})


def _failed_row(store: Store, failure: Failure) -> Listed:
    size, told = size_of(store.failures.log(failure.key)), {"reason": failure.reason}
    return Listed(failure.key, failure.kind, "failed", failure.label, size, 0, failure.at, told)


def _is(value: str, wanted: str) -> bool:
    one, other = _parsed(value), _parsed(wanted)
    return one.name == other.name and set(other.options) <= set(one.options)


@cache
def _parsed(text: str) -> Name:
    try:
        return parse_name(text)
    except UsageError:
        return Name(text)


def _is_sound(store: Store, folder: Path) -> bool:
    try:
        record = store.read(folder)
    except StoreError:
        return False
    return not list(damaged_files(folder, record, ""))


def _scratch(store: Store) -> Iterator[Path]:
    """What a killed run leaves: folders and files that were to be renamed into their places."""
    for folder, prefixes in ((store.path / CELLS, (".writing-", ".probe-")), (store.path, (f".{MARKER}-",))):
        yield from (path for path in _entries(folder) if path.name.startswith(prefixes))
    for folder in _entries(store.path / PARTIAL):
        yield from (path for path in _entries(folder) if path.name.startswith("."))
    yield from (path for path in _entries(store.path / RUNS) if path.name.startswith("."))


def _passed(store: Store, attempts: Mapping[str, Sequence[Path]]) -> Iterator[Path]:
    """Folders of checkpoints whose trajectories have finished sets further on."""
    kept = {folder: marks for folder in _entries(store.path / PARTIAL) if (marks := marks_in(folder))}
    sets: dict[str, list[SetIdentity]] = {folder.name: [] for folder in kept}
    for folders in attempts.values() if kept else ():
        with contextlib.suppress(RecordError):
            record = store.read(newest(folders))
            if isinstance(record, StoredSet):
                sets.get(str(record.trajectory), []).append(record.identity)
    for folder, marks in kept.items():
        if all(any(_is_behind(mark, identity) for identity in sets[folder.name]) for mark in marks):
            yield folder


def _is_behind(mark: Mark, identity: SetIdentity) -> bool:
    """Whether a checkpoint lies on the way to the set of this identity, which says so but for the iteration."""
    there = key_of({**identity.as_json(), "iterations": mark.iteration})
    return mark.iteration <= identity.iterations and there.startswith(mark.cell)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}") from None


def _waste(path: Path, reason: str) -> Waste:
    return Waste(path, reason, size_of(path))
