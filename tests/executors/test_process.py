"""An order's command as a process."""

import os
import pickle
import signal

import pytest
from executors.orders import KEEPS, order, wait_until

from harness.executors import command_process as processes
from harness.executors.command_process import Command


@pytest.fixture
def started(tmp_path):
    """Start a program; it is ended when the test is."""
    processes = []

    def started(program):
        command = Command.of(order(tmp_path, program), threads=3)
        processes.append(pickle.loads(pickle.dumps(command)).start())
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.wait()


def log(tmp_path):
    return (tmp_path / "job.log").read_text()


@pytest.mark.parametrize(("program", "status"), [("raise SystemExit(3)", 3), ("import os; os.abort()", 134)])
def test_exit_status_is_as_a_shell_reports_it(started, program, status):
    assert started(program).wait() == status


def test_variables_that_matter_and_the_folder_go_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_DATA", "there")
    monkeypatch.setenv("SOMETHING_ELSE", "stays")
    command = Command.of(order(tmp_path, "import os; print(os.getcwd(), os.environ['OMP_NUM_THREADS'])"), 3)
    assert command.environment["DDBENCH_DATA"] == "there"
    assert "SOMETHING_ELSE" not in command.environment
    assert command.start().wait() == 0
    assert log(tmp_path) == f"{os.getcwd()} 3\n"


def test_it_keeps_what_it_has_when_it_is_asked(started, tmp_path):
    process = started(KEEPS)
    wait_until((tmp_path / "job.mark").exists)
    assert process.wait_for(0.1) is None
    process.stop()
    assert process.wait() == 130
    assert log(tmp_path) == "kept\n"
    process.stop(at_once=True)


def test_signals_that_are_blocked_here_reach_it(started, tmp_path):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = started(KEEPS)
        wait_until((tmp_path / "job.mark").exists)
        process.stop()
        assert process.wait() == 130
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_it_hears_sigint_if_this_process_ignores_it(started, tmp_path, sigint_ignored):
    process = started("import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)")
    wait_until((tmp_path / "job.mark").exists)
    process.stop()
    assert process.wait() == 128 + signal.SIGINT


def test_it_imports_from_relative_paths_as_this_process_does_and_not_safely_unasked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"plugins{os.pathsep}")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    command = Command.of(order(tmp_path, ""), 1)
    assert command.environment["PYTHONPATH"] == f"{tmp_path / 'plugins'}{os.pathsep}{tmp_path}"
    assert command.environment["PYTHONSAFEPATH"] == ""


def test_what_is_meant_for_whoever_started_it_does_not_end_it(started, tmp_path):
    process = started(KEEPS)
    wait_until((tmp_path / "job.mark").exists)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.kill(process.pid, number)
    assert process.wait_for(0.2) is None
    process.stop()
    assert process.wait() == 130


def test_who_does_not_listen_is_ended(started, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.1)
    deaf = KEEPS.replace("keep)", "signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process = started(deaf)
    wait_until((tmp_path / "job.mark").exists)
    process.stop(at_once=True)
    assert process.wait() == 128 + signal.SIGKILL


def test_what_cannot_be_started_is_reported_in_the_log(tmp_path):
    command = Command(("/no/such/program",), tmp_path / "logs" / "job.log", {}, tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        command.start()
    assert "No such file or directory: '/no/such/program'" in (tmp_path / "logs" / "job.log").read_text()
