"""Components that crash, hang or leave processes behind: their cells fail, the others go on, and nothing is left."""

import json
from pathlib import Path

import pytest
from studies import records

CRASHES = {
    "raise": "RuntimeError: out of luck",
    "abort": "its process was ended by SIGABRT",
    "segfault": "its process was ended by SIGSEGV",
    "exit": "ended its process with exit status 0",
    "killed": "its process was ended by SIGKILL: the system may have run out of memory",
    "cuda": "CUDA out of memory",
    "hang": "took longer than --timeout 10 s",
}
STUDENTS = 3


class Faults:
    """One run of methods and an evaluator that fail until a file is there, and what became of it."""

    def __init__(self, start, folder):
        self.store, self.mended, self._start = folder / "store", folder / "mended", start
        methods = [f"faulty[how={how},unless={self.mended}]" for how in (*CRASHES, "children")]
        self.words = [word for method in [*methods, "walk"] for word in ("-m", method)]
        self.words += ["-e", f"guess[fails=1,unless={self.mended}]", "--iterations", "3", "--timeout", "10"]
        self.words += ["--students", STUDENTS]

    def run(self, *more):
        run = self._start(*self.words, *more, store=self.store, executor="local[slots=2]")
        return run.wait(), run.printed


@pytest.fixture(scope="module")
def faults(launchers, tmp_path_factory):
    return Faults(launchers.start, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def first(faults):
    """The exit status, what was printed, and the failures by label."""
    status, printed = faults.run()
    failures = [json.loads(path.read_text()) for path in (faults.store / "failures").glob("*.json")]
    return status, printed, {failure["label"]: failure for failure in failures}


@pytest.fixture(scope="module")
def second(faults, first):
    """The same command once more, when nothing would fail any longer."""
    faults.mended.touch()
    return faults.run()


@pytest.fixture(scope="module")
def third(faults, second):
    """Once more, with failed cells made again."""
    return faults.run("--retry-failed")


@pytest.mark.parametrize("how", CRASHES)
def test_each_way_to_fail_is_a_failed_cell_with_its_reason_and_log(first, faults, how):
    status, printed, failures = first
    assert status == 1
    (failure,) = [
        failure for label, failure in failures.items() if f"how={how}," in label or label_of_default(how, label)
    ]
    assert CRASHES[how] in failure["reason"]
    assert failure["kind"] == "distilled"
    assert f"FAILED   {failure['label']}" in printed
    assert (faults.store / "failures" / f"{failure['key']}.log").read_text().strip()


def label_of_default(how, label):
    return how == "raise" and label.startswith("faulty[unless=")


def test_the_others_go_on(first, faults):
    _, _, failures = first
    sound = [record for record in records(faults.store).values() if record["kind"] == "distilled"]
    assert {record["result"]["method"].partition("[")[0] for record in sound} >= {"walk", "faulty"}
    assert len(failures) == len(CRASHES) + 2, "the method's, and the evaluator's on the two sets that are there"


def test_a_student_that_aborts_its_process_takes_no_other_with_it(first):
    _, _, failures = first
    aborted = [failure for failure in failures.values() if failure["kind"] == "student"]
    assert all("SIGABRT" in failure["reason"] and "student 1 on" in failure["label"] for failure in aborted)
    assert len(aborted) == 2


def test_processes_that_a_method_leaves_behind_are_ended(first, site):
    _, printed, _ = first
    assert "left 2 processes behind: they were ended" in printed
    assert not [path for path in Path("/proc").glob("[0-9]*") if is_left_behind(path, str(site))]


def is_left_behind(process, mark):
    try:
        command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
    except OSError:
        return False
    return b"left-behind" in command and mark.encode() in environment


def test_failed_cells_are_not_made_again_unasked(second, first):
    status, printed = second
    _, _, failures = first
    assert status == 1
    assert f"{len(failures)} cells failed before: --retry-failed tries them again" in printed
    assert "started" not in printed


def test_failed_cells_are_made_on_request_and_no_other_again(third, faults):
    status, printed = third
    assert status == 0, printed
    attempts = [name.rpartition("-")[2] for name in records(faults.store)]
    assert set(attempts) == {"1"}
    sets = len(CRASHES) + 2
    assert len(attempts) == sets + 2 * sets * STUDENTS


def test_a_timeout_needs_a_process(start, tmp_path):
    run = start("-m", "walk", "--timeout", "2", store=tmp_path / "store", executor="inline")
    assert run.wait() == 2
    assert run.printed.splitlines()[-1].endswith("leave out --executor inline")
