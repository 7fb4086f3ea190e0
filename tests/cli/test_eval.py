"""`ddbench eval` through its front door."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from studies import ARCHITECTURE, EVALUATOR, KD, ddbench, numbers, records, small_run, stripes, write_arrays
from test_run import assert_refused

import harness

WORDS = ("--evaluator", EVALUATOR, "--architecture", ARCHITECTURE, "--students", "2")


def evaluate(file, data, store, *more, options="normalize=mnist", words=WORDS):
    dataset = f"arrays[path={data}{',' if options else ''}{options}]"
    return ddbench("eval", file, "--dataset", dataset, "--store", store, *words, *more)


@pytest.fixture
def published(tmp_path):
    """Three sets in a file as DC's code writes it."""
    images, labels = stripes(1, seed=5)
    images = torch.from_numpy(images)[:, None] / 255
    sets = [[images * k, torch.from_numpy(labels)] for k in (1, 2, 3)]
    torch.save({"data": sets, "accs_all_exps": {"ConvNet": [0.5]}}, tmp_path / "res.pt")
    return tmp_path / "res.pt"


@pytest.fixture(scope="module")
def own(data, tmp_path_factory):
    """A set of a store, with the run's rows."""
    store = tmp_path_factory.mktemp("own")
    result = small_run(data, store, evaluator=[EVALUATOR, KD])
    key = next(cell["key"] for cell in result.cells if cell["kind"] == "distilled")
    return store / "cells" / key[:2] / f"{key}-1" / "set.safetensors", result


def test_a_stores_set_scores_as_it_did(own, data, tmp_path):
    file, before = own
    result = evaluate(file, data, tmp_path, "--evaluator", KD, "--json", options="")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)["rows"]
    for row, old in zip(rows, before.rows, strict=True):
        assert row == {**old, "draws": {}}, "a file does not record what was drawn"
    losses = [
        sorted(number["result"]["loss"] for number in numbers(store).values() if number["kind"] == "student")
        for store in (tmp_path, before.store)
    ]
    assert losses[0] == losses[1]


def test_a_published_file_is_evaluated(published, data, tmp_path):
    store = tmp_path / "store"
    result = evaluate(published, data, store)
    assert result.exit_code == 0, result.output
    assert "file:res.pt#2" in result.stdout
    assert evaluate(published, data, store).stderr.count("0 cells to make, 2 in the store") == 1
    printed = json.loads(evaluate(published, data, store, "--json").stdout)
    assert printed["rows"][0]["method"] == "file:res.pt#2"
    assert printed["rows"][0]["ipc"] == 1
    assert all(record["kind"] == "student" for record in records(store).values())


def test_each_entry_is_a_set_of_its_own(published, data, tmp_path):
    keys = []
    for entry in ("0", "1", "2", "-1"):
        printed = json.loads(evaluate(published, data, tmp_path / "store", "--entry", entry, "--json").stdout)
        keys.append([cell["key"] for cell in printed["cells"]])
    assert keys[2] == keys[3]
    assert len({tuple(part) for part in keys}) == 3


def test_which_entry_was_taken_is_shown(published, data, tmp_path):
    assert "entry 2 of 3" in evaluate(published, data, tmp_path / "store").output
    assert "entry 0 of 3" in evaluate(published, data, tmp_path / "store", "--entry", "0").output


def test_preprocessing_is_part_of_the_set(published, data, tmp_path):
    keys = set()
    for name in ("mnist", "auto", "fashion-mnist"):
        printed = json.loads(evaluate(published, data, tmp_path / "s", "--json", options=f"normalize={name}").stdout)
        keys |= {cell["key"] for cell in printed["cells"]}
    assert len(keys) == 6


def test_a_set_brings_its_own_preprocessing(own, data, tmp_path):
    file, before = own
    result = evaluate(file, data, tmp_path, "--json", options="normalize=mnist")
    assert json.loads(result.stdout)["rows"][0]["mean"] == before.rows[0]["mean"]


def test_more_students_add_to_those_there(published, data, tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    evaluate(published, data, once, "--students", "5")
    evaluate(published, data, twice)
    evaluate(published, data, twice, "--students", "5")
    assert numbers(once) == numbers(twice)
    assert len(numbers(once)) == 5


def test_through_python(published, data, tmp_path):
    options = {"evaluator": EVALUATOR, "architecture": ARCHITECTURE, "students": 1, "store": tmp_path / "store"}
    result = harness.evaluate(published, entry=1, dataset=f"arrays[path={data},like=mnist]", **options)
    assert result.rows[0]["like"] == "mnist"
    assert not result.failed


def test_a_choice_on_a_set_from_elsewhere_says_what_it_may_have_seen(published, data, tmp_path):
    swept = "kd[epochs=2,teacher=mlp[width=8],temperature=[1,4]]"
    words = ("--evaluator", swept, "--architecture", ARCHITECTURE, "--students", "1", "--choose", "kd.temperature")
    result = evaluate(published, data, tmp_path / "store", words=words)
    assert result.exit_code == 0, result.output
    assert "res.pt was distilled elsewhere and may have seen the validation split" in result.stdout
    validation = evaluate(published, data, tmp_path / "store", "--score-on", "validation")
    assert "may have seen" in validation.stdout


def test_the_choice_on_a_set_from_elsewhere_is_scored_as_without_a_choice(published, data, tmp_path):
    swept = "kd[epochs=2,teacher=mlp[width=8],temperature=[1,4]]"
    words = ("--evaluator", swept, "--architecture", ARCHITECTURE, "--students", "1", "--json")
    result = evaluate(published, data, tmp_path / "store", words=(*words, "--choose", "kd.temperature"))
    (row,) = json.loads(result.stdout)["rows"]
    assert row["validation"] == {"images": 3, "of": 36, "seed": 0}
    assert row["hold_out"] is None
    assert "kd.temperature was chosen" in result.stderr
    assert "the chosen ones are scored on test" in result.stderr
    assert "distilled on the whole training set" not in result.stderr
    plain = json.loads(evaluate(published, data, tmp_path / "store", words=words).stdout)
    assert {**row, "chosen": None} in [
        {**other, "chosen": None, "validation": row["validation"]} for other in plain["rows"]
    ]


def test_a_file_was_distilled_with_whatever_images_it_was(published, data, tmp_path):
    (tmp_path / "file.toml").write_text("keep-hold-out = true")
    words = ("--dataset", f"arrays[path={data}]", "--store", tmp_path / "none", "--config", tmp_path / "file.toml")
    assert_refused(ddbench("eval", published, *words), "--keep-hold-out is about a distillation")
    assert not (tmp_path / "none").exists()


def test_code_in_a_file_is_not_run(data, tmp_path):
    trace, file = tmp_path / "trace", tmp_path / "res.pt"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    torch.save({"data": [Evil()]}, file)
    assert_refused(evaluate(file, data, tmp_path / "store"), "res.pt", "could run code")
    assert os.listdir(tmp_path) == ["res.pt"]


def damaged(name, published, own, tmp_path):
    """A file and what is said of it."""
    file = tmp_path / "other.pt"
    if name == "missing":
        return tmp_path / "none.pt", ["no such file"]
    if name == "a folder":
        return tmp_path, ["no class folders", "CLASS/"]
    if name == "missing safetensors":
        return tmp_path / "none.safetensors", ["no such file"]
    if name == "truncated":
        file.write_bytes(published.read_bytes()[:500])
        return file, ["other.pt cannot be read"]
    if name == "no dictionary":
        torch.save([1], file)
        return file, ["no list 'data'"]
    if name == "picture":
        return own[0].with_name("images.png"), ["images.png"]
    if name == "state":
        return own[0].with_name("state.safetensors"), ["state.safetensors is not a distilled set"]
    images, labels = torch.zeros(3, 1, 16, 16), torch.arange(3)
    changed = {
        "shape": ([torch.zeros(3, 3, 16, 16), labels], ["(3, 16, 16)", "(1, 16, 16)", "--dataset"]),
        "size": ([torch.zeros(3, 1, 8, 8), labels], ["(1, 8, 8)", "--dataset"]),
        "label": ([images, labels + 1], ["labels must lie in 0 ... 2"]),
        "float labels": ([images, labels.float()], ["integers"]),
        "NaN": ([images / 0, labels], ["NaN"]),
        "flat": ([images.flatten(1), labels], ["images must be"]),
    }[name]
    torch.save({"data": [changed[0]], "accs_all_exps": {}}, file)
    return file, changed[1]


NAMES = [
    *("missing", "a folder", "missing safetensors", "truncated", "no dictionary", "picture", "state"),
    *("shape", "size", "label", "float labels", "NaN", "flat"),
]


@pytest.mark.parametrize("name", NAMES)
def test_files_that_cannot_be_meant_are_refused(published, own, data, tmp_path, name):
    file, says = damaged(name, published, own, tmp_path)
    assert_refused(evaluate(file, data, tmp_path / "store"), *says)
    assert not (tmp_path / "store").exists()


def test_other_numbers_of_classes_are_refused(own, published, tmp_path):
    four = write_arrays(tmp_path / "four.npz", classes=4)
    assert_refused(evaluate(own[0], four, tmp_path / "store"), "3 classes", "has 4", "--dataset")
    two = write_arrays(tmp_path / "two.npz", classes=2)
    assert_refused(evaluate(published, two, tmp_path / "store"), "labels must lie in 0 ... 1")


def test_soft_labels_and_whitening_are_evaluated(data, tmp_path):
    arrays = np.load(data)
    images = torch.from_numpy(arrays["x_train"])[:, None]
    whiten = harness.Whiten.fitted(images, 0.1)
    soft = torch.eye(3) * 0.7 + 0.1
    provenance = {"method": "mine", "status": "blown up", "iterations": 7}
    distilled = harness.DistilledSet(whiten.to_inputs(images[::12]), soft, ("a", "b", "c"), whiten, 0.01, provenance)
    harness.save_distilled(distilled, tmp_path / "mine.safetensors")
    assert load_file(tmp_path / "mine.safetensors")["labels"].shape == (3, 3)
    result = evaluate(tmp_path / "mine.safetensors", data, tmp_path / "store", "--json", options="")
    (row,) = json.loads(result.stdout)["rows"]
    assert (row["method"], row["status"], row["iterations"]) == ("mine", "blown up", 7)
    assert result.exit_code == 0


def test_mtts_tensors_are_evaluated_at_their_step_size(data, tmp_path):
    images, labels = stripes(1, seed=5)
    torch.save(torch.from_numpy(images)[:, None] / 255, tmp_path / "images_best.pt")
    torch.save(torch.from_numpy(labels), tmp_path / "labels_best.pt")
    words = ("--evaluator", "plain[protocol=mtt,epochs=2]", "--architecture", ARCHITECTURE, "--students", "1")
    refused = evaluate(tmp_path, data, tmp_path / "store", words=words)
    assert "learned step size, which this set does not have" in refused.output
    for step_size in ("0.01", "0.02"):
        result = evaluate(tmp_path, data, tmp_path / "store", "--step-size", step_size, words=words)
        assert result.exit_code == 0, result.output
    assert "file:" in result.stdout
    assert len(records(tmp_path / "store")) == 2, "another step size is another set"


def test_packed_and_ranked_sets_are_evaluated(data, tmp_path):
    torch.save([torch.rand(3, 1, 16, 16), torch.arange(3)], tmp_path / "data.pt")
    torch.save(torch.randn(3, 1, 16, 16), tmp_path / "images.pt")
    for name, format in (("data.pt", "idc[factor=2]"), ("images.pt", "ddranking")):
        options = {"evaluator": EVALUATOR, "architecture": ARCHITECTURE, "students": 1, "store": tmp_path / "store"}
        how = {"dataset": f"arrays[path={data},like=mnist]", "format": format, **options}
        result = harness.evaluate(tmp_path / name, **how)
        assert not result.failed
        assert result.rows[0]["ipc"] == 1


def test_provenance_of_others_cannot_break_anything(data, tmp_path):
    images, labels = torch.zeros(3, 1, 16, 16), torch.arange(3)
    preprocessing = harness.Normalize("n", torch.zeros(1), torch.ones(1))
    odd = {"iterations": "many", "method": 7, "pool": "\x1b[2J", "status": 3, "entries": 9, "stored_accuracies": [1]}
    harness.save_distilled(
        harness.DistilledSet(images, labels, ("a", "b", "c"), preprocessing, None, odd), tmp_path / "odd.safetensors"
    )
    result = evaluate(tmp_path / "odd.safetensors", data, tmp_path / "store", options="")
    assert result.exit_code == 0, result.output
    assert result.exception is None
    assert "\x1b" not in result.output
