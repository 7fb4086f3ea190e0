"""The store: a folder with every finished cell, the only source of tables.

``cells/KK/KEY-N/`` holds attempt N of a cell: ``record.json`` and the files that it names with their SHA-256. An
attempt is written beside its place and renamed into it, so that it is there whole or not at all; it is never changed
afterwards. Reading and committing records needs no torch.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import StoreError, UsageError
from harness.store.cells import SHORT, canonical_json
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
from harness.store.files.reading import DamagedFile, digest_of, read_object, with_checksum
from harness.store.locking.leases import LeaseLost, Leases
from harness.store.record_files import NewerRecordError, has_record, newest, read_record, remedy, text_of
from harness.store.record_files import RecordError as RecordError
from harness.store.records import SCHEMA as SCHEMA
from harness.store.store_errors import cannot
from harness.system.home import expand_home
from harness.system.whole_files import sync, write_whole

_SHOWN = 5
_MOST_MARKER = 2**16
MARKER_REMEDY = f'write {{"schema":{SCHEMA}}} into its {MARKER}; a run does so where there are sound records'
Writer = Callable[[Path], object]


def _ignore(_text: str) -> None:
    """Nobody is there to hear it."""


class Store:
    """A store at ``path``, made when it is first written to."""

    read = staticmethod(read_record)

    def __init__(self, path: Path, notice: Notice = _ignore) -> None:
        self.path, self.notice = expand_home(path).absolute(), notice
        if os.path.isfile(self.path):
            unpacked = "if it is a packed store, `ddbench results unpack` makes a folder of it"
            raise StoreError(f"{self.path} is a file, and no folder: choose another with --store; {unpacked}")
        self.leases = Leases(self.path)
        self.failures = Failures(self.path)

    def open(self) -> "Store":
        """Make the folder if needed, and check that it is a store that can be written.

        A ``store.json`` that is lost is made again if there are sound records, and what lies in the place of a folder
        is set aside; both with a notice.

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
            for name in FOLDERS:
                if name == CELLS or os.path.lexists(self.path / name):
                    make_folder(self.path, self.path / name, self.notice)
            self._try_to_write()
        except OSError as error:
            raise self.cannot("write to", error) from None
        return self

    def is_new(self) -> bool:
        """Whether there is no store yet, but could be: the folder is empty or not there.

        Raises:
            StoreError: it is a folder of other things, or cannot be looked into.
        """
        try:
            names = {path.name for path in self.path.iterdir()} if self.path.exists() else set()
        except OSError as error:
            raise self.cannot("read", error) from None
        others = [name for name in names if not name.startswith(f".{MARKER}-")]  # left where an opening was killed
        if others and MARKER not in names and not self._has_sound_records():
            raise StoreError(f"{self.path} is not empty and no store; choose another folder with --store")
        return not others

    def check_schema(self) -> None:
        """Check that it is a store of a schema that is known here; if only ``store.json`` is lost, say so.

        Raises:
            StoreError: it is none, or was made by a newer ddbench.
        """
        if problem := self._marker_problem():
            self.notice(f"{problem}; {MARKER_REMEDY}")

    def marker_damage(self) -> str | None:
        """What is wrong with ``store.json``; None if nothing is, or if it is of a newer schema."""
        marker = self.path / MARKER
        try:
            schema = read_object(marker, _MOST_MARKER).get("schema")
        except FileNotFoundError:
            return f"{marker} is missing"
        except DamagedFile as damage:
            return str(damage)
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            return f"{marker} cannot be read (its schema is {schema!r:.40})"
        if schema > SCHEMA and self._has_sound_records(all_of_them=True):
            return f"{marker} cannot be read (it says schema {schema}, but no record is of a newer one than {SCHEMA})"
        return None

    def _marker_problem(self) -> str | None:
        """What is wrong with ``store.json`` of a store that can be used nevertheless."""
        problem = self.marker_damage()
        if problem is None:
            schema = read_object(self.path / MARKER, _MOST_MARKER)["schema"]
            if schema > SCHEMA:
                newer = f"has schema {schema}, and this ddbench knows up to {SCHEMA}"
                raise StoreError(f"{self.path} {newer}: use a newer one")
        elif not self._has_sound_records():
            refusal = f"{self.path} is no store: {problem}, and there is no sound record beside it"
            raise StoreError(f"{refusal}; choose another --store, or if it is one, {MARKER_REMEDY}")
        return problem

    def _has_sound_records(self, all_of_them: bool = False) -> bool:
        """Whether a record can be read; or also none is of a newer schema."""
        is_sound = False
        for folder in (one for folders in self.attempts().values() for one in folders):
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
        probe = self.path / CELLS / f".probe-{secrets.token_hex(4)}"
        try:
            probe.write_text("whether there is room")
            sync(probe)
        finally:
            probe.unlink(missing_ok=True)

    def folder(self, key: str) -> Path | None:
        """The folder of the newest attempt at a cell that has a record, if there is one.

        Raises:
            RecordError: where it would lie cannot be read.
        """
        attempts = [path for path in self._attempts_at(key) if path.is_dir() and has_record(path)]
        return max(attempts, key=_number, default=None)

    def holds(self, key: str) -> bool:
        """Whether there is an attempt at a cell, which may be damaged."""
        try:
            return self.folder(key) is not None
        except RecordError:
            return True

    def _attempts_at(self, key: str) -> list[Path]:
        """Whatever lies at the place of a cell's attempts under a name that one would have."""
        shelf = self.path / CELLS / key[:2]
        try:
            names = [Path(entry.path) for entry in entries_of(shelf) if entry.name.startswith(f"{key}-")]
        except OSError as error:
            raise RecordError(key, _unreadable(shelf, error)) from None
        return [path for path in names if attempt_in(path.name)]

    def find(self, prefix: str) -> str:
        """The key of the one cell whose key begins with ``prefix``.

        Raises:
            UsageError: it is no beginning of a key, of none here, or of several.
            StoreError: there is no store.
        """
        if not is_prefix(prefix):
            raise UsageError(f"{prefix!r} is no beginning of a key: `ddbench results list` shows the keys")
        self.check_schema()
        known = {*self.attempts(prefix[:2]), *self.failures.keys(prefix)}
        found = sorted(key for key in known if key.startswith(prefix))
        if not found:
            raise UsageError(f"no cell of {self.path} begins with {prefix}: `ddbench results list` shows the keys")
        if len(found) > 1:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            told = ", ".join(key[:SHORT] for key in found[:_SHOWN])
            raise UsageError(f"{len(found)} cells begin with {prefix}: {told}{more}; write more of the key")
        return found[0]

    def record(self, key: str) -> dict[str, Any] | None:
        """The newest record of a cell, if it is done.

        Raises:
            RecordError: it cannot be used.
        """
        folder = self.folder(key)
        return None if folder is None else self.read(folder)

    def attempts(self, shelf: str = "") -> dict[str, list[Path]]:
        """By key, the folders of all attempts at a cell, the newest last; keys are sorted.

        Args:
            shelf: only of keys whose first two digits begin so.

        Raises:
            StoreError: the cells cannot be read.
        """
        found: dict[str, list[Path]] = {}
        try:
            shelves = [Path(entry.path) for entry in entries_of(self.path / CELLS) if entry.name.startswith(shelf)]
        except OSError as error:
            raise self.cannot("read", error) from None
        for place in shelves:
            for folder in self._attempts_on(place):
                found.setdefault(key_of_attempt(folder), []).append(folder)
        return {key: sorted(found[key], key=_number) for key in sorted(found)}

    def _attempts_on(self, shelf: Path) -> list[Path]:
        """The folders of the attempts whose keys begin as their shelf is called; none of what cannot be read."""
        try:
            entries = [entry for entry in entries_of(shelf) if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            self.notice(_unreadable(shelf, error))
            return []
        return [Path(one.path) for one in entries if attempt_in(one.name) and one.name.startswith(shelf.name)]

    def folders(self) -> list[Path]:
        """The folder of the newest attempt at every cell, by key; one that has a record if there is one."""
        return [newest(folders) for folders in self.attempts().values()]

    def records(self) -> Iterator[dict[str, Any]]:
        """The newest record of every finished cell."""
        return (self.read(folder) for folder in self.folders())  # `self` keeps an unpacked store's folder

    def next_attempt(self, key: str) -> int:
        """The number of an attempt that would be made now."""
        return max(map(_number, self._attempts_at(key)), default=0) + 1

    def commit(
        self,
        key: str,
        record: Mapping[str, Any],
        files: Mapping[str, Writer] | None = None,
        attempt: int | None = None,
    ) -> dict[str, Any]:
        """Add an attempt at a cell: its files, then its record, then its place in the store.

        Args:
            key: the cell's key.
            record: as JSON; key, schema, the files' digests and a checksum are added.
            files: by name, a function that writes the file at the path it is given.
            attempt: its number, of when the work began; by default the next.

        Returns:
            The record as it was written.

        Raises:
            LeaseLost: somebody else has committed that attempt meanwhile.
            StoreError: the disk is full, or the folder not writable; nothing is left behind.
        """
        parent = self.path / CELLS / key[:2]
        scratch = self.path / CELLS / f".writing-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            make_folder(self.path, parent, self.notice)
            scratch.mkdir()
            for name, write in (files or {}).items():
                write(scratch / name)
                sync(scratch / name)
            digests = {name: digest_of(scratch / name) for name in files or {}}
            whole = with_checksum({"schema": SCHEMA, "key": key, **record, "files": digests})
            write_whole(scratch / RECORD, text_of(whole))
            self._put(scratch, parent / f"{key}-{attempt or self.next_attempt(key)}", str(record.get("label", key)))
        except OSError as error:
            raise self.cannot("write to", error) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return whole

    @staticmethod
    def _put(scratch: Path, folder: Path, label: str) -> None:
        """Rename an attempt into its place."""
        try:
            scratch.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise LeaseLost(f"another process has made {label}") from None
            raise
        sync(folder.parent)

    def discard(self, key: str) -> Path:
        """Set the newest attempt at a cell aside, so that the one before counts, or a run makes it again.

        Returns:
            Where its folder lies now.

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
            raise self.cannot("write to", error) from None

    def make_folder(self, folder: Path) -> None:
        """Make a folder in the store; what lies in its place is set aside, with a notice.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            make_folder(self.path, folder, self.notice)
        except OSError as error:
            raise self.cannot("write to", error) from None

    def make_way(self, path: Path) -> None:
        """Set aside what lies in the place of a file and is none, with a notice.

        Raises:
            StoreError: it cannot be moved.
        """
        try:
            make_way(self.path, path, self.notice)
        except OSError as error:
            raise self.cannot("write to", error) from None

    def file(self, key: str, name: str) -> Path:
        """A file of a finished cell, checked against the digest in its record.

        Raises:
            RecordError: it is missing or was altered.
        """
        folder = self.folder(key)
        if folder is None:
            failure = self.failures.get(key)
            told = f"{failure.label} failed: {failure.reason}" if failure else f"{self.path} holds no cell {key}"
            raise RecordError(key, told)
        path = folder / name
        wanted = self.read(folder)["files"].get(name)
        try:
            is_sound = digest_of(path) == wanted
        except (FileNotFoundError, DamagedFile):
            is_sound = False
        if not is_sound:
            reason = left_out_reason(self.path, path) or f"{path} is missing or was altered"
            raise RecordError(key, f"{reason}: {remedy(key)}")
        return path

    def sound(self, key: str) -> dict[str, Any] | None:
        """The newest record of a cell, if it is done and the record can be used."""
        with contextlib.suppress(RecordError):
            return self.record(key)
        return None

    def cannot(self, what: str, error: OSError) -> StoreError:
        """The error for what the operating system refuses, with the remedy."""
        return cannot(what, self.path, error)


def is_prefix(text: str) -> bool:
    """Whether it can begin a key."""
    return re.fullmatch(r"[0-9a-f]{1,64}", text) is not None


def _number(folder: Path) -> int:
    parts = attempt_in(folder.name)
    return parts[1] if parts else 0


def _unreadable(folder: Path, error: OSError) -> str:
    return f"{folder} cannot be read ({error.strerror}), so that its cells are not seen: make it readable"
