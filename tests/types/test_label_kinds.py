"""Kinds of labels and schedules of a distilled set: what is valid, what is stored, and which files can hold it."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from studies import ddbench
from toys import toy_problem, toy_set

from harness import (
    DataError,
    DistilledSet,
    Normalize,
    Schedule,
    ScheduleStep,
    load_distilled,
    open_encoding,
    save_distilled,
)

CLASSES = ("a", "b", "c")
PREPROCESSING = Normalize("n", torch.tensor([0.5]), torch.tensor([0.25]))
IMAGES = torch.arange(3 * 16).reshape(3, 1, 4, 4).float() / 64
CENTRED = torch.eye(3) - 1 / 3
SCHEDULE = Schedule((ScheduleStep(0.3, (2, 0)), ScheduleStep(0.1, (1,)), ScheduleStep(0.2, (2, 0))))


def a_set(labels=None, **changes):
    labels = torch.arange(3) if labels is None else labels
    return DistilledSet(
        **{"images": IMAGES, "labels": labels, "classes": CLASSES, "preprocessing": PREPROCESSING} | changes
    )


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["ddbench"])


def test_the_kind_is_that_of_the_type_unless_regression_is_declared():
    assert a_set().label_kind == "hard"
    assert a_set(torch.full((3, 3), 1 / 3)).label_kind == "soft"
    assert a_set(CENTRED, label_kind="regression").label_kind == "regression"
    # A copy with other labels has their kind, as it had when no kind could be declared.
    assert dataclasses.replace(a_set(), labels=torch.full((3, 3), 1 / 3)).label_kind == "soft"
    assert dataclasses.replace(a_set(torch.full((3, 3), 1 / 3)), labels=torch.arange(3)).label_kind == "hard"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": CENTRED}, "they seem to be centred .* or declare label_kind='regression'"),
        ({"labels": torch.arange(3), "label_kind": "regression"}, "labels are hard, but label_kind says 'regression'"),
        ({"labels": CENTRED, "label_kind": "real"}, "label_kind says 'real', which is not hard, soft or regression"),
        ({"labels": torch.zeros(3, 2), "label_kind": "regression"}, "values for 2 classes, but there are 3"),
        ({"labels": torch.full((3, 3), torch.inf), "label_kind": "regression"}, "labels have NaN or infinite values"),
        ({"labels": torch.zeros(2, 3), "label_kind": "regression"}, "3 images but 2 labels"),
        ({"schedule": Schedule((ScheduleStep(0.1, (0,)), ScheduleStep(0.1, (1, 3))))}, "step 1 .* owns image 3, but"),
        ({"schedule": [0.1]}, "must be a Schedule, not list"),
    ],
)
def test_what_is_of_no_kind_is_refused(changes, says):
    with pytest.raises(DataError, match=says) as caught:
        a_set(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Schedule(()), "at least one step"),
        (lambda: Schedule(((0.1, (0,)),)), "tuple of ScheduleStep"),
        (lambda: ScheduleStep(0.1, ()), "owns no image"),
        (lambda: ScheduleStep(0.1, (1, 1)), "names an image twice"),
        (lambda: ScheduleStep(0.1, (-1,)), "indices from 0"),
        (lambda: ScheduleStep(0.1, [0]), "indices from 0"),
        (lambda: ScheduleStep(0.1, (True,)), "indices from 0"),
        (lambda: ScheduleStep(0.0, (0,)), "not a learning rate"),
        (lambda: ScheduleStep(float("nan"), (0,)), "not a learning rate"),
        (lambda: ScheduleStep(True, (0,)), "not a learning rate"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused(make, says):
    with pytest.raises(DataError, match=says):
        make()


def test_storage_counts_labels_and_step_sizes():
    assert a_set().storage_bits == 32 * 48
    assert a_set(CENTRED, label_kind="regression").storage_bits == 32 * (48 + 9)
    assert a_set(schedule=SCHEDULE).storage_bits == 32 * (48 + 3)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@settings(max_examples=15)
@given(data=st.data())
def test_regression_labels_and_schedules_are_read_as_they_were_written(tmp_path_factory, suffix, data):
    value = st.floats(-(2.0**99), 2.0**99, width=32)
    labels = torch.tensor(data.draw(st.lists(value, min_size=9, max_size=9))).reshape(3, 3)
    owned = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True).map(tuple)
    rate = st.floats(min_value=0, max_value=1e300, exclude_min=True)
    steps = data.draw(st.lists(st.builds(ScheduleStep, rate, owned), max_size=4))
    written = a_set(labels, label_kind="regression", schedule=Schedule(tuple(steps)) if steps else None)
    path = tmp_path_factory.mktemp("set") / f"set{suffix}"
    save_distilled(written, path)
    read = load_distilled(path)
    assert torch.equal(read.labels, labels)
    assert (read.label_kind, read.schedule) == ("regression", written.schedule)


def test_the_format_is_raised_only_by_what_older_readers_would_take_for_something_else(tmp_path):
    encoding = open_encoding("multi-formation[factor=2]", (1, 4, 4))
    sets = [
        (1, a_set()),
        (1, a_set(torch.full((3, 3), 1 / 3))),
        (3, a_set(encoding=encoding)),
        (4, a_set(CENTRED, label_kind="regression")),
        (4, a_set(schedule=SCHEDULE)),
        (4, a_set(encoding=encoding, schedule=SCHEDULE)),
    ]
    for number, (version, distilled) in enumerate(sets):
        path = tmp_path / f"{number}.safetensors"
        save_distilled(distilled, path)
        assert metadata(path)["format"] == version
        assert ("schedule" in metadata(path)) == (distilled.schedule is not None)


def test_files_of_other_sets_are_byte_by_byte_as_before(tmp_path):
    encoding = open_encoding("multi-formation[factor=2]", (1, 4, 4))
    digests = {  # of files that the version before kinds were declared wrote
        "257ebdcdb730508e8cac2a7c2a544d1fb2481492e8c6971ebafde2e1a8818a67": a_set(
            step_size=0.01, provenance={"method": "dc"}
        ),
        "42359a3cf66b9f9e637ac0434d3076d8e38c39e350c27c0345f0ac14ef7a05fe": a_set(torch.full((3, 3), 1 / 3)),
        "abf4d0b1bc8d519d1f486fa7895775e16f627e360ccc42ab2d5490f2fc9a522e": a_set(encoding=encoding),
    }
    for digest, distilled in digests.items():
        save_distilled(distilled, tmp_path / "set.safetensors")
        assert hashlib.sha256((tmp_path / "set.safetensors").read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label_kind": "hard"}, "labels are soft, but its metadata says 'hard'"),
        ({"label_kind": "real"}, "label_kind is 'real'"),
        ({"label_kind": "soft"}, "they seem to be centred"),
        ({"schedule": {}}, "not a list of steps"),
        ({"schedule": [0.1]}, "not a list of steps"),
        ({"schedule": [{"step_size": 0.1}]}, "other fields than a step_size and a list of images"),
        ({"schedule": [{"step_size": 0.1, "images": [0], "epochs": 2}]}, "other fields"),
        ({"schedule": [{"step_size": "0.1", "images": [0]}]}, "not a learning rate"),
        ({"schedule": [{"step_size": 0.1, "images": [0.5]}]}, "indices from 0"),
        ({"schedule": [{"step_size": 0.1, "images": [9]}]}, "owns image 9, but there are 3 images"),
        ({"schedule": []}, "at least one step"),
    ],
)
def test_a_file_that_says_otherwise_is_refused(tmp_path, changes, says):
    path = tmp_path / "set.safetensors"
    save_distilled(a_set(CENTRED, label_kind="regression"), path)
    whole = {**metadata(path), **changes}
    save_file(load_file(path), path, {"ddbench": json.dumps(whole)})
    with pytest.raises(DataError, match=says) as caught:
        load_distilled(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": CENTRED, "label_kind": "regression"}, "these labels are regression: write safetensors or npz"),
        ({"schedule": SCHEDULE}, "this set has a schedule of 3 steps: write safetensors or npz"),
    ],
)
@pytest.mark.parametrize("target", ["set.pt", "folder"])
def test_a_format_that_cannot_hold_it_is_refused_in_one_line(tmp_path, target, changes, says):
    save_distilled(a_set(**changes), tmp_path / "set.safetensors")
    result = ddbench("convert", tmp_path / "set.safetensors", tmp_path / target)
    assert result.exit_code == 2
    assert says in result.stderr.replace("\n", " ")
    assert not (tmp_path / target).exists()


def test_convert_says_what_a_set_is(tmp_path):
    save_distilled(a_set(CENTRED, label_kind="regression", schedule=SCHEDULE), tmp_path / "set.safetensors")
    result = ddbench("convert", tmp_path / "set.safetensors", tmp_path / "set.npz")
    assert "regression labels, a schedule of 3 steps; nothing is lost" in result.stdout


def test_arrays_of_others_can_be_real_values(tmp_path):
    problem = toy_problem()
    distilled = toy_set(problem, kind="regression")
    arrays = {"images": distilled.images.numpy(), "labels": distilled.labels.numpy()}
    np.savez(tmp_path / "x.npz", **arrays)
    ways = {"preprocessing": problem.preprocessing}
    assert load_distilled(tmp_path / "x.npz", format="npz[regression=true]", **ways).label_kind == "regression"
    with pytest.raises(DataError, match="they seem to be centred"):
        load_distilled(tmp_path / "x.npz", **ways)


def test_indices_of_a_schedule_are_those_of_decoded_images():
    encoding = open_encoding("multi-formation[factor=2]", (1, 4, 4))  # twelve of three
    last = Schedule((ScheduleStep(0.1, (11,)),))
    a_set(encoding=encoding, schedule=last).check()
    beyond = a_set(encoding=encoding, schedule=Schedule((ScheduleStep(0.1, (12,)),)))
    for use in (beyond.check, beyond.training_data):
        with pytest.raises(DataError, match="owns image 12, but there are 12 images"):
            use()
    with pytest.raises(DataError, match="owns image 11, but there are 3"):
        a_set(schedule=last)
