"""The command that measures speed: it ends, states units, and times another implementation beside ours.

Some tests run it as users do. The others run it in this process, and its measurements too: that each measurement has a
process of its own is not their point, and every process imports torch.
"""

import contextlib
import functools
import importlib
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from harness.compute.compiling import set_compilation

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
TIMED = SPEED / "timed"
WHAT = "dc[batch_real=2,inner=2], ipc 1, fp32"
TOY = """
import json, sys
for _ in range(int(sys.argv[3])):
    print("chatter"), print(json.dumps({"seconds": 1000 if sys.argv[1] == "dc" else 0.5}))
"""


def measure_as_users_do(folder, *words):
    command = [sys.executable, SPEED / "measure.py", "--quick", "--output", folder, *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@contextlib.contextmanager
def modules_of(*folders):
    """The modules of some folders can be imported by their names, and are forgotten afterwards."""
    names = {path.stem for folder in (SPEED, TIMED) for path in folder.glob("*.py")}
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    path = list(sys.path)
    sys.path[:0] = map(str, folders)
    try:
        yield
    finally:
        sys.path[:] = path
        if subjects := sys.modules.get("subjects"):
            subjects.LINES.close()  # which is open as long as a process that times something
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


@functools.cache
def rates_of_the_machine(script, request):
    """Measured once by all that ask for the same: no test is about two measurements of them."""
    return lines_in_this_process(script, request)


def lines_in_this_process(script, request):
    """The lines that one of our own measurements prints."""
    arguments, printed = sys.argv, io.StringIO()
    sys.argv = [script, request]
    try:
        with modules_of(TIMED):
            subjects = importlib.import_module("subjects")
            subjects.LINES.close()
            subjects.LINES = printed
            runpy.run_path(script, run_name="__main__")
            return [json.loads(line) for line in printed.getvalue().splitlines()]
    finally:
        sys.argv = arguments


@contextlib.contextmanager
def as_a_process():
    """Compute on one core, and undo afterwards what a measurement sets for its process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
        set_compilation("never")


def measure(folder, *words):
    """Run the command with ``--quick`` in this process."""
    with as_a_process(), modules_of(SPEED):
        processes = importlib.import_module("processes")
        in_a_process = processes.lines_of

        def lines_of(name, words):
            if words[0] != sys.executable or Path(words[1]).parent != TIMED:
                return in_a_process(name, words)
            of_machine = Path(words[1]).stem == "roofline"
            return (rates_of_the_machine if of_machine else lines_in_this_process)(*words[1:])

        processes.lines_of = lines_of
        command = importlib.import_module("measure").main
        return CliRunner().invoke(command, ["--quick", "--output", str(folder), *words])


def profile(*words):
    """Run the command that profiles in this process."""
    with as_a_process(), modules_of(SPEED):
        return CliRunner().invoke(importlib.import_module("profiled").main, words)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.py"
    path.write_text(TOY)
    return f"{sys.executable} {path}"


@pytest.fixture(scope="module")
def steps(toy, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    other = f"toy={toy} {{method}} {{ipc}} {{count}}"
    words = ("--dataset", f"arrays[path={data}]", "--only", "steps", "--ipc", "1", "--computed-ipc", "2")
    done = measure(folder, *words, "--other", other)
    assert done.exit_code == 0, done.output
    written = json.loads((folder / "speed.json").read_text())
    assert (folder / "speed.md").read_text() == done.stdout
    return written, {(f["what"], f["name"]): f for f in written["figures"]}


def test_every_number_has_a_unit_and_the_machine_is_named(steps):
    written, figures = steps
    assert {"cpu", "cores", "threads of torch", "torch", "memory settings", "compiler"} <= {*written["machine"]}
    assert not [value for value in written["machine"].values() if not isinstance(value, str)]
    assert {figure["unit"] for figure in figures.values()} <= {"s", "ms", "GFLOP/s", "times", "%"}


def test_steps_are_measured_beside_the_limit_of_the_machine(steps):
    _, figures = steps
    least, times = figures[WHAT, "convolutions at least"], figures[WHAT, "ddbench / convolutions"]
    assert times["value"] * least["value"] == pytest.approx(figures[WHAT, "ddbench"]["value"])
    # ConvNet on 16x16: convolutions of 9 1 128 256, 9 128^2 64 and 9 128^2 16 products, then 4 128 3
    forward = 2 * (9 * 128 * 256 + 9 * 128**2 * 64 + 9 * 128**2 * 16 + 4 * 128 * 3)
    passes = 3 * 3 * 2 + 9 * 3
    rate = figures[WHAT, "rate"]["value"] * figures[WHAT, "ddbench"]["value"]
    assert rate == pytest.approx(forward * passes / 1e9)


def test_medians_have_their_extremes(steps):
    _, figures = steps
    ours = figures[WHAT, "ddbench"]
    assert ours["count"] == 3
    assert 0 < ours["low"] <= ours["value"] <= ours["high"]


def test_the_parts_of_a_long_iteration_are_added_up(steps):
    _, figures = steps
    what = WHAT.replace("ipc 1", "ipc 2")
    matching, epoch = (figures[what, name]["value"] for name in ("one matching", "one inner epoch"))
    assert figures[what, "computed from parts"]["value"] == pytest.approx(2 * matching + 2 * epoch)
    shares = [figures[what, name]["value"] for name in ("all matching", "all inner loops")]
    assert sum(shares) == pytest.approx(100)
    assert "count" not in figures[what, "computed from parts"]


def test_an_experts_epoch_is_shown(steps):
    _, figures = steps
    (epoch,) = (figure for (_, name), figure in figures.items() if name.startswith("an epoch of an expert"))
    assert epoch["value"] > 0


def test_another_implementation_is_timed_beside_ours(steps):
    _, figures = steps
    assert (figures[WHAT, "toy"]["value"], figures[WHAT, "toy"]["count"]) == (1000, 3)
    ratio = 1000 / figures[WHAT, "ddbench"]["value"]
    assert figures[WHAT, "toy / ddbench"]["value"] == pytest.approx(ratio)


def test_a_number_of_iterations_can_be_asked_for_without_the_rates_of_the_machine(toy, data, tmp_path):
    """Of a method without loops of its own, such as IDC, whose iterations are long."""
    tiny = "idc[inner=1,batch_real=4,n_data=8]"
    other = f"toy={toy} {{method}} {{ipc}} {{count}}"
    words = ("--only", "steps", "--no-rates", "--count", "2", "--method", tiny, "--ipc", "1", "--computed-ipc", "0")
    done = measure(tmp_path, "--dataset", f"arrays[path={data}]", *words, "--other", other)
    assert done.exit_code == 0, done.output
    figures = {f["name"]: f for f in json.loads((tmp_path / "speed.json").read_text())["figures"]}
    assert figures["ddbench"]["count"] == figures["toy"]["count"] == 2
    assert "convolutions at least" not in figures
    assert figures["rate"]["unit"] == "GFLOP/s"


def test_students_are_timed_beside_plain_eager_code(toy, tmp_path):
    other = f"toy={toy} {{architecture}} {{ipc}} {{count}}"
    done = measure(tmp_path, "--only", "students", "--other-students", other)
    assert done.exit_code == 0, done.output
    figures = {(f["what"], f["name"]): f for f in json.loads((tmp_path / "speed.json").read_text())["figures"]}
    plain, kd = "mlp, plain[epochs=2]", "mlp, kd[protocol=quick,epochs=2,teacher=mlp]"
    for name in ("eager torch", "toy"):
        ratio = figures[plain, name]["value"] / figures[plain, "ddbench"]["value"]
        assert figures[plain, f"{name} / ddbench"]["value"] == pytest.approx(ratio)
        assert (kd, name) not in figures
    assert 0 < figures[plain, "eager torch, scoring"]["value"] < figures[plain, "eager torch"]["value"]
    assert figures[kd, "its teacher, made once for all"]["value"] > 0


@pytest.mark.slow  # seven sizes are measured, and memory in a process of its own
def test_memory_and_growth_are_shown_for_every_size(tmp_path):
    figures = {}
    # The peak of a process that has done other work before is no peak of this work.
    for part, done in (("memory", measure_as_users_do(tmp_path / "memory", "--only", "memory")),
                       ("growth", measure(tmp_path / "growth", "--only", "growth"))):  # fmt: skip
        assert getattr(done, "exit_code", 0) == getattr(done, "returncode", 0) == 0, done.stderr
        written = json.loads((tmp_path / part / "speed.json").read_text())["figures"]
        figures |= {(f["what"], f["name"]): f for f in written}
    peaks = [figure for (_, name), figure in figures.items() if name == "peak beyond the data, fp32"]
    assert [peak["unit"] for peak in peaks if 0 < peak["value"] < 1000] == ["MB"]
    sizes = [("ipc", 1), ("ipc", 2), ("classes", 2), ("classes", 10), ("width", 16), ("width", 32), ("students", 1)]
    rows = [next(what for what, _ in figures if what.endswith(f", {name} {value}")) for name, value in sizes]
    assert all(figures[row, "ddbench"]["value"] > 0 for row in rows)
    assert figures[rows[3], "size to the first"]["value"] == 5
    ratio = figures[rows[3], "ddbench"]["value"] / figures[rows[2], "ddbench"]["value"]
    assert figures[rows[3], "to the first"]["value"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit('no such {architecture} [here]')", "ended with exit status 1: no such mlp [here]"),
        ("print('{ipc}')", "printed 0 lines with seconds, not 1"),
        ("print('{\\\"seconds\\\": -1}')", "printed -1 as seconds"),
    ],
)
def test_a_command_that_fails_stops_with_one_line(script, message, tmp_path):
    command = f'toy={sys.executable} -c "{script}" {{architecture}} {{ipc}} {{count}}'
    done = measure(tmp_path, "--only", "students", "--other-students", command)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == f"Error: toy {message}"
    assert (tmp_path / "speed.md").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("python step.py", "'python step.py' is not NAME=COMMAND"),
        ("toy=python step.py {method} {ipc}", "the command of 'toy' has no {count}, so it cannot be filled in"),
        ("toy=python '{method} {ipc} {count}", "the command of 'toy' cannot be read: No closing quotation"),
        ("ddbench=a {method} {ipc} {count}", "'ddbench' is a name in our tables: give another one"),
        ("a / b=a {method} {ipc} {count}", "'a / b' is a name in our tables: give another one"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(command, message, tmp_path):
    done = measure(tmp_path / "new", "--other", command)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"Error: {message}"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--other", "toy=a {method} {ipc} {count}"] * 2, "two implementations are called 'toy'"),
        (["--evaluator", "kd"], "--other-students stands beside plain students: give one plain evaluator, not none"),
        (
            ["--evaluator", "plain", "--evaluator", "plain[epochs=2]"],
            "--other-students stands beside plain students: give one plain evaluator, not plain, plain[epochs=2]",
        ),
    ],
)
def test_what_would_stand_in_the_wrong_place_is_refused(words, message, tmp_path):
    done = measure(tmp_path / "new", *words, "--other-students", "x=a {architecture} {ipc} {count}")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == f"Error: {message}"


def test_each_plain_evaluator_stands_beside_eager_code_of_as_many_epochs(tmp_path):
    names = ("plain[epochs=2]", "plain[epochs=200]")
    done = measure(tmp_path, "--only", "students", *(word for name in names for word in ("--evaluator", name)))
    assert done.exit_code == 0, done.output
    figures = {(f["what"], f["name"]): f for f in json.loads((tmp_path / "speed.json").read_text())["figures"]}
    eager = [figures[f"mlp, {name}", "eager torch"]["value"] for name in names]
    scoring = [figures[f"mlp, {name}", "eager torch, scoring"]["value"] for name in names]
    assert eager[1] - scoring[1] > 5 * (eager[0] - scoring[0])


def test_a_method_without_loops_has_no_parts(data, tmp_path):
    words = ["--only", "steps", "--method", "dm[batch_real=2]", "--ipc", "2", "--computed-ipc", "3"]
    done = measure(tmp_path, "--dataset", f"arrays[path={data}]", *words)
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "speed.json").read_text())["figures"]
    assert {f["name"] for f in figures if f["what"].startswith("dm")} == {"ddbench", "warming up", "rate"}


def test_an_output_that_cannot_be_made_ends_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    done = measure(tmp_path / "file" / "new", "--only", "machine")
    assert done.exit_code == 1
    assert done.stderr.strip() == f"Error: --output {tmp_path / 'file' / 'new'} cannot be made: Not a directory"


def test_an_unknown_name_ends_in_one_line(tmp_path):
    done = measure_as_users_do(tmp_path, "--dataset", "digit", "--only", "steps")
    assert done.returncode == 1
    assert "there is no dataset 'digit': did you mean 'digits'?" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--method", "dc[batch_real=2]"], "an iteration of dc[batch_real=2] through single on digits, ipc 1, fp32, "),
        (["--student", "lenet", "--ipc", "2"], "a tenth of a lenet student by plain on digits, ipc 2, "),
    ],
)
def test_a_profile_shows_the_operators_that_take_longest(asked, message):
    done = profile(*asked, "--rows", "3")
    assert done.exit_code == 0, done.stderr
    first, *rows = done.stdout.splitlines()
    assert first.startswith(f"{message}one core: ")
    shares = [float(row.split()[0]) for row in rows]
    assert len(shares) == 3
    assert sorted(shares, reverse=True) == shares
    assert 0 < sum(shares) <= 100


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--method", "dcm"], "there is no method 'dcm'"),
        (["--student", "mlp", "--evaluator", "plane"], "there is no evaluator 'plane'"),
        (["--precision", "fp8"], "'fp8' is not one of"),
        (["--ipc", "0"], "0 is not in the range"),
    ],
)
def test_a_profile_of_what_there_is_not_ends_in_one_line(asked, message):
    done = profile(*asked)
    assert done.exit_code in (1, 2)
    assert message in done.stderr.splitlines()[-1]
