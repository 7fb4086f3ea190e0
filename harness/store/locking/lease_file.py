"""One lease: a file ``KEY.G`` that its holder creates, keeps open, and writes a heartbeat into every few seconds."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from harness.errors import DDBenchError
from harness.store.files.reading import NOWHERE, DamagedFile, kind_at, parse_checked, read_bytes, with_checksum
from harness.store.store_errors import cannot
from harness.system.clock import now
from harness.system.process_identity import ProcessIdentity
from harness.system.whole_files import hidden_beside

SCHEMA = 1
_SIZE = 4096
"""Bytes of a lease's file, padded: one write replaces all of it, so that nobody reads the end of an older one."""
_LONGEST_LABEL = 300
_MOST_BYTES = 2**16
"""Larger files were written by no holder."""
_FIELDS: dict[str, type | UnionType] = {
    "schema": int,
    "key": str,
    "label": str,
    "host": str,
    "machine": str,
    "pid": int,
    "start": int | None,
    "token": str,
    "started": str,
    "beat": int,
    "beat_at": str,
    "cell": str | None,
    "iteration": int | None,
    "total": int | None,
    "first": int | None,
    "first_at": str | None,
}
_NEEDED = ("host", "machine", "pid")
_LARGEST_NUMBER = 2**62
_NAME = re.compile(r"([^.].*)\.([1-9][0-9]{0,17})", re.ASCII | re.DOTALL)
NO_LEASE = b"no lease"
"""Stands for the content of what is not a plain file, so that no holder created it."""
# FAT, some FUSE mounts and object stores have no hard links, and each reports that with a different error.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)


class LeaseLost(DDBenchError):
    """Raised when another process has taken over the work of this one, which must not commit it any more."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease.

    Attributes:
        label: what is worked on, for people.
        started: when it was taken, by the holder's clock.
        cell: the key of the cell in the making; ``iteration`` of ``total`` if it has iterations.
        age: seconds since the last heartbeat, by the clock of the file system.
        is_live: whether its heartbeats arrive, and its process is not known to have ended.
        seconds: since it was taken, by the holder's clock.
        seconds_left: until the last iteration, at the pace since the first; None if unknown.
    """

    key: str
    label: str
    host: str
    pid: int
    started: str
    cell: str | None
    iteration: int | None
    total: int | None
    age: float
    is_live: bool
    seconds: float
    seconds_left: float | None

    def __str__(self) -> str:
        return f"{self.host} pid {self.pid}"


class Lease:
    """A lease that a process holds until it releases it, or another process takes the next generation.

    The file stays open: a holder that was asleep writes into the file that it created, never into a later one.
    """

    def __init__(self, path: Path, descriptor: int, fields: dict[str, Any], wake: threading.Event) -> None:
        self.path = path
        self._descriptor, self._fields, self._wake = descriptor, fields, wake
        # Held while the descriptor is used: after close() its number may stand for another file of this process, which
        # a late heartbeat of the other thread would overwrite.
        self._open = threading.Lock()
        self._is_open, self._is_lost = True, False

    @classmethod
    def take(cls, path: Path, label: str, wake: threading.Event) -> "Lease | None":
        """Take the lease at a path; None if another process has created the file.

        Args:
            path: ``KEY.G``.
            label: what is worked on, for people.
            wake: set when a heartbeat should be written before the next one is due.
        """
        fields = {
            "schema": SCHEMA,
            "key": parts(path)[0],
            "label": _shorten(label),
            **dataclasses.asdict(ProcessIdentity.own()),
            "token": secrets.token_hex(8),
            "started": now(),
            "beat": 0,
            "beat_at": now(),
            "cell": None,
            "iteration": None,
            "total": None,
            "first": None,
            "first_at": None,
        }
        descriptor = _create(path, _content(fields))
        return None if descriptor is None else cls(path, descriptor, fields, wake)

    def report(
        self,
        *,
        cell: str | None = None,
        label: str | None = None,
        iteration: int | None = None,
        total: int | None = None,
    ) -> None:
        """Set what the next heartbeat says of the work; the start of another cell is written soon.

        Raises:
            LeaseLost: another process has it, as the last heartbeat found out.
        """
        if self._is_lost:
            raise self._loss()
        is_new = cell is not None and cell != self._fields["cell"]
        if is_new:
            self._fields |= {"iteration": None, "total": None}
        if iteration is not None and self._fields["iteration"] is None:
            # The pace counts from here: a trajectory that goes on from a checkpoint does not begin at iteration 0.
            self._fields |= {"first": iteration, "first_at": now()}
        changes = {"cell": cell, "label": label and _shorten(label), "iteration": iteration, "total": total}
        self._fields |= {name: value for name, value in changes.items() if value is not None}
        if is_new:
            self._wake.set()

    def check(self) -> None:
        """Make sure that the lease is still held; called right before anything is committed.

        Raises:
            LeaseLost: another process has it.
            StoreError: the file of the lease cannot be looked at.
        """
        try:
            self._is_lost = self._is_lost or not self._is_own()
        except OSError as error:
            raise cannot("read", self.path.parent.parent, error) from None
        if self._is_lost:
            raise self._loss()

    def beat(self) -> None:
        """Write a heartbeat, which shows others that this process lives."""
        # A beat that cannot be written is left out: others wait for several, and the disk may have room again by then.
        with self._open, contextlib.suppress(OSError):
            if self._is_open and not self._is_lost:
                self._fields |= {"beat": self._fields["beat"] + 1, "beat_at": now()}
                os.pwrite(self._descriptor, _content(self._fields), 0)
                # NFS sends written data to the server only on fsync or close, and this file stays open for hours.
                os.fsync(self._descriptor)
                self._is_lost = not self._is_own()

    def follows(self, before: Path | None, content: bytes) -> bool:
        """Return whether the lease was taken in time: it is the newest, and the one before has not changed since.

        Args:
            before: the file of the generation before, whose holder counts as lost; None if there is none.
            content: what was in that file when its holder was given up.
        """
        # If not, the holder before has beaten again, or it released the key between two looks: then the generations
        # have begun anew, and another process may hold the key with a lower number.
        key, generation = parts(self.path)
        newest = max(generations(self.path.parent, key), default=0)
        return self._is_own() and newest == generation and (before is None or read(before) == content)

    def clear(self) -> None:
        """Remove the files of earlier generations, by which their holders notice that they have lost the lease."""
        key, own_generation = parts(self.path)
        for generation, path in generations(self.path.parent, key).items():
            # No holder creates a folder, and unlink() cannot remove one: `results verify` reports it instead.
            if generation < own_generation and kind_at(path) != "a folder":
                path.unlink(missing_ok=True)

    def release(self) -> None:
        """Remove the file of the lease."""
        # A file that cannot be removed does no harm: without heartbeats others take the next generation.
        with self._open, contextlib.suppress(OSError):
            self._is_open = False
            if self._is_own():
                self.path.unlink()
        os.close(self._descriptor)

    def _is_own(self) -> bool:
        """Return whether the file by that name is the one that this process created."""
        # By the inode and not by the name: after a release the generations begin anew, and with them the names.
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except OSError as error:
            # ESTALE is what NFS reports if another machine has removed the file.
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return False
            raise

    def _loss(self) -> LeaseLost:
        return LeaseLost(f"another process works on {self._fields['label']} now: it had heard nothing of this one")


def parts(path: Path) -> tuple[str, int]:
    """Return the key and generation in the name of a lease's file; generation 0 if it is another file."""
    names = _NAME.fullmatch(path.name)
    return (names[1], int(names[2])) if names else ("", 0)


def generations(folder: Path, key: str) -> dict[int, Path]:
    """Return the files of a key's lease by generation."""
    by_parts = {parts(path): path for path in files(folder)}
    return {generation: path for (owner, generation), path in by_parts.items() if owner == key}


def files(folder: Path) -> list[Path]:
    """Return all that lies in a folder of leases, sorted; nothing if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries)
    except OSError as error:
        if error.errno in NOWHERE:
            return []
        raise


def read(path: Path) -> bytes | None:
    """Return the content of a lease's file; None if there is no such file, or no longer."""
    try:
        return read_bytes(path, _MOST_BYTES)
    except FileNotFoundError:
        return None
    except DamagedFile:
        if kind_at(path):
            return NO_LEASE
    # A file that may not be read still changes with each heartbeat, by which a live holder is known too.
    try:
        return f"changed at {path.stat().st_mtime_ns}".encode()
    except FileNotFoundError:
        return None


def has_ended(content: bytes) -> bool:
    """Return whether the process that wrote this content is known to have ended."""
    return content == NO_LEASE or holder_process(readable_fields(content)).has_ended()


def parse_lease(content: bytes) -> dict[str, Any]:
    """Return the fields of a lease.

    Raises:
        ValueError: they cannot be read; with the reason.
    """
    fields = parse_checked(content, _FIELDS, _NEEDED)
    for name in [name for name in _FIELDS if name in fields]:
        kind, value = _FIELDS[name], fields[name]
        is_huge = isinstance(value, int) and abs(value) > _LARGEST_NUMBER
        if not isinstance(value, kind) or isinstance(value, bool) or is_huge:
            raise ValueError(f"its {name} is {value!r:.40}")
    # kill() takes 0 and negative numbers for groups of processes, and would answer for all of them.
    if not 0 < fields["pid"] < 2**31:
        raise ValueError(f"its pid is {fields['pid']}")
    return fields


def readable_fields(content: bytes) -> dict[str, Any]:
    """Return the fields of a lease; an empty dictionary if they cannot be read."""
    try:
        return parse_lease(content)
    except ValueError:
        return {}


def holder_process(fields: dict[str, Any]) -> ProcessIdentity:
    """Return the process that holds a lease."""
    if not fields:
        # A process without a machine is never known to have ended, so that only missing heartbeats can give it up.
        return ProcessIdentity("?", "", 0, None)
    return ProcessIdentity(fields["host"], fields["machine"], fields["pid"], fields.get("start"))


def damages(path: Path) -> Iterator[str]:
    """Yield what is wrong with a file among the leases, with the remedy."""
    key, generation = parts(path)
    if not generation:
        yield f"{path} does not belong in a store: move it away"
        return
    remedy = "if no run works here, `ddbench results clean` removes it"
    try:
        fields = parse_lease(read_bytes(path, _MOST_BYTES))
        if fields.get("key", key) != key:
            yield f"{path} is of another cell ({fields['key']!r:.80}): {remedy}"
    except FileNotFoundError:
        return  # it was released meanwhile
    except DamagedFile as damage:
        yield f"{damage}: {remedy}"
    except ValueError as error:
        yield f"{path} cannot be read ({error}): {remedy}"


def _shorten(label: str) -> str:
    """Return a label that fits into the file."""
    # Names of files may hold bytes of no encoding, which Python keeps as surrogates that UTF-8 cannot write.
    return label[:_LONGEST_LABEL].encode(errors="replace").decode()


def _content(fields: dict[str, Any]) -> bytes:
    return json.dumps(with_checksum(fields), ensure_ascii=False).encode().ljust(_SIZE)


def _create(path: Path, content: bytes) -> int | None:
    """Create a file that is whole from its first moment, and return its descriptor; None if the name is taken."""
    # link() fails if the name is taken, on NFS too, and shows the file with its content; O_EXCL shows it empty first.
    temporary = hidden_beside(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _write(descriptor, content)
        os.link(temporary, path)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, FileExistsError):
            return None
        if error.errno not in _NO_LINKS:
            raise
        return _create_in_place(path, content)
    finally:
        temporary.unlink(missing_ok=True)
    return descriptor


def _create_in_place(path: Path, content: bytes) -> int | None:
    """Create a file on a file system without hard links, and return its descriptor; None if the name is taken."""
    # A reader may see the file empty for a moment. It knows no process of it, and so waits like for any live holder.
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        _write(descriptor, content)
    except OSError:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def _write(descriptor: int, content: bytes) -> None:
    os.pwrite(descriptor, content, 0)
    os.fsync(descriptor)
