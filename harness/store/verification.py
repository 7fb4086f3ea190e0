"""Verification of a store: every file of every kind is read, and each fault is named, with the remedy.

Faults are looked at twice, because runs may be at work: between the listing of a folder and the reading of a file in
it, a run may replace or remove the file.
"""

import contextlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path

from harness.errors import StoreError
from harness.store import run_files
from harness.store import unfinished as sealed
from harness.store.cells import key_of
from harness.store.data_descriptions import DataDescriptions
from harness.store.files.archive import MANIFEST
from harness.store.files.folders import (
    CELLS,
    FAILURES,
    FOLDERS,
    LEASES,
    LOCKS,
    MARKER,
    PARTIAL,
    RECORD,
    RUNS,
    attempt_in,
    entries_of,
    key_of_attempt,
)
from harness.store.files.left_out import LEFT_OUT, REMEDY, read_left_out
from harness.store.files.reading import DamagedFile
from harness.store.locking import lease_file as lease
from harness.store.record_files import RecordError, damaged_files, has_record, read_record, remedy
from harness.store.records import KEY
from harness.store.store import MARKER_REMEDY, Store

SECOND_LOOK = 0.5
"""Seconds after which faults are looked at once more."""
_STRANGE = "does not belong in a store: move it away"
_EXPECTED = {"distilled": ("set.safetensors", "state.safetensors"), "artifact": ("artifact.safetensors",)}
"""By kind of a cell, the files that its record has to list."""
Check = Callable[[], Iterable[str]]


def verify(store: Store) -> Iterator[str]:
    """Read every record and every other file, hash those that records list, and yield a line for each fault."""
    suspect = [(check, lines) for check in _checks(store) if (lines := list(_lines(check)))]
    if suspect:
        time.sleep(SECOND_LOOK)
    for check, lines in suspect:
        # Only faults that are the same both times: real damage stays, while a file in the making is whole by now.
        again = set(_lines(check))
        yield from (line for line in lines if line in again)


def _lines(check: Check) -> Iterator[str]:
    try:
        yield from check()
    except StoreError as error:
        yield str(error)
    except OSError as error:
        yield f"{error.filename} cannot be read ({error.strerror}): make it readable"


def _checks(store: Store) -> Iterator[Check]:
    """Yield a check for each part of the store that can be wrong by itself."""
    yield partial(_check_marker, store)
    yield partial(_check_top, store.path)
    yield partial(_left_out, store.path)
    left_out = frozenset[str]()
    # A damaged list has a line of its own, and then every file that it would excuse is reported as missing.
    with contextlib.suppress(DamagedFile):
        left_out = read_left_out(store.path)
    for shelf in _paths(store.path / CELLS):
        yield partial(_check_shelf, shelf)
        # What is no shelf is reported once as a whole, and not by each file in it.
        if len(shelf.name) == 2 and shelf.is_dir():
            yield from (partial(_attempt, folder, left_out) for folder in _paths(shelf))
    for folder in _paths(store.path / PARTIAL):
        yield partial(_unfinished, folder)
        yield from (partial(sealed.damages, path) for path in _paths(folder))
    yield from (partial(store.failures.damages, path.name) for path in _paths(store.path / FAILURES))
    yield from (partial(lease.damages, path) for path in _paths(store.path / LEASES))
    descriptions = DataDescriptions(store.path)
    yield from (partial(descriptions.damages, path.name) for path in _paths(descriptions.folder))
    for folder in _paths(store.path / RUNS):
        yield partial(_check_folder, folder)
        if folder.is_dir():
            yield partial(run_files.damages, folder)


def _paths(folder: Path) -> list[Path]:
    """Return the entries of a folder; none if it cannot be read, which the check of the folder reports."""
    try:
        return [Path(entry.path) for entry in entries_of(folder)]
    except OSError:
        return []


def _check_marker(store: Store) -> Iterator[str]:
    if damage := store.marker_damage():
        yield f"{damage}: {MARKER_REMEDY}"


def _check_top(path: Path) -> Iterator[str]:
    """Yield what is wrong with the folders of a store."""
    if not (path / CELLS).is_dir():
        yield f"{path / CELLS} is not a folder: a run makes one; what was in it can come from a copy only"
    for entry in entries_of(path):
        if entry.name not in (*FOLDERS, LOCKS, MARKER, LEFT_OUT, MANIFEST):  # any tar program unpacks the last one too
            yield f"{entry.path} {_STRANGE}"
        elif entry.name in FOLDERS and entry.name != CELLS:
            yield from _check_folder(Path(entry.path))
        if entry.name in FOLDERS:
            entries_of(Path(entry.path))  # raises what keeps it from being read


def _left_out(path: Path) -> Iterator[str]:
    """Yield what is wrong with the list of the files that were left out on purpose."""
    try:
        read_left_out(path)
    except DamagedFile as damage:
        yield f"{damage}: {REMEDY}"


def _check_folder(path: Path) -> Iterator[str]:
    """Yield what is wrong with a path that is not a folder; raise an error if it cannot be read."""
    if not path.is_dir():
        yield f"{path} is not a folder: move it away"
    entries_of(path)  # for its error, which becomes a line of its own


def _unfinished(folder: Path) -> Iterator[str]:
    """Yield what is wrong with the folder of an unfinished cell."""
    if not re.fullmatch(KEY, folder.name):
        yield f"{folder} {_STRANGE}"
        return
    yield from _check_folder(folder)


def _check_shelf(shelf: Path) -> Iterator[str]:
    """Yield what is wrong with the folder of the cells whose keys begin with its name."""
    if attempt_in(f"{shelf.name}-1") is None or len(shelf.name) != 2:
        yield f"{shelf} {_STRANGE}"
        return
    yield from _check_folder(shelf)


def _attempt(folder: Path, left_out: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with an attempt at a cell."""
    key = key_of_attempt(folder)
    if attempt_in(folder.name) is None or not folder.name.startswith(folder.parent.name):
        yield f"{folder} {_STRANGE}"
    elif folder.is_symlink() or not folder.is_dir():
        yield f"{folder} is not a folder, and is ignored: move it away"
    elif not has_record(folder):
        entries_of(folder)
        yield f"{folder / RECORD} is missing, so that its folder is ignored: `ddbench results clean` removes it"
    else:
        yield from _record(folder, key, left_out)


def _record(folder: Path, key: str, left_out: Collection[str]) -> Iterator[str]:
    try:
        record = read_record(folder)
    except RecordError as error:
        yield str(error)
        return
    # An edited record may have a new checksum that fits: only its key, computed anew, shows that it is of another cell.
    if key_of(record.as_json()["identity"]) != key:
        yield f"{folder / RECORD} is of another cell (by its identity): {remedy(key)}"
    for name in _EXPECTED.get(record.kind, ()):
        if name not in record.files:
            yield f"{folder / RECORD} does not name {name}: {remedy(key)}"
    yield from damaged_files(folder, record, remedy(key), left_out)
