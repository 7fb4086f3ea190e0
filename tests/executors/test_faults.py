"""Components that crash, hang or leave processes behind: their cells fail, the others go on, and nothing is left."""

import json
from pathlib import Path

CRASHES = {
    "raise": "RuntimeError: out of luck",
    "abort": "its process was ended by SIGABRT",
    "segfault": "its process was ended by SIGSEGV",
    "exit": "ended its process with exit status 0",
    "killed": "its process was ended by SIGKILL: the system may have run out of memory",
    "cuda": "CUDA out of memory",
}


def failures(store):
    return {path.stem: json.loads(path.read_text()) for path in (store / "failures").glob("*.json")}


def kinds(store):
    return sorted(json.loads(path.read_text())["kind"] for path in (store / "cells").glob("??/*/record.json"))


def test_each_way_to_fail_is_a_failed_cell_with_its_reason_and_the_others_go_on(start, tmp_path):
    store = tmp_path / "store"
    methods = [word for how in CRASHES for word in ("-m", f"faulty[how={how}]")]
    run = start(*methods, "-m", "walk", "--iterations", "3", "--students", "2", store=store, executor="local[slots=2]")
    assert run.wait(120) == 1
    told = run.printed
    for how, reason in CRASHES.items():
        assert any("faulty" in line and reason in line for line in told.splitlines()), (how, told)
    found = failures(store)
    assert len(found) == len(CRASHES)
    assert all((store / "failures" / f"{key}.log").read_text().strip() for key in found)
    assert kinds(store) == ["distilled", "student", "student"]


def test_a_failed_cell_is_made_again_only_on_request(start, notes, tmp_path):
    store, flag = tmp_path / "store", tmp_path / "mended"
    words = ("-m", f"faulty[how=abort,unless={flag}]", "--iterations", "3", "--students", "1")
    assert start(*words, store=store, executor="local").wait(120) == 1
    flag.touch()
    before = notes()
    again = start(*words, store=store, executor="local")
    assert again.wait(120) == 1
    assert "--retry-failed" in again.printed
    assert notes() == before
    retried = start(*words, "--retry-failed", store=store, executor="local")
    assert retried.wait(120) == 0, retried.printed
    assert kinds(store) == ["distilled", "student"]


def test_a_hanging_cell_is_ended_after_its_time(start, tmp_path):
    store = tmp_path / "store"
    words = ("-m", "faulty[how=hang]", "-m", "walk", "--iterations", "3", "--students", "1", "--timeout", "2")
    run = start(*words, store=store, executor="local[slots=2]")
    assert run.wait(120) == 1
    (failure,) = failures(store).values()
    assert failure["reason"] == "took longer than --timeout 2 s"
    assert kinds(store) == ["distilled", "student"]


def test_processes_that_a_method_leaves_behind_are_ended(start, site, tmp_path):
    store = tmp_path / "store"
    words = ("-m", "faulty[how=children]", "--iterations", "3", "--students", "1")
    run = start(*words, store=store, executor="local")
    assert run.wait(120) == 0, run.printed
    assert "left 2 processes behind" in run.printed
    assert not [pid for pid in running() if str(site) in environment_of(pid) and b"left-behind" in command_of(pid)]


def test_a_student_that_aborts_its_process_takes_no_other_with_it(start, tmp_path):
    store = tmp_path / "store"
    words = ("-m", "walk", "--iterations", "1", "--students", "4", "-e", "guess[fails=1]")
    run = start(*words, store=store, executor="local")
    assert run.wait(120) == 1
    (failure,) = failures(store).values()
    assert "student 1 on" in failure["label"]
    assert "SIGABRT" in failure["reason"]
    assert kinds(store) == ["distilled"] + 7 * ["student"]  # the quiet evaluator's 4, and 3 of the failing one's


def test_a_timeout_needs_a_process(start, tmp_path):
    run = start("-m", "walk", "--timeout", "2", store=tmp_path / "store", executor="inline")
    assert run.wait(60) == 2
    assert run.printed.splitlines()[-1].endswith("leave out --executor inline")


def running():
    return [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]


def environment_of(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
