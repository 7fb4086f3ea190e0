"""The scripts for a GPU, tried on a CPU at sizes that only show that they work."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "gpu"
QUICK = ["--device", "cpu", "--quick", "--seconds", "inf"]


@pytest.fixture
def script(monkeypatch, threads):
    """Imports a script as it would be if it were started; on one core, as others may be busy."""
    threads(1)
    monkeypatch.syspath_prepend(SCRIPTS)
    names = [path.stem for path in SCRIPTS.glob("*.py")]
    yield importlib.import_module
    torch.set_flush_denormal(False)  # which a script sets for its process
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Sets the folder for results."""

    def set_to(name):
        monkeypatch.setenv("OUT", str(tmp_path / name))
        return tmp_path / name

    return set_to


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_dc_measures_everything_once_and_resumes(script, out, toy, monkeypatch):
    dc, first = script("dc"), out("first")
    monkeypatch.setattr(script("bench").Bench, "problem", toy)  # three classes; the other tests read the digits
    dc.main(QUICK)
    results = read(first, "dc")
    assert results["whole, ipc 1, tf32"]["iterations"] == 4
    assert results["machine"]["data"] == "digits"
    ways = [f"{way}, ipc {ipc}, {p}" for way in dc.WAYS for ipc in (1, 10) for p in dc.PRECISIONS]
    assert all(results[key]["seconds"] > 0 for key in [*ways, "lenet, ipc 1, tf32", "convnet, ipc 10, tf32"])
    assert all(seconds > 0 for seconds in results["parts, ipc 1, bf16"].values())
    second = out("second")
    dc.main([*QUICK, "--resume", str(first)])
    assert read(second, "dc") == results


def test_a_long_trajectory_goes_on_where_it_stopped(script, out, monkeypatch):
    dc, bench = script("dc"), script("bench")

    def losses(folder, steps):
        bench_of_dc = bench.Bench("dc", "", QUICK)
        left = iter([False] * steps)
        monkeypatch.setattr(bench.Bench, "late", property(lambda self: next(left, True)))
        dc.go_on(bench_of_dc, 1, "fp32", 4, 1, "mlp")
        return read(folder, "dc-ipc1")["scalars"]["loss"]

    whole = losses(out("whole"), 9)
    assert len(losses(out("parts"), 2)) == 2
    assert losses(out("parts"), 9) == whole
    assert len(whole) == 4


def test_both_ways_distil_the_same(script, out):
    dc, bench = script("dc"), script("bench")
    out("a")
    bench_of_dc = bench.Bench("dc", "", QUICK)
    scalars = []
    for way in dc.WAYS:
        trajectory = dc.trajectory_of(bench_of_dc, way, 2, "fp32", "convnet[width=8]")
        trajectory.advance(2)
        scalars.append(trajectory.history.scalars["loss"])
    assert scalars[0] == pytest.approx(scalars[1], rel=1e-4)


def test_students_are_timed_one_and_many(script, out):
    students, first = script("students"), out("first")
    students.main(QUICK)
    results = read(first, "students")
    keys = [f"{e}, {a}, ipc 1, {n} students" for e in ("plain", "kd") for a in ("mlp", "lenet") for n in (1, 3)]
    assert set(results) == {"machine", "teacher, ipc 1", *keys}
    assert all(results[key]["seconds"] > 0 and 0 < results[key]["accuracy"] < 1 for key in keys)


def measured(ipc_seconds):
    """As if every iteration and every twenty students took as many seconds as there are images a class."""
    dc = {f"{name}, ipc {n}, tf32": {"seconds": n * s} for name, s in ipc_seconds.items() for n in (1, 10)}
    students = {f"teacher, ipc {n}": {"seconds": n / 10} for n in (1, 10)} | {
        f"{evaluator}, {name}, ipc {n}, 20 students": {"seconds": float(n)}
        for evaluator in ("plain", "kd")
        for name in ("mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18")
        for n in (1, 10)
    }
    return {"machine": {"device": "a GPU"}, **dc}, students


def test_the_estimate_is_the_sum_over_sets_students_and_teachers(script, out, capsys):
    estimate, folder = script("estimate"), out("a")
    folder.mkdir()
    dc, students = measured({"convnet": 0.1, "lenet": 0.2, "alexnet": 0.3, "vgg11": 0.4})
    for name, results in (("dc", dc), ("students", students)):
        (folder / f"{name}.json").write_text(json.dumps(results))
    estimate.main([])
    distilling = 5 * 3000 * (3 * 0.1 + 0.25 * 1.0 + 0.9 * 0.1 + 0.1 / 3 * 0.9) * 11
    evaluating = 5 * 3 * 5 * (20 * 0.1 + 12) * 11
    assert read(folder, "estimate")["total"] == pytest.approx((distilling + evaluating) / 3600)
    assert "in all on a GPU" in capsys.readouterr().out


@pytest.mark.parametrize("left_out", ["dc.json", "vgg11, ipc 10, tf32"])
def test_the_estimate_says_what_is_missing(script, out, capsys, left_out):
    estimate, folder = script("estimate"), out("a")
    folder.mkdir()
    dc, students = measured({"convnet": 0.1, "lenet": 0.2, "alexnet": 0.3, "vgg11": 0.4})
    dc.pop(left_out, None)
    (folder / "students.json").write_text(json.dumps(students))
    if left_out != "dc.json":
        (folder / "dc.json").write_text(json.dumps(dc))
    with pytest.raises(SystemExit) as ended:
        estimate.main([])
    assert ended.value.code == 2
    assert left_out in capsys.readouterr().err
