"""What goes wrong in one cell stays there; a diverged distillation is a result."""

import json

import pytest
import torch
from safetensors.torch import load_file
from studies import EVALUATOR, METHOD, Heard, ddbench, leftovers, numbers, records, small_run, small_words

from harness.store.store import Store

pytestmark = pytest.mark.usefixtures("toys")


def states(result, kind):
    return [cell["state"] for cell in result.cells if cell["kind"] == kind]


@pytest.mark.parametrize("error", ["runtime", "permission", "exit"])
def test_a_method_that_raises_fails_alone(data, tmp_path, error):
    heard = Heard()
    result = small_run(data, tmp_path, method=[f"boom[error={error}]", METHOD], reporter=heard)
    failed, fine = result.rows
    assert (failed["status"], failed["mean"], failed["students"]) == ("failed", None, 0)
    assert (fine["status"], fine["students"]) == ("done", 2)
    assert states(result, "distilled") == ["failed", "done"]
    assert states(result, "student") == ["blocked", "blocked", "done", "done"]
    ((cell, reason, log),) = heard.broken
    assert result.failed.pop(cell.key) == reason
    assert set(result.failed.values()) == {f"needs {cell.label}, which failed: {reason}"}
    assert reason.endswith("out of luck")
    assert log == tmp_path / "failures" / f"{cell.key}.log"
    assert "Traceback" in log.read_text()
    assert "and of ideas" in log.read_text()
    assert not leftovers(tmp_path)


def test_points_before_the_failure_are_kept_and_scored(data, tmp_path):
    result = small_run(data, tmp_path, method="boom[at=2]", iterations=[1, 2, 3, 4])
    assert states(result, "distilled") == ["done", "done", "failed", "blocked"]
    assert [row["status"] for row in result.rows] == ["done", "done", "failed", "failed"]


def test_an_evaluator_that_raises_fails_alone(data, tmp_path):
    result = small_run(data, tmp_path, evaluator=["grim[student=1]", EVALUATOR], students=3)
    assert [row["status"] for row in result.rows] == ["incomplete", "done"]
    assert [row["students"] for row in result.rows] == [2, 3]
    assert states(result, "student") == ["done", "failed", "done", "done", "done", "done"]
    assert set(result.failed.values()) == {"ValueError: it is over"}


def test_a_student_that_was_there_has_not_failed(data, tmp_path):
    small_run(data, tmp_path, evaluator="grim[student=2]", students=2)
    result = small_run(data, tmp_path, evaluator="grim[student=2]", students=3)
    assert states(result, "student") == ["done", "done", "failed"]


def test_a_failed_cell_is_tried_again_only_on_request(data, tmp_path):
    once = small_run(data, tmp_path, method="boom")
    heard = Heard()
    again = small_run(data, tmp_path, method="boom", reporter=heard)
    assert (heard.begun, heard.broken) == ([], [])
    assert "1 cell failed before: --retry-failed tries it again" in heard.notices
    assert (again.cells, again.failed) == (once.cells, once.failed)
    (failure,) = Store(tmp_path).failures.all()
    Store(tmp_path).failures.forget(failure.key)
    heard = Heard()
    small_run(data, tmp_path, method="boom", reporter=heard)
    assert [cell.key for cell, _, _ in heard.broken] == [failure.key]


def test_what_is_noted_of_a_failure_is_history_once_the_cell_is_made(data, tmp_path, monkeypatch):
    small_run(data, tmp_path, method="boom")
    (failure,) = Store(tmp_path).failures.all()
    Store(tmp_path).failures.forget(failure.key)
    monkeypatch.setattr("toy_plugins.Boom.step", lambda self, iteration, networks: {})
    assert not small_run(data, tmp_path, method="boom").failed
    Store(tmp_path).failures.note(failure)
    again = small_run(data, tmp_path, method="boom")
    assert not again.failed
    assert states(again, "distilled") == ["done"]
    assert [failure.reason for failure in Store(tmp_path).failures.all()] == ["RuntimeError: out of luck"]


def test_a_failed_artifact_is_not_tried_again_by_those_that_need_it(data, tmp_path):
    heard = Heard()
    result = small_run(data, tmp_path, method="needy[fails=true]", iterations=[1, 2], reporter=heard)
    assert [(cell.kind, reason) for cell, reason, _ in heard.broken] == [("artifact", "RuntimeError: no luck")]
    assert states(result, "artifact") == ["failed", "done"]
    assert states(result, "distilled") == ["blocked", "blocked"]
    assert states(result, "student") == ["blocked"] * 4
    assert [cell.kind for cell in heard.begun] == ["artifact", "artifact"]
    again = Heard()
    assert (
        small_run(data, tmp_path, method="needy[fails=true]", iterations=[1, 2], reporter=again).cells == result.cells
    )
    assert again.begun == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 8 GiB."),
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB: try a smaller batch or slice (an option "
            "of the method or evaluator), --precision bf16 or tf32, or fewer --students at once",
        ),
        (MemoryError(), "MemoryError: : try a smaller batch or slice"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "fewer --students at once"),
    ],
)
def test_where_memory_runs_out_it_is_said_what_takes_less(data, tmp_path, monkeypatch, error, says):
    def step(self, iteration, networks):
        raise error

    monkeypatch.setattr("toy_plugins.Boom.step", step)
    heard = Heard()
    small_run(data, tmp_path, method="boom", reporter=heard)
    ((_, reason, _),) = heard.broken
    assert says in reason


def test_a_note_that_cannot_be_read_is_a_failure_still(data, tmp_path):
    small_run(data, tmp_path, method="boom")
    (path,) = (tmp_path / "failures").glob("*.json")
    path.write_text("{")
    result = small_run(data, tmp_path, method="boom")
    assert states(result, "distilled") == ["failed"]
    assert "cannot be read" in result.failed[path.stem]


def test_the_command_line_exits_with_1_where_a_cell_failed(data, tmp_path):
    words = small_words(data, tmp_path, method="boom")
    result = ddbench("run", *words, "--method", METHOD, "--details")
    assert result.exit_code == 1
    assert "✗" in result.stdout
    assert "FAILED" in result.stderr
    assert "out of luck" in result.stderr
    assert "failures" in result.stderr
    assert "Traceback" not in result.output
    as_json = ddbench("run", *words, "--method", METHOD, "--json")
    assert as_json.exit_code == 1
    assert [row["status"] for row in json.loads(as_json.stdout)["rows"]] == ["failed", "done"]


def test_a_diverged_distillation_keeps_its_last_set(data, tmp_path):
    result = small_run(data, tmp_path, method="lost[at=2]", iterations=[1, 4])
    assert not result.failed
    assert [row["status"] for row in result.rows] == ["done", "diverged"]
    assert [row["students"] for row in result.rows] == [2, 2]
    key = [cell["key"] for cell in result.cells if cell["kind"] == "distilled"][-1]
    record = records(tmp_path)[f"{key}-1"]
    assert record["history"]["diverged_at"] == 3
    assert record["result"]["status"] == "diverged"
    images = load_file(tmp_path / "cells" / key[:2] / f"{key}-1" / "set.safetensors")["images"]
    assert torch.equal(images, torch.full((3, 1, 16, 16), 2.0))


def test_diverged_counts_as_good(data, tmp_path):
    result = ddbench("run", *small_words(data, tmp_path, method="lost"), "--details")
    assert result.exit_code == 0
    assert "†" in result.stdout
    assert "diverged" in result.stdout


def test_a_diverged_trajectory_is_not_continued(data, tmp_path):
    small_run(data, tmp_path, method="lost", iterations=3)
    heard = Heard()
    result = small_run(data, tmp_path, method="lost", iterations=[3, 6], reporter=heard)
    assert heard.steps == []
    assert [row["status"] for row in result.rows] == ["diverged", "diverged"]


def test_a_set_that_blew_up_is_flagged(data, tmp_path):
    result = small_run(data, tmp_path, method="still[value=[1,500]]")
    assert [row["status"] for row in result.rows] == ["done", "blown up"]
    assert not result.failed


def test_images_beyond_a_thousand_have_diverged(data, tmp_path):
    (row,) = small_run(data, tmp_path, method="still[value=1001]").rows
    assert row["status"] == "diverged"


def test_dc_at_an_absurd_rate_is_a_result(data, tmp_path):
    (row,) = small_run(data, tmp_path, method="dc[batch_real=4,lr_img=1e30]", iterations=3).rows
    assert row["status"] == "diverged"
    assert row["students"] == 2


def test_students_that_are_lost_are_counted(data, tmp_path):
    result = small_run(data, tmp_path, evaluator="plain[epochs=2,lr=1e30]", architecture="convnet[width=4,depth=1]")
    assert not result.failed
    assert result.rows[0]["collapsed"] == 2
    json.dumps(result.as_json(), allow_nan=False)


def test_a_method_without_networks_has_one_arm(data, tmp_path):
    pools = ["single[main=mlp[width=8]]", "single[main=mlp[width=9]]"]
    result = small_run(data, tmp_path, method=["still", METHOD], pool=pools, iterations=[0, 1])
    assert [(row["method"], row["pool"]) for row in result.rows[::2]] == [
        ("still", None),
        *((METHOD, pool) for pool in pools),
    ]
    assert any("not applicable" in note and "still" in note for note in result.notes)
    shown = ddbench("run", *small_words(data, tmp_path, method="still"))
    assert shown.exit_code == 0
    assert "not applicable" in shown.stdout


def test_failures_leave_the_other_numbers_alone(data, tmp_path):
    small_run(data, tmp_path / "alone")
    small_run(data, tmp_path / "beside", method=["boom", METHOD, "lost"], evaluator=["grim", EVALUATOR])
    alone, beside = numbers(tmp_path / "alone"), numbers(tmp_path / "beside")
    assert {key: beside[key] for key in alone} == alone
