"""Leases: who works on what in a store, so that several runs do nothing twice, and one goes on where another died.

``leases/KEY.G`` is generation G of the lease of a key; who made the highest one holds it. A file can be made only where
there is none of its name, so of two that want the same generation one gets it. The holder writes a new beat into it
every few seconds. Who waits for a key takes the next generation as soon as the holder's process has ended, which is
known at once on the same machine; else when no beat has come for a minute of the waiter's own clock: the clocks of two
machines are never compared. A holder that was only asleep finds its file gone, and gives up.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.store.locking import pace
from harness.store.locking.lease_file import NO_LEASE, files, generations, has_ended, parts, process_in, read, told_in
from harness.store.locking.lease_file import Holder as Holder
from harness.store.locking.lease_file import Lease as Lease
from harness.store.locking.lease_file import LeaseLost as LeaseLost
from harness.store.store_errors import cannot
from harness.system import interrupts
from harness.system.whole_files import hidden_beside

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0
Hear = Callable[[Holder], object]


class Leases:
    """The leases of one store.

    Attributes:
        beat: seconds between heartbeats.
        stale_after: seconds without one after which a holder counts as lost.
        tell_after: seconds of waiting after which it is told whom one waits for.
    """

    beat: float = 10.0
    stale_after: float = 60.0
    tell_after: float = 5.0

    def __init__(self, store: Path) -> None:
        self._store, self.folder = store, store / "leases"
        self._held: set[Lease] = set()
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._heart: threading.Thread | None = None

    @contextlib.contextmanager
    def hold(self, key: str, label: str, on_wait: Hear | None = None) -> Iterator[Lease]:
        """Wait until nobody else holds the key, and hold it. What was to be done may be done then: look again.

        Args:
            key: of letters, digits and dashes.
            label: what is to be done, for people.
            on_wait: is told of the holder, once, where the waiting takes long.

        Raises:
            StoreError: the store cannot be written.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            lease = self._acquired(key, label, on_wait)
        except OSError as error:
            raise cannot("write to", self._store, error) from None
        self._keep(lease)
        try:
            yield lease
        finally:
            with self._lock:
                self._held.discard(lease)
            lease.release()

    def holder(self, key: str) -> Holder | None:
        """Who holds a key now; nobody where the holder is lost."""
        return next((holder for holder in self.all() if holder.key == key and holder.is_live), None)

    def all(self) -> list[Holder]:
        """All holders by key, those that are lost too."""
        newest = self._newest()
        clock = self._clock() if newest else 0.0
        found = (self._holder(key, path, clock) for key, path in newest.items())
        return [holder for holder in found if holder]

    def leftovers(self) -> list[Path]:
        """Files by which nobody holds a lease."""
        live = {holder.key for holder in self.all() if holder.is_live}
        kept = {path for key, path in self._newest().items() if key in live}
        return [path for path in files(self.folder) if path not in kept]

    def _acquired(self, key: str, label: str, on_wait: Hear | None) -> Lease:
        begun, pause = time.monotonic(), _FIRST_WAIT
        seen, since = b"", begun
        while True:
            made = generations(self.folder, key)
            newest = max(made, default=0)
            content = read(made[newest]) if made else b""
            if content is None:
                continue  # released just now
            now = time.monotonic()
            if content != seen:
                seen, since = content, now
            if not made or now - since >= self.stale_after or has_ended(content):
                lease = self._taken(key, newest, content, label)
                if lease:
                    return lease
                continue
            if on_wait and now - begun >= self.tell_after:
                holder = self._holder(key, made[newest], self._clock())
                if holder:
                    on_wait(holder)
                on_wait = None
            interrupts.heed()
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_WAIT)

    def _taken(self, key: str, newest: int, content: bytes, label: str) -> Lease | None:
        """The generation after the newest, unless somebody else was quicker."""
        lease = Lease.taken(self.folder / f"{key}.{newest + 1}", label, self._wake)
        if lease is None:
            return None
        try:
            if lease.follows(self.folder / f"{key}.{newest}" if newest else None, content):
                lease.clear()
                return lease
        except OSError:
            lease.release()
            raise
        lease.release()
        return None

    def _keep(self, lease: Lease) -> None:
        with self._lock:
            self._held.add(lease)
            if self._heart is None:
                self._heart = threading.Thread(target=self._beat_on, name="ddbench heartbeat", daemon=True)
                self._heart.start()

    def _beat_on(self) -> None:
        """Beat for all leases that are held, until there are none."""
        while True:
            self._wake.wait(self.beat)
            self._wake.clear()
            with self._lock:
                held = list(self._held)
                if not held:
                    self._heart = None
                    return
            for lease in held:
                lease.beat()
            time.sleep(min(1.0, self.beat / 2))  # cells of milliseconds are not told one by one

    def _newest(self) -> dict[str, Path]:
        """The file of the highest generation of every key."""
        found = sorted((parts(path), path) for path in files(self.folder))
        return {key: path for (key, generation), path in found if generation}

    def _holder(self, key: str, path: Path, clock: float) -> Holder | None:
        """The holder that wrote this lease file; None if the lease was released meanwhile, or no holder made it."""
        try:
            content, beaten = read(path), path.lstat().st_mtime
        except FileNotFoundError:
            return None
        if content is None or content == NO_LEASE:
            return None
        told = told_in(content)
        process = process_in(told)
        age = max(0.0, clock - beaten)
        return Holder(
            key=key,
            label=str(told.get("label") or ""),
            host=process.host,
            pid=process.pid,
            started=str(told.get("started") or ""),
            cell=told.get("cell"),
            iteration=told.get("iteration"),
            total=told.get("total"),
            age=age,
            is_live=age < self.stale_after and not process.has_ended(),
            seconds=pace.seconds_since(told, "started") + age,
            seconds_left=pace.seconds_left(told, age),
        )

    def _clock(self) -> float:
        """The time of the file system that dates the heartbeats; our own where it cannot be asked."""
        probe = hidden_beside(self.folder / "clock")
        try:
            probe.touch()
            return probe.stat().st_mtime
        except OSError:
            return time.time()
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
