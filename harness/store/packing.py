"""Packed stores: a whole store, or a part of it, in one file that is read like the folder, and never written to.

A packed store holds ``store.json``, every attempt at a cell that has a record, with the files that the record names,
the notes of failures, and the descriptions of the data sets. What runs and their processes leave (leases, checkpoints,
plans, logs of jobs) stays out: nothing that reads scores needs it. `harness.store.files.archive` is the container.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from harness.errors import StoreError, UsageError
from harness.store.cells import canonical_json
from harness.store.data_descriptions import DESCRIPTION, IMAGES, DataDescriptions
from harness.store.files.archive import Content, UnwritableFolder, extract, is_name, write_archive
from harness.store.files.folders import CELLS, MARKER, RECORD, Notice, entries_of
from harness.store.files.left_out import LEFT_OUT, absent, left_out_text
from harness.store.files.reading import DamagedFile
from harness.store.record_files import has_record
from harness.store.records import SCHEMA, Record, StoredSet, StoredStudent
from harness.store.store import Store
from harness.system.home import expand_home
from harness.system.whole_files import beside

_REMEDY = "give a file that `ddbench results pack` wrote, or the folder of a store"
_FOR_READING = "make room there, or set the environment variable TMPDIR to another folder"
_FOR_GOOD = "make room there, or give another place"
_VERIFY = "`ddbench results verify` says what to do"
_ARTIFACT = "artifact"


@dataclass(frozen=True)
class PackingResult:
    """The outcome of packing.

    Attributes:
        cells: number of cells in the packed file.
        size: bytes of the packed file.
        left_out: number of files of these cells that it does not hold.
    """

    cells: int
    size: int
    left_out: int


@dataclass(frozen=True)
class Selection:
    """The part of a store that is packed.

    Attributes:
        keys: keys of the cells; None for all cells, with the failures, which no filter can select.
        sets: whether the files beside the records go in: the tensors of sets and artifacts, and the pictures of sets
            and of real images.
        artifacts: whether teachers and experts go in, which take much room and can be made again.
    """

    keys: Collection[str] | None = None
    sets: bool = True
    artifacts: bool = True


class PackedStore(Store):
    """A packed store for reading: its files lie in a temporary folder for as long as this object lives."""

    def __init__(self, file: Path, records_only: bool) -> None:
        folder = Path(tempfile.mkdtemp(prefix="ddbench-"))
        # Not `TemporaryDirectory`: it warns if it is not closed, and a store ends only when nothing refers to it.
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        _extract(file, folder, _FOR_READING, records_only)
        super().__init__(folder)

    def open(self) -> NoReturn:
        """Refuse to open the store for writing: what a run added would be lost with the temporary folder."""
        raise StoreError("a packed store is only read: `ddbench results unpack` makes a folder of it")


def open_store(path: Path, notice: Notice | None = None, *, records_only: bool = False) -> Store:
    """Return the store at a path for reading, whether it is a folder or a packed file.

    Args:
        path: the folder or file.
        notice: called with each notice about the store.
        records_only: whether only records and notes of failures are unpacked, which lie in front of the tensors.

    Raises:
        StoreError: it is a file, but no packed store, or a damaged one.
    """
    place = expand_home(path).absolute()
    store = PackedStore(place, records_only) if os.path.isfile(place) else Store(path)
    if notice:
        store.notice = notice
    return store


def pack(store: Store, file: Path, selection: Selection = Selection()) -> PackingResult:
    """Write a store into one file, or replace that file: whole or not at all, and read back before it is there.

    Only a file is replaced: never a folder, nor a device.

    The same content gives the same bytes, as long as the same version of liblzma compresses it.

    Args:
        store: runs may work on it meanwhile, since a finished cell is never changed.
        file: the packed file.
        selection: what of the store goes in.

    Raises:
        StoreError: something in the store is damaged, or cannot be read.
        UsageError: the file cannot be written, or something else lies there.
    """
    target = expand_home(file).absolute()
    # `beside` would move a folder with all that is in it out of the way and remove it.
    if os.path.exists(target) and not os.path.isfile(target):
        raise UsageError(f"{file} is not a file, and is not replaced by one: give another place")
    # In the store it would be a strange file, and the next packing would have to know it from the rest.
    if target.resolve().is_relative_to(store.path.resolve()):
        raise UsageError(f"{file} lies in the store that is packed: give a place outside it")
    store.check_schema()
    contents = _Contents(store, selection)
    try:
        with beside(target) as temporary:
            _write(temporary, contents)
            size = temporary.stat().st_size
    except ValueError as error:
        raise StoreError(f"{store.path} cannot be packed: {error}") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}; give another place") from None
    return PackingResult(contents.cells, size, len(contents.left_out))


def unpack(file: Path, folder: Path) -> int:
    """Write a packed store into a new or empty folder, whole or not at all, and return the number of its files.

    Raises:
        StoreError: the file is no packed store, or a damaged one.
        UsageError: the folder holds something, or cannot be written.
    """
    target = expand_home(folder).absolute()
    try:
        if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
            raise UsageError(f"{folder} is there already: give another name, or move it away")
        target.parent.mkdir(parents=True, exist_ok=True)
        with beside(target) as temporary:
            (temporary / CELLS).mkdir(parents=True)
            return _extract(expand_home(file).absolute(), temporary, _FOR_GOOD)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}; give another place") from None


class _Contents:
    """The files that go into a packed file, by name, and the names of those that are left out."""

    def __init__(self, store: Store, selection: Selection) -> None:
        self._store, self._selection = store, selection
        self.sources: dict[str, Content] = {MARKER: canonical_json({"schema": SCHEMA}).encode()}
        self.digests: dict[str, str] = {}
        """By name, the digest of each file that a record names."""
        self.left_out = set[str]()
        self.cells = 0
        self._fingerprints = set[str]()
        """Of the training and scored images of the packed cells."""
        before = absent(store.path)
        for key, folders in store.attempts().items():
            if selection.keys is None or key in selection.keys:
                added = [self._add(folder, before) for folder in folders if has_record(folder)]
                self.cells += any(added)
        if selection.keys is None:
            self._add_failures()
        self._add_descriptions(before)
        if self.left_out:
            self.sources[LEFT_OUT] = left_out_text(self.left_out).encode()

    def _add(self, folder: Path, before: Collection[str]) -> bool:
        """Add an attempt at a cell, if it is selected."""
        record = self._store.read(folder)
        if record.kind == _ARTIFACT and not self._selection.artifacts:
            return False
        self._fingerprints.update(_fingerprints(record))
        self.sources[self._name(folder / RECORD)] = folder / RECORD
        for file_name, digest in record.files.items():
            self._add_file(folder / file_name, digest, before)
        return True

    def _add_file(self, path: Path, digest: str, before: Collection[str]) -> None:
        """Add a file beside a record or description, or the name of one that is left out."""
        name = self._name(path)
        if not self._selection.sets or name in before:
            self.left_out.add(name)
        else:
            self.sources[name], self.digests[name] = path, digest

    def _add_descriptions(self, before: Collection[str]) -> None:
        """Add the descriptions of the data sets that the selected cells rest on."""
        descriptions = DataDescriptions(self._store.path)
        for key in descriptions.all_keys():
            description, folder = descriptions.read(key), descriptions.folder / key
            if self._selection.keys is None or {description.problem, description.scored} & self._fingerprints:
                self.sources[self._name(folder / DESCRIPTION)] = folder / DESCRIPTION
                self._add_file(folder / IMAGES, description.picture.digest, before)

    def _add_failures(self) -> None:
        failures = self._store.failures
        for path in (Path(entry.path) for entry in entries_of(failures.folder)):
            if is_name(self._name(path)):
                for damage in failures.damages(path.name):
                    raise StoreError(damage)
                self.sources[self._name(path)] = path

    def _name(self, path: Path) -> str:
        return path.relative_to(self._store.path).as_posix()


def _fingerprints(record: Record) -> Collection[str]:
    """Return the fingerprints of real data in a record."""
    match record:
        case StoredSet():
            return [record.identity.trajectory.problem]
        case StoredStudent():
            return [record.identity.score]
        case _:
            return []


def _write(file: Path, contents: _Contents) -> None:
    """Write the packed file; then check it against itself, and against the records whose files it holds."""
    # Two passes: while files are copied a live run may replace a note of a failure, and what is read from the disk may
    # differ from what the manifest hashed a moment before. Only the finished file shows whether all fits together.
    try:
        write_archive(file, contents.sources)
    except DamagedFile as damage:
        raise StoreError(f"{damage}: {_VERIFY}") from None
    try:
        members = extract(file, None)
    except DamagedFile as damage:
        raise StoreError(f"the store changed while it was packed ({damage.reason}): pack it again") from None
    for member in members:
        if contents.digests.get(member.name, member.digest) != member.digest:
            raise StoreError(f"{member.name} was altered: {_VERIFY}")


def _extract(file: Path, folder: Path, remedy: str, records_only: bool = False) -> int:
    try:
        return len(extract(file.resolve(), folder, records_only=records_only))
    except UnwritableFolder as reason:
        raise StoreError(f"{file} cannot be unpacked into {folder.parent} ({reason}): {remedy}") from None
    except DamagedFile as damage:
        raise StoreError(f"{file} cannot be read as a packed store ({damage.reason}): {_REMEDY}") from None
