"""DD-Ranking's scores: against their formulas, on scores that toys return."""

import math
import re
import shlex

import pytest
from studies import ddbench, records, small_run

from harness.report.dd_ranking import augmentation_robust, label_robust, normalised

AUGMENTED = "plain[protocol=dsa,epochs=2]"
PLAIN = "plain[protocol=quick,epochs=2]"


def test_the_ends_of_the_scale():
    assert normalised(-1) == 0
    assert normalised(1) == 1
    assert normalised(0) == pytest.approx(1 / (math.e + 1))


def test_scores_are_of_fractions():
    """An improvement over random of 0.30 with a loss on hard labels of 0.20, as they stand in DD-Ranking's paper."""
    assert label_robust(own=0.5, random=0.2, hard=0.4, whole=0.6, weight=0.5) == pytest.approx(0.2908, abs=1e-4)
    assert label_robust(0.5, 0.2, 0.4, 0.6, weight=1.0) == pytest.approx(normalised(0.3))
    assert label_robust(0.5, 0.2, 0.4, 0.6, weight=0.0) == pytest.approx(normalised(-0.2))
    assert augmentation_robust(0.6, 0.2, 0.5, 0.3, gamma=0.5) == pytest.approx(normalised(0.3))
    assert augmentation_robust(0.6, 0.2, 0.5, 0.3, gamma=0.25) == pytest.approx(normalised(0.25))


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("robust") / "store"
    method = ["dc[batch_real=4]", "random", "whole"]
    small_run(data, path, method=method, evaluator=[PLAIN, AUGMENTED], distillations=2)
    return path


def accuracies(store, **wanted):
    """By distillation, the mean accuracy of the students that are so."""
    results = [record["result"] for record in records(store).values() if record["kind"] == "student"]
    matching = [result for result in results if all(result[key] == value for key, value in wanted.items())]
    values = [
        [r["accuracy"] for r in matching if r["distillation"] == d]
        for d in sorted({r["distillation"] for r in matching})
    ]
    return [sum(group) / len(group) for group in values]


def test_the_table_follows_from_the_records(store):
    words = f"robust-scores[hard={PLAIN},augmented={AUGMENTED},weight=0.25,gamma=0.75]"
    result = ddbench("report", store, "--report", words, "--output", "-")
    assert result.exit_code == 0, result.output
    dc, random, whole = (
        accuracies(store, method=name, evaluator=PLAIN) for name in ("dc[batch_real=4]", "random", "whole")
    )
    dc_dsa, random_dsa = (
        accuracies(store, method=name, evaluator=AUGMENTED) for name in ("dc[batch_real=4]", "random")
    )
    upper = sum(whole) / len(whole)
    lrs = [normalised(0.25 * (dc[d] - random[d]) - 0.75 * (upper - dc[d])) for d in (0, 1)]
    ars = [normalised(0.75 * (dc_dsa[d] - random_dsa[d]) + 0.25 * (dc[d] - random[d])) for d in (0, 1)]
    row = next(line for line in result.stdout.splitlines() if "dc" in line and line.startswith("|"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    for values, cell in ((lrs, cells[6]), (ars, cells[7])):
        mean, spread = sum(values) / 2, abs(values[0] - values[1]) / math.sqrt(2)
        assert cell == f"{mean:.3f} ± {spread:.3f}"
    assert cells[8] == "2"
    assert "accuracies as fractions" in result.stdout


def test_an_evaluator_that_may_be_any_of_several(store):
    result = ddbench("report", store, "--report", "robust-scores[hard=plain]", "--output", "-")
    assert result.exit_code == 1
    assert "hard=plain is ambiguous: set hard= to one of" in result.stderr


def test_what_is_missing_is_said_with_the_command_that_makes_it(data, tmp_path):
    small_run(data, tmp_path / "store", evaluator=PLAIN)
    words = ("report", tmp_path / "store", "--output", "-", "--report")
    report = f"robust-scores[hard={PLAIN},augmented={AUGMENTED}]"
    result = ddbench(*words, report)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert f"no scores of evaluator {AUGMENTED} and method random and method whole" in line
    command = re.search(r": run (ddbench run .*)", line).group(1)
    assert ddbench(*shlex.split(command)[1:]).exit_code == 0
    assert ddbench(*words, report).exit_code == 0


def test_half_of_it_is_made_and_the_other_half_said_to_be_missing(data, tmp_path):
    small_run(data, tmp_path / "store", evaluator=PLAIN, method=["dc[batch_real=4]", "random", "whole"])
    words = f"robust-scores[hard={PLAIN},augmented={AUGMENTED}]"
    result = ddbench("report", tmp_path / "store", "--output", "-", "--report", words)
    assert result.exit_code == 0
    assert "ARS is incomplete: no scores of evaluator" in result.stdout.replace("\\", "")


def test_soft_labels_have_no_label_robust_score(data, tmp_path):
    soft = "mtt[experts=1,train_epochs=3,expert_epochs=1,max_start_epoch=1,steps=2,labels=expert]"
    small_run(data, tmp_path / "store", evaluator=[PLAIN, AUGMENTED], method=[soft, "random", "whole"])
    words = f"robust-scores[hard={PLAIN},augmented={AUGMENTED}]"
    result = ddbench("report", tmp_path / "store", "--output", "-", "--report", words)
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("|") and "mtt" in line]
    assert row.split("|")[7].strip() == "–"
    assert "soft labels" in result.stdout


MTT = "mtt[experts=1,train_epochs=3,expert_epochs=1,max_start_epoch=1,steps=2,labels=expert]"
HARD = "plain[protocol=quick,epochs=2,labels=hard]"


def test_soft_labels_have_a_label_robust_score_once_students_train_on_their_classes(data, tmp_path):
    """The own evaluation is on the soft labels, the hard one on the classes of their largest values."""
    store = tmp_path / "store"
    small_run(data, store, evaluator=[PLAIN, HARD, AUGMENTED], method=[MTT, "random", "whole"])
    words = f"robust-scores[own={PLAIN},hard={HARD},augmented={AUGMENTED},bare={PLAIN}]"
    result = ddbench("report", store, "--report", words, "--output", "-")
    assert result.exit_code == 0, result.output
    names = {record["result"]["method"] for record in records(store).values() if record["kind"] == "student"}
    (learned,) = names - {"random", "whole"}
    own, hard = (accuracies(store, method=learned, evaluator=name)[0] for name in (PLAIN, HARD))
    random = accuracies(store, method="random", evaluator=PLAIN)[0]
    upper = accuracies(store, method="whole", evaluator=HARD)[0]
    augmented, random_augmented = (
        accuracies(store, method=name, evaluator=AUGMENTED)[0] for name in (learned, "random")
    )
    row = next(line for line in result.stdout.splitlines() if line.startswith("|") and "mtt" in line)
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[6] == f"{label_robust(own, random, hard, upper, 0.5):.3f}"
    assert cells[7] == f"{augmentation_robust(augmented, random_augmented, own, random, 0.5):.3f}"
    assert "DD-Ranking's code puts percent into the same formulas" in result.stdout
    assert "no LRS" not in result.stdout


def test_percent_in_the_formulas_leave_the_scale():
    """As the published code computes it: 62.99 where the formula gives 0.29."""
    assert label_robust(own=50, random=20, hard=40, whole=60, weight=0.5) == pytest.approx(62.99, abs=0.01)


def test_sets_with_hard_labels_have_the_same_students_under_labels_hard(data, tmp_path):
    store = tmp_path / "store"
    small_run(data, store, evaluator=[PLAIN, HARD], method=["random"])
    assert accuracies(store, evaluator=PLAIN) == accuracies(store, evaluator=HARD)
