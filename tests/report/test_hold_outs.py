"""Tuned arms stand beside untuned ones; sets distilled without the validation split are named wherever they stand."""

import csv
import io
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pages import Page, tables
from studies import ddbench, small_run, small_words, write_arrays
from synthetic import set_record, student_record, write_store
from test_page import cells_by_command, keys_of

from harness.plugins.discovery import plugins
from harness.report.published import nearest_published
from harness.report.results import read_results
from harness.report.scores import read_scores
from harness.store.cells import key_of
from harness.types.data.hold_out import HoldOut

pytestmark = pytest.mark.usefixtures("blank_pictures")

UNTUNED = "dc[batch_real=4]"
SWEPT = {"method": "dc[lr_img=[1,10],batch_real=4]", "choose": "dc.lr_img"}
SMALLER = {"iterations": 1, "students": 1, "distillations": 2}
WITHOUT = "without 3 of 36 training images, seed 0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store with an untuned arm, a tuned one, and the tuned one without the validation split."""
    folder = tmp_path_factory.mktemp("hold-outs")
    data = write_arrays(folder / "toy.npz")
    for changes in ({"method": UNTUNED}, SWEPT, {**SWEPT, "keep_hold_out": True}):
        result = small_run(data, folder / "store", **SMALLER, **changes)
    (folder / "chosen").write_text(result.rows[0]["method"])
    return folder


def compare(*words, form="json"):
    result = ddbench("compare", *words, "--format", form)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if form == "json" else result.stdout


def test_a_tuned_arm_is_paired_with_an_untuned_one(folder):
    chosen = (folder / "chosen").read_text()
    answer = compare(folder / "store", "--by", "method", "--baseline", UNTUNED)
    (tuned,) = [row for row in answer["rows"] if row["value"] == chosen and row["hold_out"] is None]
    assert (tuned["design"], tuned["units"], tuned["training_images"]) == ("distillations", "2", 36)
    assert f"{chosen} was chosen on validation for dc.lr_img (3 of 36 training images, seed 0)" in answer["notes"]


def test_an_arm_without_the_split_stands_apart_under_a_name_that_says_so(folder):
    answer = compare(folder / "store", "--by", "method", "--baseline", UNTUNED)
    (held_out,) = [row for row in answer["rows"] if row["hold_out"]]
    assert (held_out["training_images"], held_out["hold_out"]) == (33, "3 of 36 training images, seed 0")
    assert held_out["dataset"].endswith(f"({WITHOUT})")
    assert held_out["difference"] is None
    assert any(
        f"2 scores of sets distilled from fewer images: {held_out['dataset'][:9]}" in note for note in answer["notes"]
    )
    (line,) = [
        line
        for line in csv.DictReader(
            io.StringIO(compare(folder / "store", "--by", "method", "--baseline", UNTUNED, form="csv"))
        )
        if line["hold_out"]
    ]
    assert line["training_images"] == "33"
    assert WITHOUT in compare(folder / "store", "--by", "method", "--baseline", UNTUNED, form="terminal")


def test_what_only_others_lack_is_not_said(folder):
    answer = compare(folder / "store", "--by", "method", "--baseline", UNTUNED, "--method", UNTUNED)
    assert not [note for note in answer["notes"] if "fewer images" in note or "chosen" in note]


def test_a_comparison_on_validation_names_the_split(folder):
    answer = compare(folder / "store", "--by", "iterations", "--score-on", "validation")
    assert any(note.endswith(": validation is 3 of 36 training images, seed 0") for note in answer["notes"])
    assert not [row for row in answer["rows"] if "without" in row["dataset"]]


def test_the_page_names_choice_split_and_what_was_held_out(folder, tmp_path):
    chosen = (folder / "chosen").read_text()
    assert ddbench("report", folder / "store", "--output", tmp_path / "page.html").exit_code == 0
    text = (tmp_path / "page.html").read_text()
    assert any(WITHOUT in caption for caption in tables(text))
    _, group, line = tables(text)["What was chosen on validation"]
    assert group == ["dc.lr_img"]
    assert line[1] == chosen
    assert line[2].count("dc[lr_img=") == 2
    assert line[3] == "3 of 36 training images, seed 0"
    assert "mlp[width=8]" in line[4]
    assert "distilled from fewer images" in Page(text).text


def test_each_command_makes_what_was_scored_without_the_split(folder):
    commands = cells_by_command(folder / "store")
    assert sum("--keep-hold-out" in command for command in commands) == 1
    assert not [command for command in commands if "--choose" in command]
    for command, keys in commands.items():
        assert keys_of(command) == keys


def test_the_table_names_what_was_held_out(folder):
    words = small_words(folder / "toy.npz", folder / "store", **SMALLER, **SWEPT)
    held_out, whole = (ddbench("run", *words, *more).stdout for more in (["--keep-hold-out"], []))
    line = "distilled from fewer images, without the validation split: 3 of 36 training images, seed 0"
    assert line in held_out
    assert line not in whole
    on_validation = [word for word in words if word not in ("--choose", "dc.lr_img")]
    assert "validation is 3 of 36" in ddbench("run", *on_validation, "--score-on", "validation").stdout


def held_out_records():
    """Two pools, both without the validation split."""
    split = {"hold_out": {"images": 3, "of": 36, "seed": 0}, "training_images": 33}
    for pool, distillation in itertools.product(("single", "main-similar"), range(3)):
        of = set_record(pool=pool, distillation=distillation, **split)
        yield of
        yield student_record(of, accuracy=0.5 + 0.01 * distillation, **split)


def test_a_name_says_once_what_was_held_out(tmp_path):
    store = write_store(tmp_path / "store", held_out_records())
    assert ddbench("report", store, "--output", tmp_path / "page.html").exit_code == 0
    text = Page((tmp_path / "page.html").read_text()).text
    assert f"dc, 1,000 iterations on digits ({WITHOUT}), 1 image per class, plain" in " ".join(text.split())
    assert f"{WITHOUT}) (" not in text
    answer = compare(store, "--by", "pool", "--dataset", "digits")
    assert {row["dataset"] for row in answer["rows"]} == {f"digits ({WITHOUT})"}


def test_a_command_for_what_is_missing_holds_the_split_out_too(folder, tmp_path):
    small_run(folder / "toy.npz", tmp_path / "store", **SMALLER, keep_hold_out=True)
    lacking = ddbench("report", tmp_path / "store", "--report", "robust-scores[hard=plain]", "--output", "-")
    assert f"ddbench run --dataset 'arrays[path={folder / 'toy.npz'}]' --keep-hold-out --method" in lacking.stderr


# --- records of earlier versions --------------------------------------------------------------------------------------


def earlier_records(*, method="dm"):
    """A set on a part of the images that was scored on validation and on test, and one on all of them."""
    held_out, whole = set_record(method=method, problem="part"), set_record(method=method, problem="all")
    yield from (held_out, whole)
    yield student_record(held_out, score_on="validation")
    yield student_record(held_out, accuracy=0.4)
    yield student_record(whole, accuracy=0.5)


def choice_record(**changes):
    identity = {"kind": "choice", "option": "dm.lr_img", "among": [], "group": "()"}
    result = {"option": "dm.lr_img", "value": "dm", "curve": {"dm": 0.5, "dm[lr_img=10]": 0.4}}
    record = {"kind": "choice", "label": "dm chosen for dm.lr_img", "identity": identity, "provenance": {}}
    return {"schema": 1, "key": key_of(identity), **record, "result": result, "files": {}, **changes}


def test_earlier_records_are_known_by_the_images_that_were_scored_on_validation(tmp_path):
    store = write_store(tmp_path / "store", earlier_records())
    answer = compare(store, "--by", "method")
    names = {row["dataset"]: row["mean"] for row in answer["rows"]}
    assert names == {"digits": 0.5, "digits (without part of the training images, seed 0)": 0.4}
    results = read_results([store], plugins().registry)
    held_out = [score for score in results.scores if score.score_on == "test" and score.hold_out]
    assert len(held_out) == 1
    assert results.origin(held_out[0]).command.count("--keep-hold-out") == 1


def test_an_earlier_choice_is_reported_without_its_split(tmp_path):
    store = write_store(tmp_path / "store", [*earlier_records(), choice_record()])
    assert ddbench("report", store, "--output", tmp_path / "page.html").exit_code == 0
    *_, line = tables((tmp_path / "page.html").read_text())["What was chosen on validation"]
    assert line == ["dm.lr_img", "dm", "dm 50.0, dm[lr_img=10] 40.0", "not recorded", "not recorded"]
    assert "dm was chosen on validation for dm.lr_img" in compare(store, "--by", "method")["notes"]


@pytest.mark.parametrize(
    "changes",
    [
        {"result": None},
        {"result": {"option": "dm.lr_img", "value": "dm"}},
        {"result": {"option": "dm.lr_img", "value": "dm", "curve": ["dm"]}},
        *({"result": {"option": "dm.lr_img", "value": "dm", "curve": {"dm": mean}}} for mean in (None, "0.5", 10**400)),
        {"condition": {"dataset": "digits"}},
        {"condition": "all"},
        {"validation": {"images": "3", "of": 36, "seed": 0}},
    ],
    ids=str,
)
def test_a_choice_that_cannot_be_used_is_named_and_stops_nothing(tmp_path, changes):
    store = write_store(tmp_path / "store", [*earlier_records(), choice_record(**changes)])
    answer = compare(store, "--by", "method")
    assert any("cannot be " in note for note in answer["notes"])  # used, or read
    assert answer["rows"]


@pytest.mark.parametrize("field", [{"training_images": "many"}, {"hold_out": {"images": 3}}, {"hold_out": [3, 36, 0]}])
def test_a_score_that_holds_no_valid_split_is_left_out_aloud(tmp_path, field):
    of = set_record()
    scores = read_scores([write_store(tmp_path / "store", [of, student_record(of, **field)])])
    assert scores.scores == ()
    assert next(iter(field)) in scores.notes[0]


@given(some.recursive(some.none() | some.booleans() | some.integers() | some.text(), lambda children: (
    some.lists(children) | some.dictionaries(some.sampled_from(["images", "of", "seed", "x"]), children))))  # fmt: skip
def test_only_whole_numbers_describe_a_split(value):
    if value is None:
        assert HoldOut.from_json(value) is None
    elif isinstance(value, dict) and all(type(value.get(name)) is int for name in ("images", "of", "seed")):
        split = HoldOut.from_json(value)
        assert HoldOut.from_json(split.as_json()) == split
    else:
        with pytest.raises(TypeError, match="hold_out"):
            HoldOut.from_json(value)


def test_no_published_number_is_of_fewer_images():
    row = {"like": "cifar10", "ipc": 1, "iterations": 1000, "method": "dc", "pool": "single", "protocol": "plain v1",
           "architecture": "convnet", "score_on": "test", "preprocessing": "cifar10"}  # fmt: skip
    assert nearest_published({**row, "hold_out": None}).departures == ()
    held_out = {"images": 5000, "of": 50000, "seed": 0}
    assert nearest_published({**row, "hold_out": held_out}).departures == ("distilled from all training images",)
