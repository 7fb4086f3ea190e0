"""TF32 only where it was asked for, although torch takes it for convolutions by itself."""

import pytest
import torch
from studies import SMALL, records, small_run
from toys import toy_trajectory

from harness.api.runs import plan_request
from harness.cli.checkup import machine
from harness.compute import precision as precision_module
from harness.compute.precision import float32_products
from harness.learning import students
from harness.planning.request import request_from


def rounds():
    """Whether matrix products, and whether convolutions are in TF32 on a GPU."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_products_are_rounded_under_tf32_alone_and_as_before_afterwards():
    before = rounds()
    for precision, rounded in (("fp32", False), ("tf32", True), ("bf16", False)):
        with float32_products(precision):
            assert rounds() == (rounded, rounded)
        with pytest.raises(ValueError, match="inside"), float32_products(precision):
            raise ValueError("inside")
        assert rounds() == before


@pytest.mark.parametrize(("precision", "rounded"), [("fp32", False), ("tf32", True)])
def test_a_trajectory_steps_in_its_own_precision(precision, rounded, monkeypatch):
    before, seen = rounds(), []
    trajectory = toy_trajectory(precision=precision)
    step = trajectory.method.step
    monkeypatch.setattr(trajectory.method, "step", lambda *args: seen.append(rounds()) or step(*args))
    trajectory.advance(2)
    assert seen == [(rounded, rounded)] * 2
    assert rounds() == before


def test_students_of_a_run_are_trained_in_float32(data, tmp_path, monkeypatch):
    before, seen = rounds(), []
    score = students.score
    monkeypatch.setattr(students, "score", lambda *args: seen.append(rounds()) or score(*args))
    small_run(data, tmp_path / "store")
    assert seen == [(False, False)] * 2
    assert rounds() == before


# Which precision is quicker here

CPU = torch.device("cpu")


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """A folder for what is measured, in which nothing lies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    precision_module._speeds.cache_clear()
    yield tmp_path / "ddbench-code"
    precision_module._speeds.cache_clear()


@pytest.fixture
def slow(monkeypatch, cache_folder):
    """Sets how long the convolution takes in each precision, in seconds, and counts its measurements."""
    measured = []

    def set_seconds(**seconds):
        precision_module._speeds.cache_clear()
        monkeypatch.setattr(precision_module, "_seconds", lambda _, name, quick: measured.append(name) or seconds[name])
        return measured

    return set_seconds


def test_a_real_measurement_compares_float32_with_bfloat16(cache_folder):
    speeds = precision_module.precision_speeds(CPU, compiled=False)
    assert speeds.keys() == {"fp32", "bf16"}
    assert speeds["fp32"] == 1
    assert 0 < speeds["bf16"] < 100


def test_a_measurement_is_made_once_for_each_machine(slow, cache_folder, monkeypatch):
    measured = slow(fp32=1.0, bf16=0.5)
    assert precision_module.precision_speeds(CPU, compiled=False) == {"fp32": 1.0, "bf16": 2.0}
    first = len(measured)
    slow(fp32=1.0, bf16=0.1)  # another process
    assert precision_module.precision_speeds(CPU, compiled=False)["bf16"] == 2.0
    assert len(measured) == first
    monkeypatch.setattr(precision_module, "device_name", lambda device: "another processor")
    assert precision_module.precision_speeds(CPU, compiled=False)["bf16"] == 10.0


@pytest.mark.parametrize("content", ["", "null", "[1]", "{}", '{"bf16": "quick"}', "[" * 100_000, "\udcff"])
def test_a_measurement_that_cannot_be_read_is_made_again(slow, cache_folder, content):
    slow(fp32=1.0, bf16=0.5)
    precision_module.precision_speeds(CPU, compiled=False)
    (file,) = cache_folder.iterdir()
    file.write_bytes(content.encode(errors="surrogateescape"))
    slow(fp32=1.0, bf16=0.25)
    assert precision_module.precision_speeds(CPU, compiled=False)["bf16"] == 4.0


@pytest.mark.parametrize(("seconds", "quickest"), [(0.5, "bf16"), (1.5, "fp32"), (0.96, "fp32")])
def test_auto_is_the_quicker_precision_and_says_so(slow, data, tmp_path, seconds, quickest):
    slow(fp32=1.0, bf16=seconds)
    result = small_run(data, tmp_path / "store", precision="auto")
    sets = [record for record in records(tmp_path / "store").values() if record["kind"] == "distilled"]
    assert {record["identity"]["trajectory"]["precision"] for record in sets} == {quickest}
    (note,) = [note for note in result.notes if "--precision" in note]
    assert (
        note
        == f"--precision auto is {quickest}: bf16 is {round(1 / seconds, 2):g} times as fast as fp32 on this machine"
    )
    same = small_run(data, tmp_path / "store", precision=quickest)  # the very cells
    assert {cell["key"] for cell in same.cells} == {cell["key"] for cell in result.cells}


@pytest.mark.parametrize(("seconds", "warned"), [(2.0, True), (0.5, False)])
def test_a_run_in_bfloat16_says_where_it_is_slower(slow, data, tmp_path, seconds, warned):
    slow(fp32=1.0, bf16=seconds)
    result = plan_request(
        request_from({**SMALL, "dataset": f"arrays[path={data}]", "store": tmp_path / "store", "precision": "bf16"})
    )
    notes = [note for note in result.notes if "--precision" in note]
    expected = "bf16 slows the work: bf16 is 0.5 times as fast as fp32 on this machine; leave it out, or say auto"
    assert notes == [f"--precision {expected}"] * warned


@pytest.mark.parametrize(("seconds", "state", "advice"), [(2.0, "note", "fp32"), (0.5, "ok", "bf16")])
def test_doctor_says_which_precision_is_quicker(slow, seconds, state, advice):
    slow(fp32=1.0, bf16=seconds)
    (check,) = [check for check in machine() if check.name == "bfloat16"]
    assert check.status == state
    assert f"--precision {advice} is quicker here" in check.detail
