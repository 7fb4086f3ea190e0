"""The store: a folder with every finished cell, the only source of tables.

``cells/KK/KEY-N/`` holds attempt N of a cell: ``record.json`` and the files that it names with their SHA-256. An
attempt is written beside its place and renamed into it, so that it is there whole or not at all; it is never changed
afterwards. Reading and committing records does not import torch.
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from harness.errors import StoreError, UsageError, few
from harness.store.cells import SHORT, canonical_json, is_prefix
from harness.store.failures import Failures
from harness.store.files.folders import (
    CELLS,
    FOLDERS,
    MARKER,
    RECORD,
    Notice,
    attempt_in,
    entries_of,
    key_of_attempt,
    make_folder,
    make_way,
    set_aside,
)
from harness.store.files.left_out import left_out_reason
from harness.store.files.reading import DamagedFile, digest_of, read_object
from harness.store.locking.leases import LeaseLost, Leases
from harness.store.record_files import NewerRecordError, has_record, newest, read_record, remedy, sealed_record
from harness.store.record_files import RecordError as RecordError
from harness.store.records import SCHEMA, Record
from harness.store.store_errors import cannot
from harness.system.home import expand_home
from harness.system.whole_files import sync, write_whole

_SHOWN = 5
_MOST_MARKER = 2**16
MARKER_REMEDY = f'write {{"schema":{SCHEMA}}} into its {MARKER}; a run does so if there are sound records'
Writer = Callable[[Path], object]


def _ignore(_text: str) -> None:
    """Ignore a notice."""


class Store:
    """A store at ``path``, created when it is first written to."""

    read = staticmethod(read_record)

    def __init__(self, path: Path, notice: Notice = _ignore) -> None:
        self.path, self.notice = expand_home(path).absolute(), notice
        if os.path.isfile(self.path):
            unpacked = "if it is a packed store, `ddbench results unpack` makes a folder of it"
            raise StoreError(f"{self.path} is a file and not a folder: choose another with --store; {unpacked}")
        self.leases = Leases(self.path)
        self.failures = Failures(self.path)

    def open(self) -> "Store":
        """Make the folder if needed, and check that it is a store that can be written.

        A lost ``store.json`` is written again if there are sound records, and a file in the place of a folder is set
        aside; both with a notice.

        Raises:
            StoreError: it is something else, of a newer schema, or not writable.
        """
        try:
            if self.is_new():
                self.path.mkdir(parents=True, exist_ok=True)
                self._write_marker()
            elif problem := self._marker_problem():
                if os.path.lexists(self.path / MARKER):
                    set_aside(self.path, self.path / MARKER)
                self._write_marker()
                self.notice(f"{problem}: it was made again, for there are sound records beside it")
            # The others are made when they are needed, so that a store shows what was ever done in it.
            for name in FOLDERS:
                if name == CELLS or os.path.lexists(self.path / name):
                    make_folder(self.path, self.path / name, self.notice)
            self._try_to_write()
        except OSError as error:
            raise cannot("write to", self.path, error) from None
        return self

    def is_new(self) -> bool:
        """Return whether a store can be created here: the folder is empty or does not exist.

        Raises:
            StoreError: it is a folder of other things, or cannot be looked into.
        """
        try:
            names = {path.name for path in self.path.iterdir()} if self.path.exists() else set()
        except OSError as error:
            raise cannot("read", self.path, error) from None
        # A run that is killed while it opens a new store leaves a temporary marker behind, and nothing else.
        others = [name for name in names if not name.startswith(f".{MARKER}-")]
        if others and MARKER not in names and not self._has_sound_records():
            raise StoreError(f"{self.path} is not empty and not a store; choose another folder with --store")
        return not others

    def check_schema(self) -> None:
        """Check that the folder is a store of a known schema; if only ``store.json`` is lost, give notice.

        Raises:
            StoreError: it is not a store, or was made by a newer ddbench.
        """
        if problem := self._marker_problem():
            self.notice(f"{problem}; {MARKER_REMEDY}")

    def marker_damage(self) -> str | None:
        """Return what is wrong with ``store.json``; None if it is sound or of a newer schema."""
        marker = self.path / MARKER
        try:
            schema = read_object(marker, _MOST_MARKER).get("schema")
        except FileNotFoundError:
            return f"{marker} is missing"
        except DamagedFile as damage:
            return str(damage)
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            return f"{marker} cannot be read (its schema is {schema!r:.40})"
        # One flipped bit turns schema 1 into 3 or 5: the records show whether a newer version has really written here.
        if schema > SCHEMA and self._has_sound_records(all_of_them=True):
            return f"{marker} cannot be read (it says schema {schema}, but no record is of a newer one than {SCHEMA})"
        return None

    def _marker_problem(self) -> str | None:
        """Return what is wrong with ``store.json`` of a store that can be used nevertheless; None if it is sound."""
        problem = self.marker_damage()
        if problem is None:
            schema = read_object(self.path / MARKER, _MOST_MARKER)["schema"]
            if schema > SCHEMA:
                newer = f"has schema {schema}, and this ddbench knows up to {SCHEMA}"
                raise StoreError(f"{self.path} {newer}: use a newer one")
        elif not self._has_sound_records():
            if not self.path.exists():
                raise StoreError(f"{self.path} does not exist: choose another --store")
            refusal = f"{self.path} is not a store: {problem}, and there is no sound record beside it"
            raise StoreError(f"{refusal}; choose another --store, or if it is one, {MARKER_REMEDY}")
        return problem

    def _has_sound_records(self, all_of_them: bool = False) -> bool:
        """Return whether a record can be read; with ``all_of_them`` also that none is of a newer schema."""
        is_sound = False
        for folder in (attempt for attempts in self.attempts().values() for attempt in attempts):
            try:
                self.read(folder)
                is_sound = True
            except NewerRecordError:
                return False
            except RecordError:
                continue
            if not all_of_them:
                return True
        return is_sound

    def _write_marker(self) -> None:
        write_whole(self.path / MARKER, canonical_json({"schema": SCHEMA}))

    def _try_to_write(self) -> None:
        # Permissions alone do not show it: a disk may be full or mounted read-only, which is better known before hours
        # of work than after. NFS reports a full disk only when the data is sent, so the probe is synced.
        probe = self.path / CELLS / f".probe-{secrets.token_hex(4)}"
        try:
            probe.write_text("whether there is room")
            sync(probe)
        finally:
            probe.unlink(missing_ok=True)

    def folder(self, key: str) -> Path | None:
        """Return the folder of the newest attempt at a cell that has a record; None if there is none.

        Raises:
            RecordError: the folder above it cannot be read.
        """
        attempts = [path for path in self._attempts_at(key) if path.is_dir() and has_record(path)]
        return max(attempts, key=_number, default=None)

    def holds(self, key: str) -> bool:
        """Return whether there is an attempt at a cell, which may be damaged."""
        try:
            return self.folder(key) is not None
        except RecordError:
            return True

    def _attempts_at(self, key: str) -> list[Path]:
        """Return all that lies at the place of a cell's attempts under the name of an attempt."""
        shelf = self.path / CELLS / key[:2]
        try:
            names = [Path(entry.path) for entry in entries_of(shelf) if entry.name.startswith(f"{key}-")]
        except OSError as error:
            raise RecordError(key, _unreadable(shelf, error)) from None
        return [path for path in names if attempt_in(path.name)]

    def find(self, prefix: str) -> str:
        """Return the only key that begins with ``prefix``.

        Raises:
            UsageError: it cannot begin a key, or none or several of this store's keys begin with it.
            StoreError: there is no store.
        """
        if not is_prefix(prefix):
            raise UsageError(f"{prefix!r} is not the beginning of a key: `ddbench results list` shows the keys")
        self.check_schema()
        known = {*self.attempts(prefix[:2]), *self.failures.keys(prefix)}
        matching = sorted(key for key in known if key.startswith(prefix))
        if not matching:
            raise UsageError(f"no cell of {self.path} begins with {prefix}: `ddbench results list` shows the keys")
        if len(matching) > 1:
            keys = few([key[:SHORT] for key in matching], most=_SHOWN)
            raise UsageError(f"{len(matching)} cells begin with {prefix}: {keys}; write more of the key")
        return matching[0]

    def record(self, key: str) -> Record | None:
        """Return the newest record of a cell; None if it is not done.

        Raises:
            RecordError: it cannot be used.
        """
        folder = self.folder(key)
        return None if folder is None else self.read(folder)

    def attempts(self, shelf: str = "") -> dict[str, list[Path]]:
        """Return the folders of all attempts by key, the newest last; keys are sorted.

        Args:
            shelf: only keys whose first two digits begin with it.

        Raises:
            StoreError: the cells cannot be read.
        """
        by_key: dict[str, list[Path]] = {}
        try:
            shelves = [Path(entry.path) for entry in entries_of(self.path / CELLS) if entry.name.startswith(shelf)]
        except OSError as error:
            raise cannot("read", self.path, error) from None
        for place in shelves:
            for folder in self._attempts_on(place):
                by_key.setdefault(key_of_attempt(folder), []).append(folder)
        return {key: sorted(by_key[key], key=_number) for key in sorted(by_key)}

    def _attempts_on(self, shelf: Path) -> list[Path]:
        """Return the attempts in the folder of all keys with the same two first digits; none if it cannot be read."""
        try:
            entries = [entry for entry in entries_of(shelf) if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            self.notice(_unreadable(shelf, error))
            return []
        return [Path(entry.path) for entry in entries if attempt_in(entry.name) and entry.name.startswith(shelf.name)]

    def folders(self) -> list[Path]:
        """Return the folder of every cell's newest attempt, by key; one that has a record if there is one."""
        return [newest(folders) for folders in self.attempts().values()]

    def records(self) -> Iterator[Record]:
        """Yield the newest record of every finished cell."""
        # The generator refers to `self`, without which the temporary folder of a packed store would be gone.
        return (self.read(folder) for folder in self.folders())

    def next_attempt(self, key: str) -> int:
        """Return the number of the next attempt at a cell."""
        return max(map(_number, self._attempts_at(key)), default=0) + 1

    def commit(
        self,
        record: Record,
        files: Mapping[str, Writer] | None = None,
        attempt: int | None = None,
    ) -> Record:
        """Add an attempt at a cell: write its files and its record, and rename its folder into the store.

        Args:
            record: of the cell; schema, the files' digests and the checksum are set here.
            files: by name, a function that writes the file at the path it is given.
            attempt: its number when the work began; by default the next.

        Returns:
            The record as it was written.

        Raises:
            LeaseLost: another process has committed that attempt meanwhile.
            StoreError: the disk is full, or the folder not writable; nothing is left behind.
        """
        key = record.key
        parent = self.path / CELLS / key[:2]
        scratch = self.path / CELLS / f".writing-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            make_folder(self.path, parent, self.notice)
            scratch.mkdir()
            for name, write in (files or {}).items():
                write(scratch / name)
                sync(scratch / name)
            # Of what is read back and not of what was meant: a writer of a plugin may have left half a file.
            digests = {name: digest_of(scratch / name) for name in files or {}}
            written, text = sealed_record(record, digests)
            write_whole(scratch / RECORD, text)
            self._put(scratch, parent / f"{key}-{attempt or self.next_attempt(key)}", record.label)
        except OSError as error:
            raise cannot("write to", self.path, error) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return written

    @staticmethod
    def _put(scratch: Path, folder: Path, label: str) -> None:
        """Rename an attempt into its place."""
        # rename() is atomic, and fails if a folder with files is there already: so two processes that believe to hold
        # the same cell, one of them after a long sleep, can never mix their files or overwrite each other's.
        try:
            scratch.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise LeaseLost(f"another process has made {label}") from None
            raise
        sync(folder.parent)  # the name too: else a power cut may lose a cell that was reported as finished

    def discard(self, key: str) -> Path:
        """Set the newest attempt at a cell aside, so that the one before counts, or a run makes it again.

        Returns:
            The new place of its folder.

        Raises:
            UsageError: there is none.
            StoreError: the store cannot be written.
        """
        folders = self.attempts(key[:2]).get(key)
        if not folders:
            raise UsageError(f"{key[:SHORT]} has no record to discard: `ddbench run --retry-failed` tries it again")
        try:
            return set_aside(self.path, folders[-1])
        except OSError as error:
            raise cannot("write to", self.path, error) from None

    def make_folder(self, folder: Path) -> None:
        """Create a folder in the store; a file in its place is set aside, with a notice.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            make_folder(self.path, folder, self.notice)
        except OSError as error:
            raise cannot("write to", self.path, error) from None

    def make_way(self, path: Path) -> None:
        """Set aside what lies in the place of a file and is not a file, with a notice.

        Raises:
            StoreError: it cannot be moved.
        """
        try:
            make_way(self.path, path, self.notice)
        except OSError as error:
            raise cannot("write to", self.path, error) from None

    def file(self, key: str, name: str) -> Path:
        """Return the path of a file of a finished cell, checked against the digest in its record.

        Raises:
            RecordError: it is missing or was altered.
        """
        folder = self.folder(key)
        if folder is None:
            failure = self.failures.get(key)
            reason = f"{failure.label} failed: {failure.reason}" if failure else f"{self.path} holds no cell {key}"
            raise RecordError(key, reason)
        path = folder / name
        digest = self.read(folder).files.get(name)
        try:
            is_sound = digest_of(path) == digest
        except (FileNotFoundError, DamagedFile):
            is_sound = False
        if not is_sound:
            reason = left_out_reason(self.path, path) or f"{path} is missing or was altered"
            raise RecordError(key, f"{reason}: {remedy(key)}")
        return path

    def sound(self, key: str) -> Record | None:
        """Return the newest record of a cell; None if it is not done or the record cannot be used."""
        with contextlib.suppress(RecordError):
            return self.record(key)
        return None


def _number(folder: Path) -> int:
    parts = attempt_in(folder.name)
    return parts[1] if parts else 0


def _unreadable(folder: Path, error: OSError) -> str:
    return f"{folder} cannot be read ({error.strerror}), so that its cells are not seen: make it readable"
