"""Folders of images of others; whatever lies in them is data."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from harness import DataError, Normalize, load_distilled

PREPROCESSING = Normalize("n", torch.full((3,), 0.4), torch.full((3,), 0.2))


def picture(path, level=0, size=(4, 4), **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, dtype=np.uint8)).save(path, **how)


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images and of one."""
    base = tmp_path / "set"
    picture(base / "cat" / "b.png", 20)
    picture(base / "cat" / "a.png", 10)
    picture(base / "ape" / "x.jpg", 0)
    return base


def read(path, **how):
    return load_distilled(path, **{"preprocessing": PREPROCESSING, **how})


def test_labels_follow_the_sorted_folders(folder):
    distilled = read(folder)
    assert distilled.classes == ("ape", "cat")
    assert distilled.labels.tolist() == [0, 1, 1]
    assert torch.allclose(distilled.images[:, 0, 0, 0], (torch.tensor([0.0, 10, 20]) / 255 - 0.4) / 0.2)


def test_a_data_set_gives_labels_to_names(folder):
    distilled = read(folder, classes=("cat", "dog", "ape"))
    assert distilled.labels.tolist() == [2, 0, 0]
    assert distilled.classes == ("cat", "dog", "ape")


def test_numbers_are_labels(tmp_path):
    for label in range(11):
        picture(tmp_path / "set" / f"{label}" / "x.png", label)
    assert read(tmp_path / "set").classes == tuple(map(str, range(11)))
    words = tuple("abcdefghijk")
    distilled = read(tmp_path / "set", classes=words)
    assert distilled.classes == words
    levels = ((distilled.images[:, 0, 0, 0] * 0.2 + 0.4) * 255).round().long()
    assert torch.equal(levels, distilled.labels)


def test_names_of_nothing_known_are_refused(folder):
    with pytest.raises(DataError, match="its class 'ape' is none of cat, dog"):
        read(folder, classes=("cat", "dog"))


def test_markup_is_a_name(tmp_path):
    picture(tmp_path / "set" / "<script>alert(1)<" / "x.png")
    assert read(tmp_path / "set").classes == ("<script>alert(1)<",)


def test_what_is_hidden_or_no_image_is_passed_over(folder):
    (folder / "cat" / "notes.txt").write_text("x")
    (folder / ".cache").mkdir()
    picture(folder / "cat" / ".c.png", size=(9, 9))
    assert len(read(folder).images) == 3


def test_links_within_the_folder_are_followed(folder):
    (folder / "cat" / "c.png").symlink_to(folder / "cat" / "a.png")
    assert len(read(folder).images) == 4


def outside(folder):
    picture(folder.parent / "other" / "x.png")
    return folder.parent / "other"


def spoil(folder, how):
    """Change a sound folder, and say what is said of it."""
    if how == "a link to a file outside":
        (folder / "cat" / "c.png").symlink_to(outside(folder) / "x.png")
        return "'c.png' is a link out of the folder"
    if how == "a link to a folder outside":
        (folder / "dog").symlink_to(outside(folder))
        return "'dog' is a link out of the folder"
    if how == "a link to nothing":
        (folder / "cat" / "c.png").symlink_to("nothing.png")
        return "'c.png' leads nowhere"
    if how == "a link to itself":
        (folder / "cat" / "c.png").symlink_to("c.png")
        return "'c.png' leads nowhere"
    if how == "a link to the folder":
        (folder / "cat" / "c").symlink_to(folder)
        return "'cat' holds the folder 'c'"
    if how == "a pipe":
        os.mkfifo(folder / "cat" / "c.png")
        return "'c.png' in 'cat' is not a plain file"
    if how == "a folder in a class":
        (folder / "cat" / "more").mkdir()
        return "'cat' holds the folder 'more'"
    if how == "an image in no class":
        picture(folder / "x.png")
        return r"'x\.png' is in no class"
    if how == "a name of two lines":
        (folder / "cat").rename(folder / "cat\ncow")
        return r"'cat\\ncow' is not a name for a class"
    if how == "a name that steers":
        (folder / "cat").rename(folder / "\x1b[31mcat")
        return r"'\\x1b\[31mcat' is not a name for a class"
    if how == "a name that is no text":
        os.rename(os.fsencode(folder / "cat"), os.fsencode(folder) + b"/\xff")
        return "is not a name for a class"
    if how == "another size":
        picture(folder / "cat" / "c.png", size=(4, 5))
        return "is 5x4 but .* is 4x4"
    if how == "no image":
        (folder / "cat" / "c.png").write_text("hello")
        return "is not an image"
    if how == "a truncated image":
        (folder / "cat" / "c.png").write_bytes((folder / "cat" / "a.png").read_bytes()[:50])
        return "cannot be decoded|is not an image"
    if how == "postscript":
        (folder / "cat" / "c.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n(x) run\n")
        return "is not an image"
    return spoil_about(folder, how)


def spoil_about(folder, how):
    about = {
        "format": 1,
        "classes": ["ape", "cat"],
        "folders": [["ape", "ape"], ["cat", "cat"]],
        "preprocessing": "n",
        "step_size": None,
        "provenance": {},
    }
    changes, says = {
        "a list that climbs": ({"folders": [["../other", "ape"], ["cat", "cat"]]}, "'../other'|'ape'"),
        "a list with an absolute name": ({"folders": [["/etc", "ape"], ["cat", "cat"]]}, "'/etc'"),
        "a list of others": ({"folders": [["ape", "x"], ["cat", "cat"]]}, "does not name a folder for each class"),
        "a list twice": ({"folders": [["ape", "ape"], ["ape", "cat"]]}, "does not name a folder for each class"),
        "a list of no names": ({"folders": [[1, "ape"], [2, "cat"]]}, "does not name a folder for each class"),
        "no list": ({"folders": "ape"}, "does not name a folder for each class"),
        "a list of one": ({"folders": [["ape", "ape"]], "classes": ["ape"]}, "'cat' is not both"),
        "a newer list": ({"format": 7}, "use a newer one"),
        "no step size": ({"step_size": "fast"}, "step_size is 'fast'"),
    }[how]
    (folder / "ddbench.json").write_text(json.dumps({**about, **changes}))
    return says


HOW = [
    *("a link to a file outside", "a link to a folder outside", "a link to nothing", "a link to itself"),
    *("a link to the folder", "a pipe", "a folder in a class", "an image in no class", "a name of two lines"),
    *("a name that steers", "a name that is no text", "another size", "no image", "a truncated image", "postscript"),
    *("a list that climbs", "a list with an absolute name", "a list of others", "a list twice", "a list of no names"),
    *("no list", "a list of one", "a newer list", "no step size"),
]


@pytest.mark.parametrize("how", HOW)
def test_tricks_and_damage_are_refused(folder, how):
    says = spoil(folder, how)
    with pytest.raises(DataError, match=says) as caught:
        read(folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("how", ["a link", "a pipe", "no text", "large"])
def test_the_list_beside_must_be_a_plain_file(folder, how):
    about = folder / "ddbench.json"
    if how == "a link":
        (folder.parent / "elsewhere").mkdir()
        about.symlink_to(folder.parent / "elsewhere" / "x.json")
    elif how == "a pipe":
        os.mkfifo(about)
    elif how == "no text":
        about.write_bytes(b"\xff\xfe")
    else:
        with about.open("wb") as file:
            file.truncate(2**25)
    with pytest.raises(DataError, match=r"another folder|no such file|cannot be read|too large|is not a file"):
        read(folder)


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path, side):
    (tmp_path / "set" / "cat").mkdir(parents=True)
    Image.new("1", (side, side)).save(tmp_path / "set" / "cat" / "bomb.png")
    assert (tmp_path / "set" / "cat" / "bomb.png").stat().st_size < 2**20
    with pytest.raises(DataError, match=r"bomb\.png cannot be decoded.*decompression bomb"):
        read(tmp_path / "set")


def test_too_many_pictures_are_refused_before_they_are_decoded(folder, monkeypatch):
    monkeypatch.setattr("harness.types.formats.folder.MOST_VALUES", 3 * 48 - 1)
    with pytest.raises(DataError, match="3 images of 4x4 are more than a set may hold"):
        read(folder)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no class folders"):
        read(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        read(tmp_path)
