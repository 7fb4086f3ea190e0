"""One holder at a time; who died is followed, at once or when nothing was heard of it; who was asleep finds out."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.store.files.reading import with_checksum, without_checksum
from harness.store.locking import lease_file
from harness.store.locking.leases import LeaseLost, Leases
from harness.system.process_identity import ProcessIdentity

KEY = "ab" * 32


@pytest.fixture
def quick(monkeypatch):
    """A minute is 0.3 seconds."""
    monkeypatch.setattr(Leases, "beat", 0.05)
    monkeypatch.setattr(Leases, "stale_after", 0.3)
    monkeypatch.setattr(Leases, "notice_after", 0.05)


@pytest.fixture
def clock(monkeypatch):
    """Time goes on only where this thread sleeps, and what is to happen meanwhile happens then."""

    class Clock:
        now, notice_times, meanwhile, time = 0.0, [], staticmethod(lambda: None), time.time

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            if threading.current_thread() is threading.main_thread():
                self.now += seconds
                self.meanwhile()

    clock = Clock()
    monkeypatch.setattr("harness.store.locking.leases.time", clock)
    return clock


def lease_content(path):
    return without_checksum(json.loads(path.read_text()))


def files(store):
    return sorted(path.name for path in (store / "leases").iterdir())


def write(store, generation=1, **changes):
    """A lease as another process would have it, and its file."""
    with Leases(store).hold(KEY, "theirs"):
        content = lease_content(store / "leases" / f"{KEY}.1")
    path = store / "leases" / f"{KEY}.{generation}"
    path.write_text(json.dumps(with_checksum(content | changes)))
    return path


# --- one holder ------------------------------------------------------------------------------------------------------


def test_a_lease_says_who_works_on_what(tmp_path):
    leases = Leases(tmp_path)
    with leases.hold(KEY, "my cell") as lease:
        lease.check()
        (holder,) = leases.all()
        assert (holder.key, holder.label, holder.pid, holder.is_live) == (KEY, "my cell", os.getpid(), True)
        assert holder.age < 60
        assert leases.holder(KEY).pid == os.getpid()
        assert leases.leftovers() == []
        assert files(tmp_path) == [f"{KEY}.1"]
    assert leases.holder(KEY) is None
    assert files(tmp_path) == []


def test_what_is_done_is_in_the_next_heartbeat(tmp_path, quick):
    leases = Leases(tmp_path)
    beaten = threading.Event()
    with leases.hold(KEY, "my trajectory") as lease:
        beat = lease.beat
        lease.beat = lambda: (beat(), beaten.set())
        lease.report(cell="cd", label="my cell", iteration=3, total=9)
        beaten.wait(60)
        beaten.clear()
        beaten.wait(60)
        holder = leases.holder(KEY)
    assert (holder.cell, holder.label, holder.iteration, holder.total) == ("cd", "my cell", 3, 9)


def test_who_waits_gets_it_when_it_is_free_and_hears_whom_for(tmp_path, quick):
    mine, theirs = Leases(tmp_path), Leases(tmp_path)
    waits, order = threading.Event(), []

    def other():
        with theirs.hold(KEY, "theirs", on_wait=lambda holder: (order.append(str(holder)), waits.set())):
            order.append("theirs")

    with mine.hold(KEY, "mine"):
        thread = threading.Thread(target=other)
        thread.start()
        assert waits.wait(60)
        order.append("mine")
    thread.join()
    assert order == [f"{ProcessIdentity.own().host} pid {os.getpid()}", "mine", "theirs"]


def test_several_are_held_at_once(tmp_path):
    leases = Leases(tmp_path)
    with contextlib.ExitStack() as held:
        for number in range(5):
            held.enter_context(leases.hold(f"{number}-{KEY}", "mine"))
        assert len(leases.all()) == 5
    assert leases.all() == []


# --- the holder is lost ----------------------------------------------------------------------------------------------

HOLD = """
import pathlib, sys, time
from harness.store.locking.leases import LeaseLost, Leases
Leases.beat = 0.05
with Leases(pathlib.Path(sys.argv[1])).hold(sys.argv[2], "theirs") as lease:
    print("held", flush=True)
    sys.stdin.readline()
    try:
        lease.check()
    except LeaseLost as loss:
        print(loss, flush=True)
"""


@contextlib.contextmanager
def another(store):
    """Another process that holds the lease."""
    command = [sys.executable, "-c", HOLD, store, KEY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_killed_process_is_followed_at_once(tmp_path):
    with another(tmp_path) as process:
        assert Leases(tmp_path).holder(KEY).pid == process.pid
        process.kill()  # and nobody has asked for its end: it is a zombie
        with Leases(tmp_path).hold(KEY, "mine"):
            assert files(tmp_path) == [f"{KEY}.2"]
        assert files(tmp_path) == []


def test_a_sleeping_process_is_followed_and_finds_out(tmp_path, quick):
    with another(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with Leases(tmp_path).hold(KEY, "mine") as mine:
            process.send_signal(signal.SIGCONT)
            process.stdin.write("go on\n")
            process.stdin.flush()
            assert process.stdout.readline().startswith("another process works on theirs now")
            process.wait()
            mine.check()
            assert f"{KEY}.2" in files(tmp_path)


def test_a_process_of_another_machine_is_followed_when_nothing_is_heard_of_it(tmp_path, clock):
    path = write(tmp_path, machine="another", pid=1)
    with Leases(tmp_path).hold(KEY, "mine", on_wait=lambda holder: clock.notice_times.append(clock.now)):
        assert clock.notice_times[0] == pytest.approx(5, abs=1)
        assert clock.now == pytest.approx(60, abs=1)
        assert not path.exists()
    assert files(tmp_path) == []


@pytest.mark.parametrize("year", [1999, 2999])
def test_wrong_clocks_change_nothing(tmp_path, clock, year):
    """Whoever beats is live, whatever date it writes; who does not is lost, whatever date it writes."""
    path = write(tmp_path, machine="another", beat_at=f"{year}-01-01T00:00:00+00:00")
    content = lease_content(path)

    def beat():
        if clock.now < 200:
            path.write_text(json.dumps(with_checksum(content | {"beat": int(clock.now)})))
            os.utime(path, (0, 0) if year < 2000 else (2**33, 2**33))

    clock.meanwhile = beat
    with Leases(tmp_path).hold(KEY, "mine"):
        assert clock.now == pytest.approx(260, abs=2)


def test_a_pid_that_was_given_again_is_no_holder(tmp_path):
    write(tmp_path, start=1)
    with Leases(tmp_path).hold(KEY, "mine"):
        assert f"{KEY}.2" in files(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 3}'])
def test_a_file_that_cannot_be_read_is_a_holder_of_whom_nothing_is_heard(tmp_path, clock, content):
    path = write(tmp_path)
    path.write_text(content)
    assert Leases(tmp_path).holder(KEY).host == "?"
    with Leases(tmp_path).hold(KEY, "mine"):
        assert clock.now == pytest.approx(60, abs=1)


def test_a_process_of_another_user_is_not_taken_for_gone(monkeypatch):
    def refused(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert not ProcessIdentity("here", ProcessIdentity.own().machine, 1, 5).has_ended()


def test_if_the_system_knows_nothing_of_processes_only_heartbeats_count():
    assert not ProcessIdentity("here", "", 2**22 + 1, None).has_ended()


# --- the former holder comes back ------------------------------------------------------------------------------------


def replaced(store):
    (store / "leases" / f"{KEY}.1").unlink()
    (store / "leases" / f"{KEY}.1").write_text("{}")


def removed(store):
    (store / "leases" / f"{KEY}.1").unlink()


@pytest.mark.parametrize("how", [replaced, removed])
def test_a_former_holder_finds_out_and_leaves_the_new_one_alone(tmp_path, how):
    with Leases(tmp_path).hold(KEY, "mine") as lease:
        how(tmp_path)
        before = {path: path.read_text() for path in (tmp_path / "leases").iterdir() if path.read_text() == "{}"}
        with pytest.raises(LeaseLost, match="works on mine now"):
            lease.check()
        lease.beat()
    assert {path: path.read_text() for path in before} == before


@pytest.mark.parametrize("how", [replaced, removed])
def test_a_heartbeat_finds_out_too(tmp_path, how):
    with Leases(tmp_path).hold(KEY, "mine") as lease:
        how(tmp_path)
        lease.report(iteration=1)
        lease.beat()
        with pytest.raises(LeaseLost):
            lease.report(iteration=2)


@pytest.mark.parametrize("seen", ["another beat", "nothing", "a newer one"])
def test_who_looked_too_early_steps_back(tmp_path, monkeypatch, seen):
    """Between the look at a lost holder and the next generation, all may have begun anew."""
    path = write(tmp_path, start=1)
    taken = lease_file.Lease.take

    def late(*arguments):
        monkeypatch.undo()
        if seen == "nothing":
            path.unlink()
        elif seen == "another beat":
            path.write_text(json.dumps(with_checksum(lease_content(path) | {"start": 2})))
        else:
            (tmp_path / "leases" / f"{KEY}.3").write_text(path.read_text())
        return taken(*arguments)

    monkeypatch.setattr(lease_file.Lease, "take", late)
    with Leases(tmp_path).hold(KEY, "mine") as lease:
        lease.check()
        assert files(tmp_path) == [f"{KEY}.{ {'nothing': 1, 'another beat': 2, 'a newer one': 4}[seen] }"]
    assert files(tmp_path) == []


# --- file systems ----------------------------------------------------------------------------------------------------


def test_a_file_system_without_links(tmp_path, monkeypatch, quick):
    def refused(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    with Leases(tmp_path).hold(KEY, "mine") as lease:
        lease.check()
        assert lease_file.Lease.take(tmp_path / "leases" / f"{KEY}.1", "theirs", threading.Event()) is None
        assert files(tmp_path) == [f"{KEY}.1"]
    assert files(tmp_path) == []


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    says = "No space left on device; free it or choose another with --store"
    with pytest.raises(StoreError, match=says), Leases(tmp_path).hold(KEY, "mine"):
        raise AssertionError
    assert files(tmp_path) == []


def test_a_heartbeat_that_cannot_be_written_is_left_out(tmp_path, monkeypatch):
    with Leases(tmp_path).hold(KEY, "mine") as lease:
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        lease.beat()
        monkeypatch.undo()
        lease.check()
        assert Leases(tmp_path).holder(KEY).is_live


def test_holders_are_listed_where_nothing_can_be_written(tmp_path, monkeypatch):
    write(tmp_path)

    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refused)
    assert Leases(tmp_path).holder(KEY).is_live
