"""Data sets that are not there, cannot be meant or do not fit: what the commands say of them, before any work."""

import os
import pwd
import tempfile

import numpy as np
import pytest
import torch
from PIL import Image
from studies import ARCHITECTURE, EVALUATOR, ddbench, records, stripes, write_arrays
from test_run import assert_refused

from harness.cli.checkup import disks
from harness.system.memory import MemoryLimit
from harness.types.data import images

QUICK = ("-m", "random", "-e", EVALUATOR, "-a", ARCHITECTURE, "--students", "1", "--ipc", "1")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path / "root"))


def picture_folder(base, names, *, per_class=3):
    """Stripes by class, in folders of these names."""
    for split, seed in (("train", 0), ("test", 1)):
        pictures, labels = stripes(per_class, classes=len(names), seed=seed)
        for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            place = base / split / names[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place / f"{number}.png")
    return base


def run(dataset):
    return ddbench("run", *QUICK, "--dataset", dataset, "--store", "store")


# Not there


MISSING = {
    "folder[path=nope]": "nope does not exist: path= must name a folder with train/CLASS/ and test/CLASS/",
    "folder[path=nope/deeper]": "nope/deeper does not exist",
    "folder[path=file.txt]": "file.txt is a file, not a folder: path= must name a folder with train/CLASS/",
    "folder[path=file.txt/below]": "file.txt/below does not exist",
    "folder[path=pipe]": "pipe is a pipe, not a folder",
    "folder[path=link]": "link is a link that leads nowhere",
    "folder[path=circle]": "circle cannot be read: Too many levels of symbolic links",
    "folder[path=empty]": "empty has no folder 'train': it must hold train/CLASS/ and test/CLASS/",
    "folder[path=no-test]": "no-test has no folder 'test'",
    f"folder[path={'x' * 300}]": "cannot be read: File name too long",
    "arrays[path=nope.npz]": "nope.npz does not exist: path= must name an .npz file with x_train",
    "arrays[path=nope/x.npz]": "nope/x.npz does not exist",
    "arrays[path=empty]": "empty is a folder, not a file: path= must name an .npz file with x_train",
    "arrays[path=pipe]": "pipe is a pipe, not a file",
    "arrays[path=link]": "link is a link that leads nowhere",
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_not_there_is_said_by_every_command(tmp_path, name):
    (tmp_path / "file.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-test" / "train" / "a").mkdir(parents=True)
    for words in (
        ("datasets", "show", name),
        ("prepare", name),
        ("run", *QUICK, "--dataset", name, "--store", "store"),
    ):
        assert_refused(ddbench(*words), MISSING[name])
    assert not (tmp_path / "store").exists()


def test_what_is_there_is_shown_as_before(tmp_path):
    picture_folder(tmp_path / "set", ["a", "b"])
    write_arrays(tmp_path / "toy.npz")
    for name in ("folder[path=set]", "arrays[path=toy.npz]", "folder", "cifar10", "digits"):
        result = ddbench("datasets", "show", name)
        assert result.exit_code == 0, result.stderr


def test_damaged_images_are_named_by_every_command(tmp_path):
    base = picture_folder(tmp_path / "set", ["a", "b"])
    (base / "train" / "b" / "4.png").write_bytes(b"\x89PNG, and then nothing of the kind")
    (tmp_path / "toy.npz").write_bytes(b"PK, and then nothing of the kind")
    for name, says in (
        ("folder[path=set]", "set/train/b/4.png is not an image that can be read: replace or delete it"),
        ("arrays[path=toy.npz]", "toy.npz"),
    ):
        for words in (("datasets", "show", name), ("datasets", "show", name, "--json"), ("prepare", name)):
            assert_refused(ddbench(*words), says)


def test_a_path_that_is_no_text(tmp_path):
    picture_folder(tmp_path / "caf\udce9", ["a", "b"])
    assert_refused(run("folder[path=caf\udce9]"), "'caf\\udce9' is not UTF-8, and could not be recorded: rename the")
    assert_refused(run("arrays[path=caf\udce9.npz]"), "'caf\\udce9.npz' is not UTF-8")


def test_empty_folders(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
    assert_refused(run("folder[path=set]"), "set/train has no class folders: images belong in set/train/CLASS/")


@pytest.mark.parametrize("where", ["", "train", "train/a"])
def test_no_permission(tmp_path, monkeypatch, where):
    """As root nothing is forbidden, so the system's answer is put in its place."""
    picture_folder(tmp_path / "set", ["a", "b"])
    listed = os.scandir

    def scandir(path):
        if os.fspath(path) == os.path.join("set", where):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "access", lambda path, mode: bool(where) or os.fspath(path) != "set")
    for words in (
        ("prepare", "folder[path=set]"),
        ("run", *QUICK, "--dataset", "folder[path=set]", "--store", "store"),
    ):
        assert_refused(ddbench(*words), os.path.join("set", where).rstrip("/"), "cannot be read: Permission denied")


# Class names


def test_corrected_names_are_another_problem_and_the_same_command_works(tmp_path):
    base = picture_folder(tmp_path / "set", ["cat\tor dog", "owl"])
    assert_refused(run("folder[path=set]"), "'cat\\tor dog' is not a name for a class (label 0)", "rename it")
    assert not (tmp_path / "store").exists()
    keys = {}
    for old, new in (("cat\tor dog", "cat"), ("cat", "dog")):
        for split in ("train", "test"):
            (base / split / old).rename(base / split / new)
        result = run("folder[path=set]")
        assert result.exit_code == 0, result.output
        keys[new] = set(records(tmp_path / "store")) - set().union(*keys.values())
        sets = [key for key in keys[new] if records(tmp_path / "store")[key]["kind"] == "distilled"]
        assert len(sets) == 1, "the old set is not taken for the new one"
        assert ddbench("convert", sets[0][:12], f"{new}.npz", "--store", "store").exit_code == 0
        with np.load(tmp_path / f"{new}.npz") as file:
            assert file["classes"].tolist() == [new, "owl"]
    before = records(tmp_path / "store")
    assert run("folder[path=set]").exit_code == 0
    assert records(tmp_path / "store") == before, "the same names are the same problem"


# Labels without names


NUMBERS = [str(number) for number in range(12)]
SAYS = (
    "set.pt has labels but no class names: label 2 is taken for class '2', as in folder[normalize=auto,path=set]; "
    "to a loader that sorts these names as text it is '10'"
)


def vico(path, count):
    pictures, labels = stripes(1, classes=count, seed=5)
    inputs = torch.from_numpy(pictures)[:, None] / 255
    torch.save({"data": [[(inputs - 0.5) / 0.3, torch.from_numpy(labels)]]}, path)
    return path


def test_labels_without_names_are_of_classes_ordered_by_value_and_a_line_says_so(tmp_path):
    picture_folder(tmp_path / "set", NUMBERS)
    vico(tmp_path / "set.pt", 12)
    dataset = ("--dataset", "folder[path=set,normalize=auto]")
    converted = ddbench("convert", "set.pt", "set.npz", *dataset)
    assert converted.exit_code == 0, converted.stderr
    assert SAYS in converted.stdout
    assert "give each class folder a letter before its number" in converted.stdout
    with np.load(tmp_path / "set.npz") as file:
        assert file["classes"].tolist() == NUMBERS
    scored = ddbench("eval", "set.pt", *dataset, "-e", "plain[epochs=60]", "-a", "mlp", "--students", "1")
    assert scored.exit_code == 0, scored.stderr
    assert SAYS in scored.output
    (student,) = [record for record in records(tmp_path / "ddbench-store").values() if record["kind"] == "student"]
    assert student["result"]["accuracy"] > 0.9
    again = ddbench("convert", "set.npz", "again.safetensors", *dataset)
    assert "class names:" not in again.stdout  # this file has names


@pytest.mark.parametrize("names", [NUMBERS[:10], [f"{number:02}" for number in range(12)], list("abcdefghijkl")])
def test_nothing_is_said_where_both_orders_are_one(tmp_path, names):
    picture_folder(tmp_path / "set", names)
    vico(tmp_path / "set.pt", len(names))
    converted = ddbench("convert", "set.pt", "set.npz", "--dataset", "folder[path=set,normalize=auto]")
    assert converted.exit_code == 0, converted.stderr
    assert "label" not in converted.stdout.partition("wrote")[0]


@pytest.mark.parametrize(
    ("classes", "theirs"),
    [
        (["01", "02", "03"], ["1", "2", "3"]),
        (["1", "2", "3"], ["+1", "02", "3"]),
        (["é", "b", "c"], ["e\u0301", "b", "c"]),
        (["1", "2", "3"], ["0", "1", "2"]),  # their labels
    ],
)
def test_folders_of_a_set_are_matched_by_value_and_in_any_unicode_form(tmp_path, classes, theirs):
    write_arrays(tmp_path / "toy.npz", classes=np.array(classes))
    pictures, _ = stripes(1, seed=5)
    for name, picture in zip(theirs, pictures, strict=True):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "set" / name / "0.png")
    converted = ddbench("convert", "set", "out.npz", "--dataset", "arrays[path=toy.npz]")
    assert converted.exit_code == 0, converted.stderr
    with np.load(tmp_path / "out.npz") as file:
        order = {label: index for index, label in enumerate(file["labels"])}
        brightest = [file["images"][order[label], 0].mean(1).argmax() for label in range(3)]
    assert np.searchsorted([5, 10], brightest, side="right").tolist() == [0, 1, 2]  # where the stripes begin


# Memory


def test_pictures_of_another_size_are_refused_by_their_headers(tmp_path, monkeypatch):
    write_arrays(tmp_path / "toy.npz")
    for name in "012":
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("1", (9400, 9400)).save(tmp_path / "set" / name / "0.png")
    monkeypatch.setattr(images, "_decode", None)
    dataset = ("--dataset", "arrays[path=toy.npz]")
    says = "set has images of 9400x9400, but those of the data set are 16x16: choose another --dataset"
    assert_refused(ddbench("convert", "set", "out.safetensors", *dataset), says)
    assert_refused(ddbench("eval", "set", *dataset, "--store", "store"), says)


def test_a_set_too_large_for_the_memory(tmp_path, monkeypatch):
    for name in "01":
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("L", (300, 300)).save(tmp_path / "set" / name / "0.png")
    monkeypatch.setattr("harness.system.memory.memory_limit", lambda: MemoryLimit(10**6, "all that this toy has"))
    says = "decoding 2 images of 1x300x300 would need 0.0 GB of memory, but all that this toy has"
    assert_refused(ddbench("convert", "set", "out.safetensors"), says)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 12.0 GiB for an array with shape (4, 3)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                     "tried to allocate 999999 bytes. Error code 12 (Cannot allocate memory)"),
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB."),
    ],
)  # fmt: skip
def test_memory_that_runs_out_is_one_line(tmp_path, monkeypatch, error):
    def full(*arguments, **options):
        raise error

    picture_folder(tmp_path / "set", ["a", "b"])
    monkeypatch.setattr("harness.datasets.image_files.decode_into", full)
    for words in (
        ("prepare", "folder[path=set]"),
        ("run", *QUICK, "--dataset", "folder[path=set]", "--store", "store"),
    ):
        assert_refused(ddbench(*words), "there is not enough memory", "use smaller or fewer images")


# Without a home


def test_without_a_home_folder_everything_runs(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "DDBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert run("digits").exit_code == 0
    assert not (tmp_path / "temporary" / "ddbench-data").exists()  # the digits need none
    checks = {check.name: check for check in disks(tmp_path / "store")}
    assert checks["data root"].status != "broken"
    assert str(tmp_path / "temporary" / "ddbench-data") in checks["data root"].detail
    picture_folder(tmp_path / "set", ["a", "b"])
    assert ddbench("prepare", "folder[path=set]").exit_code == 0
    assert_refused(ddbench("prepare", "mnist"), str(tmp_path / "temporary" / "ddbench-data"))
    assert_refused(
        ddbench("prepare", "folder[path=~/set]"), "~/set: there is no home folder for ~: write the whole path"
    )
    assert_refused(ddbench("run", *QUICK, "--store", "~/store"), "there is no home folder for ~: write the whole path")
