"""Chosen on validation, scored on test."""

import json

import pytest
from studies import ddbench, records, small_run, small_words

from harness import UsageError

pytestmark = pytest.mark.usefixtures("toys")


def student_records(store):
    return [record["result"] for record in records(store).values() if record["kind"] == "student"]


def test_the_best_on_validation_is_chosen_where_test_says_otherwise(data, tmp_path):
    result = small_run(data, tmp_path, evaluator="told[which=[b,a,c]]", choose="told.which")
    (row,) = result.rows
    assert row["evaluator"] == "told[which=a]"
    assert row["mean"] == 0.1
    assert row["score_on"] == "test"
    assert row["chosen"] == {
        "option": "told.which",
        "value": "told[which=a]",
        "curve": {"told[which=b]": 0.5, "told[which=a]": 0.9, "told[which=c]": 0.1},
    }
    scored = {(score["evaluator"], score["score_on"]) for score in student_records(tmp_path)}
    assert {name for name, split in scored if split == "test"} == {"told[which=a]"}
    assert {name for name, split in scored if split == "validation"} == set(row["chosen"]["curve"])
    assert any("validation" in note for note in result.notes)


def test_what_is_scored_on_test_is_distilled_without_the_split(data, tmp_path):
    result = small_run(data, tmp_path, evaluator="told[which=[b,a]]", choose="told.which")
    sets = {cell["key"] for cell in result.cells if cell["kind"] == "distilled"}
    assert len(sets) == 1
    whole = small_run(data, tmp_path, evaluator="told[which=a]")
    validation = small_run(data, tmp_path, evaluator="told[which=a]", score_on="validation")
    keys = [{cell["key"] for cell in one.cells if cell["kind"] == "distilled"} for one in (whole, validation)]
    assert sets != keys[0]
    assert sets == keys[1]


def test_a_temperature_is_chosen_for_each_architecture(data, tmp_path):
    kd = "kd[epochs=2,teacher=mlp[width=8],temperature=[1,4]]"
    names = ["mlp[width=8]", "mlp[width=6]"]
    result = small_run(data, tmp_path, evaluator=[kd, "plain[epochs=2]"], architecture=names, choose="kd.temperature")
    assert [row["architecture"] for row in result.rows] == names * 2
    kd_rows = [row for row in result.rows if row["evaluator"].startswith("kd")]
    for row in kd_rows:
        curve = row["chosen"]["curve"]
        assert len(curve) == 2
        assert curve[row["evaluator"]] == max(curve.values())
    assert [row["chosen"] for row in result.rows if row["evaluator"].startswith("plain")] == [None, None]
    on_test = [score for score in student_records(tmp_path) if score["score_on"] == "test"]
    assert len({(score["evaluator"], score["architecture"]) for score in on_test}) == 4


def test_an_option_of_the_method_is_chosen(data, tmp_path):
    result = small_run(data, tmp_path, method="dc[batch_real=4,lr_img=[0.1,1]]", choose="dc.lr_img")
    (row,) = result.rows
    curve = row["chosen"]["curve"]
    assert len(curve) == 2
    assert curve[row["method"]] == max(curve.values())
    tested = {score["method"] for score in student_records(tmp_path) if score["score_on"] == "test"}
    assert tested == {row["method"]}


def test_of_equal_values_the_first_is_chosen(data, tmp_path):
    result = small_run(data, tmp_path, evaluator="told[which=a]", method="still[value=[3,1,2]]", choose="still.value")
    assert result.rows[0]["method"] == "still[value=3]"


def test_the_second_time_nothing_is_done(data, tmp_path):
    words = small_words(data, tmp_path, evaluator="told[which=[b,a]]", choose="told.which")
    first, second = (ddbench("run", *words, "--json") for _ in range(2))
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert second.stderr.count("0 cells to make") == 2


def test_the_table_tells_choice_and_curve(data, tmp_path):
    shown = ddbench("run", *small_words(data, tmp_path, evaluator="told[which=[b,a]]", choose="told.which"))
    assert "told[which=a] chosen from told[which=b] 50.0, told[which=a] 90.0" in shown.stdout
    assert "10.0" in shown.stdout


@pytest.mark.parametrize(
    ("evaluator", "choose"),
    [
        ("kd", "kd.temperature"),
        ("kd[temperature=2]", "kd.temperature"),
        ("kd[temperature=[2,2]]", "kd.temperature"),
        ("kd[temperature=[1,2]]", "kd.alpha"),
        ("kd[temperature=[1,2]]", "plain.temperature"),
        ("kd[temperature=[1,2]]", "temperature"),
        ("kd[temperature=[1,2]]", "nonsense"),
    ],
)
def test_a_choice_among_nothing_is_refused(data, tmp_path, evaluator, choose):
    with pytest.raises(UsageError, match="nothing sweeps it; write for instance"):
        small_run(data, tmp_path / "none", evaluator=evaluator, choose=choose)
    assert not (tmp_path / "none").exists()


def test_choosing_and_scoring_on_validation_exclude_each_other(data, tmp_path):
    with pytest.raises(UsageError, match="leave out --score-on"):
        small_run(data, tmp_path, evaluator="told[which=[a,b]]", choose="told.which", score_on="validation")


def test_validation_scores_another_problem(data, tmp_path):
    validation = small_run(data, tmp_path, score_on="validation", evaluator="told[which=a]")
    test = small_run(data, tmp_path, evaluator="told[which=a]")
    assert [one.rows[0]["mean"] for one in (validation, test)] == [0.9, 0.1]
    assert not {cell["key"] for cell in validation.cells} & {cell["key"] for cell in test.cells}
    assert "accuracy on validation" in ddbench("run", *small_words(data, tmp_path, score_on="validation")).stdout


def test_choice_and_curve_are_kept_in_the_store(data, tmp_path):
    store = tmp_path / "store"
    run = small_run(data, store, evaluator="plain[epochs=2,lr=[0.01,0.1]]", choose="plain.lr")
    (kept,) = [record["result"] for record in records(store).values() if record["kind"] == "choice"]
    assert kept == run.rows[0]["chosen"]
    assert set(kept["curve"]) == {"plain[protocol=quick,epochs=2,lr=0.01]", "plain[protocol=quick,epochs=2,lr=0.1]"}
