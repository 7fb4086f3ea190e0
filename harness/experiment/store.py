"""The store: a folder with every finished cell, the only source of tables.

``cells/KK/KEY-N/`` holds attempt N of a cell: ``record.json`` and the files that it names with their SHA-256. An
attempt is written beside its place and renamed into it, so that it is there whole or not at all; it is never changed
afterwards. Reading and committing records needs no torch.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.experiment.cells import canonical_json
from harness.experiment.failures import Failures
from harness.experiment.leases import LeaseLost, Leases
from harness.types.errors import StoreError, UsageError
from harness.types.files import cannot, sync, write_whole
from harness.types.home import expand_home

SCHEMA = 1
SHORT = 12
"""Digits of a key that are shown: among a million cells, two share them once in five hundred stores."""
_SHOWN = 5
_ATTEMPT = re.compile(r"[0-9a-f]{2,64}-[0-9]+")
Writer = Callable[[Path], object]


class RecordError(StoreError):
    """A record, or a file that it names, that cannot be used; all other cells can.

    Attributes:
        key: of the cell.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def remedy(key: str) -> str:
    """What to do about a damaged attempt at a cell."""
    return f"`ddbench results discard {key[:SHORT]}` sets it aside, and then a run makes it again"


class Store:
    """A store at ``path``, made when it is first written to."""

    def __init__(self, path: Path) -> None:
        self.path = expand_home(path).absolute()
        self.leases = Leases(self.path)
        self.failures = Failures(self.path)

    def open(self) -> "Store":
        """Make the folder if needed, and check that it is a store that can be written.

        Raises:
            StoreError: it is something else, of a newer schema, or not writable.
        """
        marker = self.path / "store.json"
        try:
            if self.is_new():
                self.path.mkdir(parents=True, exist_ok=True)
                write_whole(marker, canonical_json({"schema": SCHEMA}))
            self.check_schema()
            (self.path / "cells").mkdir(exist_ok=True)
            probe = self.path / "cells" / f".probe-{secrets.token_hex(4)}"
            try:
                probe.write_text("whether there is room")
                sync(probe)
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise self.cannot("write to", error) from None
        return self

    def is_new(self) -> bool:
        """Whether there is no store yet, but could be: the folder is empty or not there.

        Raises:
            StoreError: it is a folder of other things, or cannot be looked into.
        """
        try:
            found = {path.name for path in self.path.iterdir()} if self.path.exists() else set()
        except OSError as error:
            raise self.cannot("read", error) from None
        others = [name for name in found if not name.startswith(".store.json-")]  # left where an opening was killed
        if others and "store.json" not in found:
            raise StoreError(f"{self.path} is not empty and no store; choose another folder with --store")
        return not others

    def check_schema(self) -> None:
        """Raise `StoreError` where the store was made by a newer ddbench."""
        try:
            schema = int(json.loads((self.path / "store.json").read_text())["schema"])
        except (OSError, ValueError, KeyError, TypeError):
            raise StoreError(
                f"{self.path} is no store: its store.json cannot be read; choose another --store"
            ) from None
        if schema > SCHEMA:
            raise StoreError(f"{self.path} has schema {schema}, and this ddbench knows up to {SCHEMA}: use a newer one")

    def folder(self, key: str) -> Path | None:
        """The folder of the newest attempt at a cell, if there is one."""
        attempts = [path for path in self._attempts_at(key) if (path / "record.json").exists()]
        return max(attempts, key=_attempt, default=None)

    def _attempts_at(self, key: str) -> list[Path]:
        """Whatever lies at the place of a cell's attempts."""
        parent = self.path / "cells" / key[:2]
        try:
            with os.scandir(parent) as entries:
                return [parent / entry.name for entry in entries if entry.name.startswith(f"{key}-")]
        except FileNotFoundError:
            return []

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
            StoreError: a folder cannot be read.
        """
        found: dict[str, list[Path]] = {}
        try:
            shelves = [folder for folder in _folders(self.path / "cells") if folder.name.startswith(shelf)]
            for folder in (one for each in shelves for one in _folders(each)):
                if _ATTEMPT.fullmatch(folder.name):
                    found.setdefault(folder.name.rpartition("-")[0], []).append(folder)
        except OSError as error:
            raise self.cannot("read", error) from None
        return {key: sorted(found[key], key=_attempt) for key in sorted(found)}

    def folders(self) -> list[Path]:
        """The folder of the newest attempt at every cell, by key."""
        return [folders[-1] for folders in self.attempts().values()]

    def records(self) -> Iterator[dict[str, Any]]:
        """The newest record of every finished cell."""
        return map(self.read, self.folders())

    def next_attempt(self, key: str) -> int:
        """The number of an attempt that would be made now."""
        return max(map(_attempt, self._attempts_at(key)), default=0) + 1

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
        parent = self.path / "cells" / key[:2]
        scratch = self.path / "cells" / f".writing-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            scratch.mkdir()
            for name, write in (files or {}).items():
                write(scratch / name)
                sync(scratch / name)
            digests = {name: digest_of(scratch / name) for name in files or {}}
            whole = {"schema": SCHEMA, "key": key, **record, "files": digests}
            whole["checksum"] = hashlib.sha256(canonical_json(whole).encode()).hexdigest()
            write_whole(scratch / "record.json", json.dumps(whole, indent=1, sort_keys=True, allow_nan=False))
            scratch.rename(parent / f"{key}-{attempt or self.next_attempt(key)}")
            sync(parent)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # of the rename: the names of all else are new
                raise LeaseLost(f"another process has made {record.get('label', key)}") from None
            raise self.cannot("write to", error) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return whole

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
        aside = self.path / "discarded"
        try:
            aside.mkdir(exist_ok=True)
            number = sum(path.name.startswith(folders[-1].name) for path in aside.iterdir())
            target = aside / (f"{folders[-1].name}.{number}" if number else folders[-1].name)
            folders[-1].rename(target)
            sync(folders[-1].parent)
            sync(aside)
        except OSError as error:
            raise self.cannot("write to", error) from None
        return target

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
        if not path.is_file() or digest_of(path) != wanted:
            raise RecordError(key, f"{path} is missing or was altered: {remedy(key)}")
        return path

    def read(self, folder: Path) -> dict[str, Any]:
        """The record in the folder of an attempt.

        Raises:
            RecordError: it cannot be read, was altered, or is of a newer schema.
        """
        key = folder.name.rpartition("-")[0]
        try:
            record: dict[str, Any] = json.loads((folder / "record.json").read_text())
            checksum, schema = record.pop("checksum"), record["schema"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(key, f"{folder}/record.json cannot be read ({error}): {remedy(key)}") from None
        if isinstance(schema, int) and schema > SCHEMA:
            newer = f"{folder}/record.json has schema {schema}, and this ddbench knows up to {SCHEMA}: use a newer one"
            raise RecordError(key, newer)
        if hashlib.sha256(canonical_json(record).encode()).hexdigest() != checksum:
            raise RecordError(key, f"{folder}/record.json was altered (checksum): {remedy(key)}")
        return {**record, "checksum": checksum}

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


def _folders(parent: Path) -> list[Path]:
    """What lies in a folder under a name that does not begin with a dot, and is a folder."""
    if not parent.is_dir():
        return []
    with os.scandir(parent) as entries:
        return [Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir()]


def _attempt(folder: Path) -> int:
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
