"""One lease: a file ``KEY.G`` that its holder made, keeps open, and writes a beat into every few seconds."""

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
"""Of a lease's file, padded: one write replaces all of it, so that nobody reads the end of an older one."""
_LABEL = 300
_MOST = 2**16
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
_LARGEST = 2**62
_NAME = re.compile(r"([^.].*)\.([1-9][0-9]{0,17})", re.ASCII | re.DOTALL)
NO_LEASE = b"no lease"
"""In place of the content of what is no plain file, and was made by no holder."""
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)


class LeaseLost(DDBenchError):
    """Somebody else has taken over what this process worked on: this one must not commit it."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes:
        label: what is worked on, for people.
        started: when it was taken, by the holder's clock.
        cell: the key of the cell in the making, with its iteration of so many where it has some.
        age: seconds since the last heartbeat, by the clock of the file system.
        is_live: its process has not ended, as far as can be told, and its heart beats.
        seconds: since it was taken, by the holder's clock.
        seconds_left: until the last iteration, at the pace since the first; None where nothing is known.
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
    """What a process holds, until it releases it, or somebody takes the next generation and removes its file.

    Its file stays open: a holder that was asleep writes into the file that it made, never into a later one.
    """

    def __init__(self, path: Path, descriptor: int, told: dict[str, Any], wake: threading.Event) -> None:
        self.path = path
        self._descriptor, self._told, self._wake = descriptor, told, wake
        self._open = threading.Lock()
        self._is_open, self._is_lost = True, False

    @classmethod
    def taken(cls, path: Path, label: str, wake: threading.Event) -> "Lease | None":
        """The lease of a path; None where somebody else has made the file.

        Args:
            path: ``KEY.G``.
            label: what is worked on, for people.
            wake: is set where there is something to tell before the next heartbeat is due.
        """
        told = {
            "schema": SCHEMA,
            "key": parts(path)[0],
            "label": _shortened(label),
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
        descriptor = _made(path, _content(told))
        return None if descriptor is None else cls(path, descriptor, told, wake)

    def tell(
        self,
        *,
        cell: str | None = None,
        label: str | None = None,
        iteration: int | None = None,
        total: int | None = None,
    ) -> None:
        """Have the next heartbeat say what is done now; another cell is told soon.

        Raises:
            LeaseLost: the last heartbeat found that somebody else has it.
        """
        if self._is_lost:
            raise self._loss()
        is_new = cell is not None and cell != self._told["cell"]
        if is_new:
            self._told |= {"iteration": None, "total": None}
        if iteration is not None and self._told["iteration"] is None:
            self._told |= {"first": iteration, "first_at": now()}
        given = {"cell": cell, "label": label and _shortened(label), "iteration": iteration, "total": total}
        self._told |= {name: value for name, value in given.items() if value is not None}
        if is_new:
            self._wake.set()

    def check(self) -> None:
        """Make sure that it is still held: to be called right before anything is committed.

        Raises:
            LeaseLost: somebody else has it.
            StoreError: that cannot be found out.
        """
        try:
            self._is_lost = self._is_lost or not self._is_own()
        except OSError as error:
            raise cannot("read", self.path.parent.parent, error) from None
        if self._is_lost:
            raise self._loss()

    def beat(self) -> None:
        """Tell that this process lives. A beat that cannot be written is left out: others wait for several."""
        with self._open, contextlib.suppress(OSError):
            if self._is_open and not self._is_lost:
                self._told |= {"beat": self._told["beat"] + 1, "beat_at": now()}
                os.pwrite(self._descriptor, _content(self._told), 0)
                os.fsync(self._descriptor)
                self._is_lost = not self._is_own()

    def follows(self, before: Path | None, content: bytes) -> bool:
        """Whether it was made in time: no other is newer, and the one before is as it was when it was found lost.

        Else the generations have begun anew between two looks at them, and somebody else may hold the key.
        """
        key, generation = parts(self.path)
        newest = max(generations(self.path.parent, key), default=0)
        return self._is_own() and newest == generation and (before is None or read(before) == content)

    def clear(self) -> None:
        """Remove the generations before: by that their holders, should they come back, know that they have lost it."""
        key, generation = parts(self.path)
        for one, path in generations(self.path.parent, key).items():
            if one < generation and kind_at(path) != "a folder":  # which no holder made: `results verify` names it
                path.unlink(missing_ok=True)

    def release(self) -> None:
        """Remove it. What cannot be removed goes stale."""
        with self._open, contextlib.suppress(OSError):
            self._is_open = False
            if self._is_own():
                self.path.unlink()
        os.close(self._descriptor)

    def _is_own(self) -> bool:
        """Whether the file by that name is the one that was made: the generations may have begun anew."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return False
            raise

    def _loss(self) -> LeaseLost:
        return LeaseLost(f"another process works on {self._told['label']} now: it had heard nothing of this one")


def parts(path: Path) -> tuple[str, int]:
    """Key and generation in the name of a lease's file; generation 0 if it is none."""
    names = _NAME.fullmatch(path.name)
    return (names[1], int(names[2])) if names else ("", 0)


def generations(folder: Path, key: str) -> dict[int, Path]:
    """The files of a key's lease."""
    found = {parts(path): path for path in files(folder)}
    return {generation: path for (one, generation), path in found.items() if one == key}


def files(folder: Path) -> list[Path]:
    """All that lies there, in order; nothing if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries)
    except OSError as error:
        if error.errno in NOWHERE:
            return []
        raise


def read(path: Path) -> bytes | None:
    """What a holder wrote; None if there is no such file, or no longer.

    Of a file that may not be read it is the time of its last change, by which a live holder is known too.
    """
    try:
        return read_bytes(path, _MOST)
    except FileNotFoundError:
        return None
    except DamagedFile:
        if kind_at(path):
            return NO_LEASE
    try:
        return f"changed at {path.stat().st_mtime_ns}".encode()
    except FileNotFoundError:
        return None


def has_ended(content: bytes) -> bool:
    """Whether whoever wrote this is known to hold nothing any more."""
    return content == NO_LEASE or process_in(told_in(content)).has_ended()


def parse_lease(content: bytes) -> dict[str, Any]:
    """What a holder wrote of itself.

    Raises:
        ValueError: that cannot be read; with the reason.
    """
    told = parse_checked(content, _FIELDS, _NEEDED)
    for name in [name for name in _FIELDS if name in told]:
        kind, value = _FIELDS[name], told[name]
        if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and abs(value) > _LARGEST):
            raise ValueError(f"its {name} is {value!r:.40}")
    if not 0 < told["pid"] < 2**31:
        raise ValueError(f"its pid is {told['pid']}")
    return told


def told_in(content: bytes) -> dict[str, Any]:
    """What a holder wrote of itself; nothing if that cannot be read."""
    try:
        return parse_lease(content)
    except ValueError:
        return {}


def process_in(told: dict[str, Any]) -> ProcessIdentity:
    """The holder's process; if nothing is known of it, one that nobody can say has ended."""
    if not told:
        return ProcessIdentity("?", "", 0, None)
    return ProcessIdentity(told["host"], told["machine"], told["pid"], told.get("start"))


def damages(path: Path) -> Iterator[str]:
    """What is wrong with what lies among the leases, with the remedy."""
    key, generation = parts(path)
    if not generation:
        yield f"{path} is no part of a store: move it away"
        return
    remedy = "if no run works here, `ddbench results clean` removes it"
    try:
        told = parse_lease(read_bytes(path, _MOST))
        if told.get("key", key) != key:
            yield f"{path} is of another cell ({told['key']!r:.80}): {remedy}"
    except FileNotFoundError:
        return  # it was released meanwhile
    except DamagedFile as damage:
        yield f"{damage}: {remedy}"
    except ValueError as error:
        yield f"{path} cannot be read ({error}): {remedy}"


def _shortened(label: str) -> str:
    """What fits into the file, without what is in no encoding, as the names of files may be."""
    return label[:_LABEL].encode(errors="replace").decode()


def _content(told: dict[str, Any]) -> bytes:
    return json.dumps(with_checksum(told), ensure_ascii=False).encode().ljust(_SIZE)


def _made(path: Path, content: bytes) -> int | None:
    """The descriptor of a file that is made now, whole from its first moment; None where there is one of that name."""
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
        return _made_in_place(path, content)
    finally:
        temporary.unlink(missing_ok=True)
    return descriptor


def _made_in_place(path: Path, content: bytes) -> int | None:
    """The same where the file system knows no links: who reads it too early finds it empty, and waits."""
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
