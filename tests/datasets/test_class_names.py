"""Class names: their order, their Unicode form, and those that are refused before any work."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.datasets.checks import check
from harness.errors import DataError
from harness.types.data import images
from harness.types.data.class_names import check_class_names, label_order
from harness.types.dataset import RawData
from harness.types.problem import Split

REFUSED = {
    "a name twice": (["crane", "maillot", "crane"], r"the same name 'crane' \(labels 0 and 2\): rename one"),
    "a name in two forms": (["é", "b", "e\u0301"], r"the same name .* \(labels 0 and 2, in composed and in decomposed"),
    "an empty name": (["a", "", "c"], r"'' is not a name for a class \(label 1\), because it is empty: rename it"),
    "a tab": (["a\tb", "b", "c"], r"'a\\tb' is not a name .*cannot be printed"),
    "a sign that steers": (["\x1b[31mred", "b", "c"], "is not a name .*cannot be printed"),
    "a line": (["a\nb", "b", "c"], "is not a name .*cannot be printed"),
    "210 letters": (["a", "b", "x" * 210], r"'x{50}\.\.\.' is not a name .*its 210 characters are more than 200"),
    "a lone surrogate": (["a", "b", "c\udce9"], r"'c\\udce9' is not a name .*it is not UTF-8"),
    "a sign of no width": (["a", "b\u200b", "c"], "is not a name .*cannot be printed"),
}


def picture_folder(base, names):
    """A picture for each class in train/ and two in test/, each with the label in its pixels."""
    for split, count in (("train", 1), ("test", 2)):
        for label, name in enumerate(names):
            place = os.path.join(os.fsencode(base), split.encode(), os.fsencode(name))
            os.makedirs(place)
            for number in range(count):
                Image.fromarray(np.full((2, 2), label, np.uint8)).save(f"{base}/x.png")
                shutil.move(f"{base}/x.png", os.path.join(place, f"{number}.png".encode()))
    return base


# Order


@pytest.mark.parametrize(
    "names",
    [
        [str(number) for number in range(12)],
        [f"{number:02}" for number in range(12)],
        ["-10", "-9", "-1", "0", "+1", "02", "3", "10"],
        ["01", "1", "2", "10"],
        ["7", "08", "9", "10", "0011"],
        ["a", "b1", "b10", "b2"],
        ["1", "10", "2", "two"],  # not all are numbers
        ["1.5", "10", "2"],
        ["1_0", "2", "3"],  # a number to Python only
    ],
)
def test_whole_numbers_are_ordered_by_value_and_all_else_as_text(load, tmp_path, names):
    raw = load(f"folder[path={picture_folder(tmp_path / 'set', names)}]")
    assert raw.classes == tuple(names)
    assert raw.train.images.flatten(1)[:, 0].tolist() == list(range(len(names)))
    assert raw.train.labels.tolist() == list(range(len(names)))


@given(st.sets(st.integers(-(10**40), 10**40), min_size=2))
def test_any_whole_numbers(numbers):
    assert [int(name) for name in label_order(map(str, numbers))] == sorted(numbers)


@given(st.sets(st.text(max_size=5)))
def test_the_order_does_not_depend_on_the_order(names):
    assert label_order(sorted(names)) == label_order(sorted(names, reverse=True))


def test_the_cache_does_not_hand_out_labels_of_another_order(load, tmp_path, root):
    base = picture_folder(tmp_path / "set", ["1", "2", "10"])
    assert load(f"folder[path={base}]").train.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    for split in ("train", "test"):
        (base / split / "2").rename(base / split / "200")
    raw = load(f"folder[path={base}]")
    assert (raw.classes, raw.train.images[:, 0, 0, 0].tolist()) == (("1", "10", "200"), [0, 2, 1])
    for split in ("train", "test"):
        (base / split / "200").rename(base / split / "a")
    raw = load(f"folder[path={base}]")
    assert (raw.classes, raw.train.images[:, 0, 0, 0].tolist()) == (("1", "10", "a"), [0, 2, 1])


# Unicode


def test_composed_and_decomposed_names_are_one(load, problem, tmp_path):
    base = picture_folder(tmp_path / "set", ["é", "zz"])
    (base / "test" / "é").rename(base / "test" / unicodedata.normalize("NFD", "é"))
    assert load(f"folder[path={base}]").classes == ("zz", "é")
    (base / "train" / "é").rename(base / "train" / unicodedata.normalize("NFD", "é"))
    assert problem(f"folder[path={base}]").classes == ("zz", "é")


def test_arrays_with_decomposed_names_are_the_same_problem(problem, arrays):
    composed, decomposed = (
        problem(f"arrays[path={arrays(classes=np.array([unicodedata.normalize(form, 'é'), 'b', 'c']))}]")
        for form in ("NFC", "NFD")
    )
    assert composed.classes == decomposed.classes == ("é", "b", "c")
    assert composed.fingerprint == decomposed.fingerprint


# Refused before any work


@pytest.mark.parametrize("what", REFUSED)
def test_names_that_no_set_can_hold_are_refused_in_arrays(problem, arrays, what):
    names, says = REFUSED[what]
    with pytest.raises(DataError, match=says) as caught:
        problem(f"arrays[path={arrays(classes=np.array(names))}]")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("what", ["a tab", "a sign that steers", "a line", "210 letters", "a lone surrogate"])
def test_and_of_folders_before_an_image_is_read(load, tmp_path, monkeypatch, what):
    names, says = REFUSED[what]
    base = picture_folder(tmp_path / "set", names)
    monkeypatch.setattr(images, "_open_plain", None)
    with pytest.raises(DataError, match=says) as caught:
        load(f"folder[path={base}]")
    assert str(base) in str(caught.value)


@pytest.mark.parametrize("what", REFUSED)
def test_and_of_plugins(what):
    names, says = REFUSED[what]
    split = Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3))
    with pytest.raises(DataError, match=f"theirs: .*{says}"):
        check(RawData(split, split, tuple(names)), "theirs")


@pytest.mark.parametrize("classes", [["a", "b"], ("a", 1), "ab", None, (b"a", b"b")])
def test_names_of_another_kind(classes):
    split = Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.arange(2))
    with pytest.raises(DataError, match="theirs: class names must be a tuple of texts, not"):
        check(RawData(split, split, classes), "theirs")


@given(
    st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=200), unique_by=str.casefold)
)
def test_printable_names_are_allowed(names):
    if len({unicodedata.normalize("NFC", name) for name in names}) == len(names):
        check_class_names(names)
