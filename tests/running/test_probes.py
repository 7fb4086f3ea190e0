"""Probes of a pool: made on a split, recorded, interrupted anywhere, and replayed on the whole training set."""

import json
import shutil

import numpy as np
import pytest
from studies import METHOD, Heard, ddbench, records, small_run, small_words, stripes, write_arrays

from harness import UsageError
from harness.learning.networks.probes import Prober
from harness.planning import time_estimate
from harness.plugins.discovery import plugins
from harness.report.page.choices import choices_section
from harness.report.results import read_results
from harness.store.files.reading import with_checksum, without_checksum

POOL = (
    "adaptive[main=convnet[width=4,depth=2],others=mlp[width=4],probabilities=0.2+0.9,every=2,panel=mlp[width=8]+"
    "convnet[width=4,depth=1],evaluator=plain[epochs=2]{}]"
)
STUDY = {"method": METHOD, "pool": POOL.format(""), "iterations": 5, "students": 1}


class Killed(KeyboardInterrupt):
    """Stands for a kill: nothing more is written."""


def sets(store):
    """The records of sets: the one that was probed on the split, and the one that is scored."""
    distilled = [record for record in records(store).values() if record["kind"] == "distilled"]
    return sorted(distilled, key=lambda record: record["result"]["hold_out"] is None)


def bits(record):
    """All that must never differ in the record of a set: its files, and its history without times."""
    history = {name: value for name, value in record["history"].items() if name not in ("seconds", "probes")}
    probes = [(probe["iteration"], probe["accuracies"]) for probe in record["history"].get("probes", ())]
    return record["files"], history, probes


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The store of a run in one go, and what it reported."""
    store, heard = tmp_path_factory.mktemp("probed"), Heard()
    result = small_run(data, store, reporter=heard, **STUDY)
    assert not result.failed
    return store, result, heard


def test_probes_are_made_on_the_split_and_recorded(whole):
    searched, _ = sets(whole[0])
    assert searched["result"]["hold_out"] == {"images": 3, "of": 36, "seed": 0}
    probes = searched["history"]["probes"]
    assert [probe["iteration"] for probe in probes] == [0, 2, 4]
    for probe in probes:
        assert {name: len(scores) for name, scores in probe["accuracies"].items()} == {
            "mlp[width=8]": 2, "convnet[width=4,depth=1]": 2,
        }  # fmt: skip
        # Three images of the validation split, not the 18 of the test set.
        scores = [score for of_architecture in probe["accuracies"].values() for score in of_architecture]
        assert all(3 * score == pytest.approx(round(3 * score)) for score in scores)
    seconds = sum(probe["seconds"] for probe in probes)
    assert searched["result"]["search"]["probe_seconds"] == pytest.approx(seconds)
    assert seconds > 0
    assert searched["result"]["seconds"] == pytest.approx(searched["history"]["seconds"] + seconds)


def test_the_whole_training_set_is_distilled_by_what_was_found(whole):
    searched, replayed = sets(whole[0])
    assert replayed["result"]["training_images"] == 36
    for name in ("draws", "architectures"):
        assert replayed["history"][name] == searched["history"][name]
    of_main = [record["history"]["scalars"]["main_probability"] for record in (searched, replayed)]
    assert of_main[0] == of_main[1]
    assert set(of_main[0]) <= {0.2, 0.9}
    assert searched["history"]["schedule"][0]["since"] == 0
    assert "probes" not in replayed["history"]
    search = replayed["result"]["search"]
    assert search["set"] == searched["key"] == replayed["identity"]["search_set"]
    assert search["probes"] == searched["history"]["probes"]
    expected = replayed["history"]["seconds"] + searched["result"]["seconds"]
    assert replayed["result"]["seconds"] == pytest.approx(expected), "what it took to find them counts"


def test_the_table_says_what_the_pool_did(whole):
    _, result, _ = whole
    (row,) = result.rows
    assert row["adapting"]["probes"] == 3
    assert [place for place, _ in row["adapting"]["main_probability"]] == [0, 1, 2, 3, 4]
    assert any("probes are scored on 3 of 36 training images" in note for note in result.notes)


def test_the_command_line_says_so_too(data, whole):
    done = ddbench("run", *small_words(data, whole[0], pool=f"{STUDY['pool']}", iterations=5, students=1))
    assert done.exit_code == 0
    assert "probability of the main architecture by iteration" in done.stdout
    assert "3 probes" in done.stdout


@pytest.mark.parametrize(
    ("iterations", "words"), [(2, "; a single probe in 2 iterations shows no gain: give more --iterations"), (3, "")]
)
def test_a_plan_says_if_there_are_too_few_probes(data, tmp_path, iterations, words):
    planned = small_run(data, tmp_path / "store", **{**STUDY, "iterations": iterations, "dry_run": True})
    (note,) = [note for note in planned.notes if "probes are scored on" in note]
    assert ("shows no gain" in note) == bool(words)
    assert words in note


def test_a_method_of_a_single_step_has_nothing_to_be_probed(data, tmp_path):
    planned = small_run(data, tmp_path / "store", **{**STUDY, "method": f"rded,{METHOD}", "dry_run": True})
    (line,) = [note for note in planned.notes if "not applicable" in note]
    assert line.startswith("rded through adaptive[")
    assert line.endswith("is not applicable: it has no set in the making, which this pool would probe")
    assert not any("rded" in cell["label"] for cell in planned.cells)
    with pytest.raises(UsageError, match="no set in the making"):
        small_run(data, tmp_path / "store", **{**STUDY, "method": "rded"})


@pytest.mark.parametrize("students", [1, 6])
def test_a_run_that_ends_in_the_midst_of_a_probe_goes_on_with_the_same_bits(
    data, whole, tmp_path, monkeypatch, students
):
    """Each probe has four students: 1 is in the first probe, 6 in the second."""
    trained, measure = [], Prober.measure

    def counting(self, distilled, done):
        for answer in measure(self, distilled, done):
            if len(trained) == students and not counting.goes_on:
                raise Killed
            trained.append(answer[0])
            yield answer

    counting.goes_on = False
    monkeypatch.setattr(Prober, "measure", counting)
    with pytest.raises(Killed):
        small_run(data, tmp_path, reporter=Heard(), checkpoint_every=0, **STUDY)
    counting.goes_on = True
    small_run(data, tmp_path, reporter=Heard(), checkpoint_every=0, **STUDY)
    assert [bits(record) for record in sets(tmp_path)] == [bits(record) for record in sets(whole[0])]
    # Before the first step there is no checkpoint, and the first probe is made again.
    assert len(trained) == 12 + (students if students < 4 else 0)


def test_a_longer_run_goes_on_from_a_shorter_one(data, whole, tmp_path):
    small_run(data, tmp_path, **{**STUDY, "iterations": 3})
    small_run(data, tmp_path, **STUDY)
    of_five = [record for record in sets(tmp_path) if record["result"]["iterations"] == 5]
    assert [bits(record) for record in of_five] == [bits(record) for record in sets(whole[0])]


def test_test_images_decide_nothing(whole, tmp_path):
    images, labels = stripes(6, seed=9)
    other = write_arrays(tmp_path / "other.npz", x_test=images, y_test=np.roll(labels, 1))
    small_run(other, tmp_path / "store", **STUDY)
    ours, theirs = ([bits(record)[1:] for record in sets(store)] for store in (whole[0], tmp_path / "store"))
    assert ours == theirs


def test_a_split_that_is_held_out_anyway_is_probed_and_scored_without_a_replay(data, whole, tmp_path):
    result = small_run(data, tmp_path, keep_hold_out=True, **STUDY)
    (searched,) = sets(tmp_path)
    assert bits(searched)[1:] == bits(sets(whole[0])[0])[1:]
    assert searched["key"] == sets(whole[0])[0]["key"], "the same work, whoever asks for it"
    assert result.rows[0]["adapting"]["probes"] == 3


def test_without_a_replay_the_probed_set_is_scored(data, tmp_path):
    result = small_run(data, tmp_path, **{**STUDY, "pool": POOL.format(",replay=false")})
    (searched,) = sets(tmp_path)
    assert searched["result"]["hold_out"]["images"] == 3
    assert result.rows[0]["score_on"] == "test"


def test_scores_on_the_probed_split_are_called_optimistic(data, tmp_path):
    result = small_run(data, tmp_path, score_on="validation", dry_run=True, **STUDY)
    assert any("their scores are optimistic" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (",evaluator=kd[epochs=2]", "cannot use kd[epochs=2], which needs a trained network"),
        (",evaluator=plane", "there is no evaluator 'plane'"),
        (",panel=perceptron", "there is no architecture 'perceptron'"),
        (",evaluator=plain[protocol=dd]", "trains by a set's schedule"),
    ],
)
def test_probes_that_cannot_be_made_are_refused_in_a_line_before_any_work(data, tmp_path, options, line):
    pool = "adaptive[main=convnet[width=4,depth=2],others=mlp[width=4]" + options + "]"
    with pytest.raises(UsageError) as error:
        small_run(data, tmp_path, **{**STUDY, "pool": pool})
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("cells/*/*"))


def test_the_estimate_counts_the_search_and_its_probes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(time_estimate, "_rate", lambda device: 1e9)

    def estimate(pool):
        return small_run(data, tmp_path, dry_run=True, **{**STUDY, "pool": pool}).estimate

    main = "main=convnet[width=4,depth=2],others=mlp[width=4]"
    plain = estimate(f"main-similar[{main.replace(']', ']:0.55', 1)}]")
    rare, usual, frequent = (estimate(POOL.format("").replace("every=2", f"every={every}")) for every in (100, 3, 2))
    # The search distils once more: one probe in it, then two, then three.
    assert plain < rare < usual < frequent
    assert usual - rare == pytest.approx(frequent - usual)


def test_a_choice_among_probabilities_is_made_by_a_run(data, tmp_path):
    pool = "main-similar[main=[convnet[width=4,depth=1]:0.5,convnet[width=4,depth=1]:1.0],others=mlp[width=4]]"
    for method in ("dc[batch_real=4]", "dm[batch_real=4]"):
        study = {**STUDY, "method": method, "pool": pool, "iterations": 2}
        (row,) = small_run(data, tmp_path, choose="main-similar.main", **study).rows
        assert len(row["chosen"]["curve"]) == 2
        assert row["chosen"]["value"] == row["pool"]


def test_a_choice_says_which_values_were_probed_on_the_split_that_decides(data, tmp_path):
    pool = POOL.format("").replace("probabilities=0.2+0.9", "probabilities=[0.2+0.9,0.5]")
    words = small_words(data, tmp_path, **{**STUDY, "pool": pool, "iterations": 2, "choose": "adaptive.probabilities"})
    line = "--choose adaptive.probabilities: 1 of 2 values is probed on the validation split that decides"
    assert line in ddbench("run", *words, "--dry-run").stdout
    done = ddbench("run", *words)
    assert done.exit_code == 0, done.output
    assert line in done.stderr
    assert "; 1 of 2 values was probed on it, whose accuracies are optimistic" in done.stdout
    (choice,) = read_results([tmp_path], plugins().registry).choices
    (probed,) = choice.probed
    assert "probabilities=0.2+0.9" in probed
    (group,) = choices_section([choice], plugins().registry).parts[0].tables[0].groups
    assert "1 of 2 values was probed on it" in str(group.rows[0])


def test_records_of_older_code_are_computed_again_from_the_search_on(whole, tmp_path):
    store = shutil.copytree(whole[0], tmp_path / "store")
    for path in (store / "cells").glob("??/*/record.json"):
        record = without_checksum(json.loads(path.read_text()))
        record["provenance"]["code_digests"] = dict.fromkeys(record["provenance"]["code_digests"], "0" * 64)
        path.write_text(json.dumps(with_checksum(record)))
    done = ddbench("results", "adopt", "--store", store, "--check", 100)
    assert done.exit_code == 0, done.output
    assert "3 cells computed again without a difference, 0 with one; 3 records adopted" in done.output
