"""Chosen on validation, scored on test."""

import json

import numpy as np
import pytest
import toy_plugins
from studies import Heard, ddbench, numbers, records, small_run, small_words, stripes, write_arrays

from harness import DataError, UsageError
from harness.planning.run import Run
from harness.plugins.discovery import plugins
from harness.store.store import Store

pytestmark = pytest.mark.usefixtures("toys")


def student_records(store):
    return [record["result"] for record in records(store).values() if record["kind"] == "student"]


def test_the_best_on_validation_is_chosen_where_test_says_otherwise(data, tmp_path):
    result = small_run(data, tmp_path, evaluator="scripted[which=[b,a,c]]", choose="scripted.which")
    (row,) = result.rows
    assert row["evaluator"] == "scripted[which=a]"
    assert row["mean"] == 0.1
    assert row["score_on"] == "test"
    assert row["chosen"] == {
        "option": "scripted.which",
        "value": "scripted[which=a]",
        "curve": {"scripted[which=b]": 0.5, "scripted[which=a]": 0.9, "scripted[which=c]": 0.1},
    }
    scored = {(score["evaluator"], score["score_on"]) for score in student_records(tmp_path)}
    assert {name for name, split in scored if split == "test"} == {"scripted[which=a]"}
    assert {name for name, split in scored if split == "validation"} == set(row["chosen"]["curve"])
    assert any("validation" in note for note in result.notes)


def sets_of(result):
    return {cell["key"] for cell in result.cells if cell["kind"] == "distilled"}


def test_what_is_scored_on_test_is_distilled_on_the_whole_training_set(data, tmp_path):
    result = small_run(data, tmp_path, evaluator="scripted[which=[b,a]]", choose="scripted.which")
    whole = small_run(data, tmp_path, evaluator="scripted[which=a]")
    validation = small_run(data, tmp_path, evaluator="scripted[which=[b,a]]", score_on="validation")
    assert sets_of(result) == sets_of(whole) | sets_of(validation)
    assert len(sets_of(result)) == 2
    assert whole.rows == [{key: value for key, value in result.rows[0].items() if key not in ("chosen", "validation")}]
    assert len(records(tmp_path)) == len(result.cells) + 1  # nothing was made after it but the record of the choice


def test_kept_hold_out_is_scored_without_the_split(data, tmp_path):
    swept = {"evaluator": "scripted[which=[b,a]]", "choose": "scripted.which"}
    result = small_run(data, tmp_path, keep_hold_out=True, **swept)
    (held_out,) = sets_of(result)
    whole = small_run(data, tmp_path, evaluator="scripted[which=a]")
    validation = small_run(data, tmp_path, evaluator="scripted[which=a]", score_on="validation")
    assert {held_out} == sets_of(validation) != sets_of(whole)
    assert result.rows[0]["hold_out"] == result.rows[0]["validation"] == {"images": 3, "of": 36, "seed": 0}
    assert whole.rows[0]["hold_out"] is None
    record = records(tmp_path)[f"{held_out}-1"]
    assert "toy.npz] without validation, ipc 1" in record["label"]
    details = record["result"]
    assert (details["training_images"], details["hold_out"]) == (33, result.rows[0]["hold_out"])


def test_an_untuned_arm_can_be_kept_from_the_split_too(data, tmp_path):
    swept = small_run(data, tmp_path, evaluator="scripted[which=[b,a]]", choose="scripted.which", keep_hold_out=True)
    alone = small_run(data, tmp_path, evaluator="scripted[which=a]", keep_hold_out=True)
    assert {cell["key"] for cell in alone.cells} <= {cell["key"] for cell in swept.cells}
    assert len(alone.rows) == 1
    with pytest.raises(UsageError, match="leave out --keep-hold-out"):
        small_run(data, tmp_path, score_on="validation", keep_hold_out=True)


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
    result = small_run(
        data, tmp_path, evaluator="scripted[which=a]", method="still[value=[3,1,2]]", choose="still.value"
    )
    assert result.rows[0]["method"] == "still[value=3]"


def test_the_second_time_nothing_is_done(data, tmp_path):
    words = small_words(data, tmp_path, evaluator="scripted[which=[b,a]]", choose="scripted.which")
    first, second = (ddbench("run", *words, "--json") for _ in range(2))
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert second.stderr.count("0 cells to make") == 2


def test_the_table_shows_choice_and_curve(data, tmp_path):
    shown = ddbench("run", *small_words(data, tmp_path, evaluator="scripted[which=[b,a]]", choose="scripted.which"))
    assert "scripted[which=a] chosen from scripted[which=b] 50.0, scripted[which=a] 90.0" in shown.stdout
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
        small_run(data, tmp_path, evaluator="scripted[which=[a,b]]", choose="scripted.which", score_on="validation")


def test_validation_scores_another_problem(data, tmp_path):
    validation = small_run(data, tmp_path, score_on="validation", evaluator="scripted[which=a]")
    test = small_run(data, tmp_path, evaluator="scripted[which=a]")
    assert [run.rows[0]["mean"] for run in (validation, test)] == [0.9, 0.1]
    assert not {cell["key"] for cell in validation.cells} & {cell["key"] for cell in test.cells}
    assert "accuracy on validation" in ddbench("run", *small_words(data, tmp_path, score_on="validation")).stdout


def test_choice_and_curve_are_kept_in_the_store(data, tmp_path):
    store = tmp_path / "store"
    run = small_run(data, store, evaluator="plain[epochs=2,lr=[0.01,0.1]]", choose="plain.lr")
    (choice,) = [record["result"] for record in records(store).values() if record["kind"] == "choice"]
    assert choice == run.rows[0]["chosen"]
    assert set(choice["curve"]) == {"plain[protocol=quick,epochs=2,lr=0.01]", "plain[protocol=quick,epochs=2,lr=0.1]"}


# --- what is explored -------------------------------------------------------------------------------------------------


def test_what_the_option_does_not_concern_is_not_scored_on_validation(data, tmp_path):
    methods = ["still", "dc[batch_real=4,lr_img=[0.1,1]]"]
    result = small_run(data, tmp_path, method=methods, evaluator="scripted[which=a]", choose="dc.lr_img")
    on_validation = {score["method"] for score in student_records(tmp_path) if score["score_on"] == "validation"}
    assert on_validation == {"dc[batch_real=4]", "dc[lr_img=1,batch_real=4]"}
    assert [row["method"] for row in result.rows] == ["still", "dc[batch_real=4]"]
    assert [row["validation"] is None for row in result.rows] == [True, False]


def test_an_option_of_the_pool_is_chosen(data, tmp_path):
    pool = "single[main=[convnet[width=4,depth=2],mlp[width=8]]]"
    result = small_run(data, tmp_path, pool=pool, evaluator="scripted[which=random]", choose="single.main")
    (row,) = result.rows
    assert row["chosen"]["value"] == row["pool"]
    assert len(row["chosen"]["curve"]) == 2
    assert len(sets_of(result)) == 3


def test_each_data_set_and_size_chooses_on_its_own(data, tmp_path):
    larger = write_arrays(tmp_path / "larger.npz", **dict(zip(("x_train", "y_train"), stripes(30), strict=True)))
    result = small_run(
        data,
        tmp_path / "store",
        dataset=[f"arrays[path={data}]", f"arrays[path={larger}]"],
        method="still[value=[1,2]]",
        evaluator="scripted[which=a]",
        ipc=[1, 2],
        choose="still.value",
    )
    assert [row["validation"]["images"] for row in result.rows] == [3, 3, 9, 9]
    choices = [record for record in records(tmp_path / "store").values() if record["kind"] == "choice"]
    assert len({(record["condition"]["dataset"], record["condition"]["ipc"]) for record in choices}) == 4
    assert {record["validation"]["of"] for record in choices} == {36, 90}
    assert any(f"arrays[path={larger}]: 9 of 90 training images, seed 0" in note for note in result.notes)


@pytest.mark.parametrize(
    "method",
    ["ddbench:dc[batch_real=4,lr_img=[0.1,1]]", ["dc[batch_real=4]", "dc[batch_real=4,lr_img=1]"]],
    ids=["distribution named", "default beside a value"],
)
def test_a_sweep_is_known_however_it_is_written(data, tmp_path, method):
    for choose in ("dc.lr_img", "ddbench:dc.lr_img"):
        result = small_run(data, tmp_path, method=method, evaluator="scripted[which=a]", choose=choose)
        assert len(result.rows[0]["chosen"]["curve"]) == 2
        assert result.rows[0]["chosen"]["option"] == "dc.lr_img"


@pytest.mark.parametrize(
    ("changes", "choose"),
    [
        ({"evaluator": "kd[temperature=[2,2.0]]"}, "kd.temperature"),
        ({"method": "random", "pool": "single[main=[mlp,convnet]]"}, "single.main"),
    ],
    ids=["equal values", "no row has it"],
)
def test_values_that_no_two_rows_have_are_no_sweep(data, tmp_path, changes, choose):
    with pytest.raises(UsageError, match="nothing sweeps it"):
        small_run(data, tmp_path / "none", choose=choose, **changes)
    assert not (tmp_path / "none").exists()


def test_the_split_follows_the_seed_and_is_shown(data, tmp_path):
    swept = {"evaluator": "scripted[which=[b,a]]", "choose": "scripted.which", "keep_hold_out": True}
    rows = [small_run(data, tmp_path, seed=seed, **swept).rows[0] for seed in (0, 7)]
    assert [row["hold_out"]["seed"] for row in rows] == [0, 7]
    shown = ddbench(
        "run", *small_words(data, tmp_path, evaluator="scripted[which=[b,a]]", choose="scripted.which", seed=7)
    )
    assert "on validation (3 of 36 training images, seed 7)" in shown.stdout
    assert "distilled on the whole training set and scored on test" in shown.stdout


def test_a_run_that_keeps_the_split_is_the_same_in_another_process(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    swept = {"evaluator": "scripted[which=[b,a]]", "choose": "scripted.which"}
    result = small_run(data, tmp_path / "store", keep_hold_out=True, **swept)
    store = Store(tmp_path / "store")
    runs = [Run.load(store, path.name) for path in (tmp_path / "store" / "runs").iterdir()]
    planned = {cell.key for run in runs for cell in run.plan(plugins().registry).cells}
    assert planned == {cell["key"] for cell in result.cells}
    assert {run.key for run in runs} == {path.name for path in (tmp_path / "store" / "runs").iterdir()}
    assert sorted(run.request.keep_hold_out for run in runs) == [False, True]
    assert {run.label.rpartition(", ")[2] for run in runs} == {"scored on validation", "without validation"}


# --- what fails -------------------------------------------------------------------------------------------------------


def test_a_value_that_fails_is_no_candidate_and_it_is_said(data, tmp_path):
    words = small_words(data, tmp_path, method="boom[at=[0,5]]", evaluator="scripted[which=a]", choose="boom.at")
    shown = ddbench("run", *words)
    assert shown.exit_code == 1
    assert "boom could not be scored on validation: no candidate" in shown.stdout
    assert "mlp[width=8]: boom[at=5] chosen from boom[at=5] 90.0" in shown.stdout


def test_where_all_values_fail_nothing_is_scored_and_one_line_says_so(data, tmp_path):
    words = small_words(data, tmp_path, method="boom[at=[0,1]]", evaluator="scripted[which=a]", choose="boom.at")
    for _ in range(2):
        shown = ddbench("run", *words)
        assert shown.exit_code == 1
        assert "--choose boom.at: all 2 values failed on validation, so nothing is scored on test" in shown.stdout
        assert shown.stdout.count("\n") == 3  # a pool is not applicable, this line, the store
        printed = json.loads(ddbench("run", *words, "--json").stdout)
        assert printed["rows"] == []
    assert "the scores in the store choose nothing" in ddbench("run", *words, "--dry-run").stdout


def test_a_group_without_a_choice_does_not_stop_the_others(data, tmp_path):
    """The iteration with index 1 raises: after one iteration one value is left, after two none."""
    changes = {"method": ["boom[at=[0,1]]", "still"], "iterations": [1, 2], "evaluator": "scripted[which=a]"}
    result = small_run(data, tmp_path, choose="boom.at", **changes)
    assert [(row["method"], row["iterations"]) for row in result.rows] == [
        ("boom[at=1]", 1),
        ("still", 1),
        ("still", 2),
    ]
    (line,) = [note for note in result.notes if "all 2 values failed on validation" in note]
    assert "iterations 2" in line
    assert "boom could not be scored on validation: no candidate" in result.notes
    assert result.failed


def test_a_value_with_too_few_students_is_named(data, tmp_path):
    result = small_run(data, tmp_path, evaluator="grim[student=[0,7]]", choose="grim.student")
    assert "grim was scored on validation in part only" in result.notes


def test_a_value_that_failed_before_may_be_chosen_when_it_is_made(data, tmp_path, monkeypatch):
    swept = {"method": "boom[at=[0,5]]", "evaluator": "scripted[which=a]", "choose": "boom.at"}
    assert small_run(data, tmp_path, **swept).rows[0]["method"] == "boom[at=5]"
    monkeypatch.setattr(toy_plugins.Boom, "step", lambda self, iteration, networks: {})
    result = small_run(data, tmp_path, retry_failed=True, **swept)
    assert result.rows[0]["method"] == "boom"  # the first of equals
    choices = {name: record for name, record in records(tmp_path).items() if record["kind"] == "choice"}
    assert {name[-1]: record["result"]["value"] for name, record in choices.items()} == {"1": "boom[at=5]", "2": "boom"}
    assert small_run(data, tmp_path, **swept).rows == result.rows
    assert len(records(tmp_path)) == len(result.cells) + 2 + 3  # both choices, and the first one's cells on test


class Impatient(Heard):
    """Interrupts after so many cells."""

    def __init__(self, cells):
        super().__init__()
        self.cells = cells

    def finished(self, cell, record):
        super().finished(cell, record)
        if len(self.done) == self.cells:
            raise KeyboardInterrupt


def test_a_run_stopped_after_any_cell_goes_on_with_the_same_choice(data, tmp_path):
    swept = {
        "method": "drift[value=[1,2]]",
        "evaluator": "scripted[which=random]",
        "choose": "drift.value",
        "students": 1,
    }
    whole = small_run(data, tmp_path / "whole", **swept)
    assert len(whole.cells) == 6
    for cells in range(1, 7):
        store = tmp_path / f"stopped-{cells}"
        with pytest.raises(KeyboardInterrupt):
            small_run(data, store, reporter=Impatient(cells), **swept)
        heard = Heard()
        assert small_run(data, store, reporter=heard, **swept).rows == whole.rows
        assert len(heard.done) == 6 - cells
        assert numbers(store) == numbers(tmp_path / "whole")


# --- before any work --------------------------------------------------------------------------------------------------


def test_a_class_of_one_image_is_refused_before_work(tmp_path):
    images, labels = stripes(12)
    lonely = np.flatnonzero(labels == 2)[1:]
    file = write_arrays(tmp_path / "few.npz", x_train=np.delete(images, lonely, 0), y_train=np.delete(labels, lonely))
    words = small_words(file, tmp_path / "none", evaluator="scripted[which=[b,a]]", choose="scripted.which")
    for more in ((), ("--dry-run",), ("--keep-hold-out",)):
        refused = ddbench("run", *words, *more)
        assert refused.exit_code == 2
        assert refused.stderr.count("\n") == 1
        assert (
            "class '2' has one training image, too few for a validation split: add images, or leave" in refused.stderr
        )
    assert not (tmp_path / "none").exists()


def test_a_size_that_only_the_whole_training_set_has_is_refused_before_work(data, tmp_path):
    swept = {"method": "still[value=[1,2]]", "evaluator": "scripted[which=a]", "ipc": 12}
    with pytest.raises(DataError, match="only 11 training images without the validation split"):
        small_run(data, tmp_path / "none", choose="still.value", **swept)
    assert not (tmp_path / "none").exists()
    assert small_run(data, tmp_path / "store", **swept).rows


def test_the_artifacts_of_both_stages_count_as_storage_before_work(data, tmp_path):
    experts = "experts=1,train_epochs=1,expert_epochs=1,max_start_epoch=1,steps=1"
    swept = {
        "method": f"mtt[{experts},lr_img=[1,10]]",
        "evaluator": "scripted[which=a]",
        "architecture": "mlp[width=8]",
    }
    words = small_words(data, tmp_path / "none", choose="mtt.lr_img", **swept)
    shown = ddbench("run", *words, "--dry-run")
    assert "to make first: 2 experts of" in shown.stdout
    refused = ddbench("run", *words, "--max-storage", "0.0000001")
    assert refused.exit_code == 2
    assert "2 experts of" in refused.stderr
    assert not (tmp_path / "none").exists()


def test_the_probability_of_a_pool_can_be_chosen_for_every_method_that_draws_networks(data, tmp_path):
    pool = "main-similar[main=[0.5,0.9,1.0],width=4,depth=1]"
    result = small_run(
        data, tmp_path, method="all", pool=pool, choose="main-similar.main", dry_run=True, students=1,
        set=["frepo.learn_labels=false"],
    )  # fmt: skip
    labels = [cell["label"] for cell in result.cells if cell["kind"] == "distilled"]
    drawing = {
        entry.name
        for entry in plugins().registry.of_kind("method")
        if entry.provider == "ddbench" and entry.load().uses_pool and entry.name != "sre2l"  # it needs batch norm
    }
    for method in drawing:
        chosen_from = {label for label in labels if label.startswith((f"{method}[", f"{method} "))}
        assert len(chosen_from) == 3, (method, chosen_from)
        assert all("without validation" in label for label in chosen_from)
