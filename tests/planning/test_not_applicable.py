"""Evaluators that are not for every architecture: such students are left out with the reason."""

import pytest

from harness import UsageError
from tests.studies import ddbench, records, small_run, small_words, write_arrays

ELF = "elf[epochs=1,teacher=convnet[width=4],teacher-epochs=1]"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("data") / "stripes.npz")


def run(data, store, **changes):
    return small_run(data, store, **{"method": "random", "evaluator": [ELF, "plain[epochs=1]"], **changes})


def test_students_that_it_is_not_for_are_left_out(data, tmp_path):
    result = run(data, tmp_path, architecture=["mlp[width=8]", "convnet[width=4]"])
    pairs = [(row["evaluator"].partition("[")[0], row["architecture"].partition("[")[0]) for row in result.rows]
    assert pairs == [("elf", "convnet"), ("plain", "mlp"), ("plain", "convnet")]
    (note,) = [note for note in result.notes if "not applicable to" in note]
    assert note.endswith("is not applicable to mlp[width=8]: it has no maps that could learn those of a network on the "
                         "real data")  # fmt: skip
    students = [record["result"] for record in records(tmp_path).values() if record["kind"] == "student"]
    assert {student["evaluator"].partition("[")[0] for student in students if student.get("real_data")} == {"elf"}
    assert {row["evaluator"].partition("[")[0] for row in result.rows if row.get("real_data")} == {"elf"}


def test_a_plan_of_nothing_else_is_refused(data, tmp_path):
    with pytest.raises(UsageError, match=r"is not applicable to mlp.width=8.: it has no maps"):
        run(data, tmp_path, evaluator=[ELF], architecture=["mlp[width=8]"])
    words = small_words(data, tmp_path / "store", method="random", evaluator="droppath", architecture="mlp[width=8]")
    result = ddbench("run", *words)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "neither residual blocks nor two convolutions in turn" in result.stderr


def test_labels_of_every_epoch_are_recorded_and_shown(data, tmp_path):
    name = "soft-labels[epochs=2,teacher=convnet[width=4,norm=batch],teacher-epochs=1]"
    result = run(data, tmp_path, evaluator=[name], architecture=["mlp[width=8]"])
    (row,) = result.rows
    assert row["extra_bits"] > 0
    assert row["real_data"] is True
    again = run(data, tmp_path, evaluator=[name], architecture=["mlp[width=8]"], students=2)
    assert again.rows[0]["mean"] is not None
    students = [record["result"] for record in records(tmp_path).values() if record["kind"] == "student"]
    assert [student["extra_bits"] for student in students] == [row["extra_bits"]] * len(students)
