"""Leases: which process works on what in a store, so that several runs do nothing twice, and one replaces a dead one.

``leases/KEY.G`` is generation G of the lease of a key; the process that created the highest one holds it. A file can be
created only if there is none of its name, so of two processes that want the same generation one gets it. The holder
writes a heartbeat into it every few seconds. A process that waits for a key takes the next generation as soon as the
holder's process has ended, which is known at once on the same machine; on another machine when no heartbeat has come
for a minute of the waiter's own clock: the clocks of two machines are never compared. A holder that was only asleep
finds its file gone, and gives up.
"""

import contextlib
import datetime
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.store.locking.lease_file import (
    NO_LEASE,
    files,
    generations,
    has_ended,
    holder_process,
    parts,
    read,
    readable_fields,
)
from harness.store.locking.lease_file import Holder as Holder
from harness.store.locking.lease_file import Lease as Lease
from harness.store.locking.lease_file import LeaseLost as LeaseLost
from harness.store.store_errors import cannot
from harness.system import interrupts
from harness.system.whole_files import hidden_beside

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0
OnWait = Callable[[Holder], object]


class Leases:
    """The leases of one store.

    Attributes:
        beat: seconds between heartbeats.
        stale_after: seconds without a heartbeat after which a holder counts as lost.
        notice_after: seconds of waiting after which the user learns who holds the lease.
    """

    beat: float = 10.0
    # Six heartbeats: NFS clients may show a file as it was a minute ago (acregmax), and disks stall for seconds.
    stale_after: float = 60.0
    notice_after: float = 5.0

    def __init__(self, store: Path) -> None:
        self._store, self.folder = store, store / "leases"
        self._held: set[Lease] = set()
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._heart: threading.Thread | None = None

    @contextlib.contextmanager
    def hold(self, key: str, label: str, on_wait: OnWait | None = None) -> Iterator[Lease]:
        """Wait until no other process holds the key, and hold it. The work may be done by then: look again.

        Args:
            key: of letters, digits and dashes.
            label: what is to be done, for people.
            on_wait: called with the holder, once, if the waiting takes long.

        Raises:
            StoreError: the store cannot be written.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            lease = self._acquire(key, label, on_wait)
        except OSError as error:
            raise cannot("write to", self._store, error) from None
        self._beat_for(lease)
        try:
            yield lease
        finally:
            # Out of the set first, so that the heart does not write into a lease that is being released.
            with self._lock:
                self._held.discard(lease)
            lease.release()

    def holder(self, key: str) -> Holder | None:
        """Return the live holder of a key; None if there is none."""
        return next((holder for holder in self.all() if holder.key == key and holder.is_live), None)

    def all(self) -> list[Holder]:
        """Return all holders by key, lost ones too."""
        newest = self._newest()
        # Without a lease the store is not touched: whoever only reads it may have no right to write the probe.
        clock = self._clock() if newest else 0.0
        holders = (self._holder(key, path, clock) for key, path in newest.items())
        return [holder for holder in holders if holder]

    def leftovers(self) -> list[Path]:
        """Return the files among the leases by which no process holds anything."""
        live = {holder.key for holder in self.all() if holder.is_live}
        in_use = {path for key, path in self._newest().items() if key in live}
        return [path for path in files(self.folder) if path not in in_use]

    def _acquire(self, key: str, label: str, on_wait: OnWait | None) -> Lease:
        # The monotonic clock, because the clock on the wall may jump: a jump must neither rob a live holder nor keep
        # a dead one. Only the waiter's own clock counts; what the holder's clock says is never compared with it.
        begun, pause = time.monotonic(), _FIRST_WAIT
        last_content, changed_at = b"", begun
        while True:
            by_generation = generations(self.folder, key)
            newest = max(by_generation, default=0)
            content = read(by_generation[newest]) if by_generation else b""
            if content is None:
                continue  # released just now
            now = time.monotonic()
            if content != last_content:
                last_content, changed_at = content, now
            if not by_generation or now - changed_at >= self.stale_after or has_ended(content):
                lease = self._take(key, newest, content, label)
                if lease:
                    return lease
                continue  # another waiter was quicker, and is the one to wait for from now on
            if on_wait and now - begun >= self.notice_after:
                holder = self._holder(key, by_generation[newest], self._clock())
                if holder:
                    on_wait(holder)
                on_wait = None
            interrupts.heed()
            time.sleep(pause)
            # Short cells are waited for closely, while hours of waiting put no load on a shared file system.
            pause = min(1.5 * pause, _LONGEST_WAIT)

    def _take(self, key: str, newest: int, content: bytes, label: str) -> Lease | None:
        """Take the generation of a lease after the newest; None if another process was quicker."""
        lease = Lease.take(self.folder / f"{key}.{newest + 1}", label, self._wake)
        if lease is None:
            return None
        try:
            # The file is there, but the look that led to it is old: only a second look shows that nobody came between.
            if lease.follows(self.folder / f"{key}.{newest}" if newest else None, content):
                lease.clear()
                return lease
        except OSError:
            lease.release()
            raise
        lease.release()
        return None

    def _beat_for(self, lease: Lease) -> None:
        """Have heartbeats written for a lease, by one thread for all leases of this process."""
        with self._lock:
            self._held.add(lease)
            if self._heart is None:
                # A daemon, for the process must be able to end: a lease that it leaves behind is known to be dead.
                self._heart = threading.Thread(target=self._beat_on, name="ddbench heartbeat", daemon=True)
                self._heart.start()

    def _beat_on(self) -> None:
        """Write heartbeats for all leases that are held, until there are none."""
        while True:
            self._wake.wait(self.beat)
            self._wake.clear()
            with self._lock:
                held = list(self._held)
                if not held:
                    # Under the same lock as the start: else a lease could be added to a thread that is about to end.
                    self._heart = None
                    return
            for lease in held:
                lease.beat()
            # Each beat is an fsync: a run whose cells take milliseconds wakes this thread at every one of them.
            time.sleep(min(1.0, self.beat / 2))

    def _newest(self) -> dict[str, Path]:
        """Return the file of the highest generation of every key."""
        by_parts = sorted((parts(path), path) for path in files(self.folder))
        return {key: path for (key, generation), path in by_parts if generation}

    def _holder(self, key: str, path: Path, clock: float) -> Holder | None:
        """Return the holder that wrote this lease file; None if it was released meanwhile, or no holder created it."""
        try:
            content, beaten = read(path), path.lstat().st_mtime
        except FileNotFoundError:
            return None
        if content is None or content == NO_LEASE:
            return None
        fields = readable_fields(content)
        process = holder_process(fields)
        age = max(0.0, clock - beaten)
        return Holder(
            key=key,
            label=str(fields.get("label") or ""),
            host=process.host,
            pid=process.pid,
            started=str(fields.get("started") or ""),
            cell=fields.get("cell"),
            iteration=fields.get("iteration"),
            total=fields.get("total"),
            age=age,
            is_live=age < self.stale_after and not process.has_ended(),
            seconds=_seconds_since(fields, "started") + age,
            seconds_left=seconds_left(fields, age),
        )

    def _clock(self) -> float:
        """Return the time of the file system that dates the heartbeats; of this machine if it cannot be asked."""
        # On NFS the server dates files by its own clock, which may be minutes off ours: a new file shows its time.
        probe = hidden_beside(self.folder / "clock")
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()


def seconds_left(fields: Mapping[str, Any], age: float) -> float | None:
    """Return the seconds until the last iteration, at the pace since the first reported one; None if unknown.

    Args:
        fields: of the lease.
        age: seconds since the last heartbeat.
    """
    first, iteration, total = (fields.get(name) for name in ("first", "iteration", "total"))
    seconds = _seconds_since(fields, "first_at")
    if not (isinstance(first, int) and isinstance(iteration, int) and isinstance(total, int)):
        return None
    if iteration <= first or not seconds:
        return None
    return max(0.0, (total - iteration) * seconds / (iteration - first) - age)


def _seconds_since(fields: Mapping[str, Any], name: str) -> float:
    """Return the seconds from the time in a field to the last heartbeat; 0 if one of them cannot be read."""
    # Both times are by the holder's clock, so that it does not matter if it is wrong.
    try:
        then, beat = (datetime.datetime.fromisoformat(fields[field]) for field in (name, "beat_at"))
        return max(0.0, (beat - then).total_seconds())
    except (KeyError, TypeError, ValueError):
        return 0.0
