"""`ddbench convert` through its front door."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from studies import ARCHITECTURE, EVALUATOR, KD, ddbench, records, small_run, stripes
from test_run import assert_refused

import harness

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
"""Published sets, beside the checkout where they are."""


@pytest.fixture
def published(tmp_path):
    """Two sets in a file as DC's code writes it."""
    images, labels = stripes(1, seed=5)
    images = torch.from_numpy(images)[:, None] / 255
    pairs = [[images * k, torch.from_numpy(labels)] for k in (1, 2)]
    torch.save({"data": pairs, "accs_all_exps": {"ConvNet": [0.5, 0.25]}}, tmp_path / "res.pt")
    return tmp_path / "res.pt"


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    """A store with one set, on which two evaluators trained."""
    path = tmp_path_factory.mktemp("store")
    small_run(data, path, evaluator=[EVALUATOR, KD])
    return path


@pytest.fixture(scope="module")
def key(store):
    """Of the set."""
    (set_key,) = [record["key"] for record in records(store).values() if record["kind"] == "distilled"]
    return set_key


def dataset(data, options="normalize=mnist"):
    return "--dataset", f"arrays[path={data}{',' if options else ''}{options}]"


def test_a_published_set_becomes_ours(published, data, tmp_path):
    result = ddbench("convert", published, tmp_path / "ours.safetensors", *dataset(data))
    assert result.exit_code == 0, result.output
    entry, scores, wrote = result.stdout.splitlines()
    assert entry == "entry 1 of 2 in res.pt, counted from 0"
    assert scores == "stored in the file, in % (students): ConvNet 37.50±17.68 (2)"
    assert wrote == (
        f"wrote {tmp_path}/ours.safetensors: 3 images of 1x16x16 in 3 classes, hard labels; nothing is lost"
    )
    converted = harness.load_distilled(tmp_path / "ours.safetensors")
    assert torch.equal(converted.images, torch.load(published)["data"][1][0])
    assert converted.preprocessing.name == "mnist"
    assert converted.provenance["stored_accuracies"] == {"ConvNet": [0.5, 0.25]}
    first = ddbench("convert", published, tmp_path / "first.npz", "--entry", "0", *dataset(data))
    assert first.exit_code == 0
    assert np.load(tmp_path / "first.npz")["images"].max() < converted.images.max()


@pytest.mark.parametrize("name", ["out.safetensors", "out.npz", "out.pt", "out"])
def test_a_cell_becomes_any_format(store, key, data, tmp_path, name):
    result = ddbench("convert", key[:8], tmp_path / name, "--store", store)
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / name}: 3 images of 1x16x16 in 3 classes, hard labels; " in result.stdout
    assert ("nothing is lost" in result.stdout) == (name in ("out.safetensors", "out.npz"))
    evaluated = ddbench(
        *("eval", tmp_path / name, *dataset(data), "--store", tmp_path / "store", "--json"),
        *("--evaluator", EVALUATOR, "--architecture", ARCHITECTURE, "--students", 1),
    )
    assert evaluated.exit_code == 0, evaluated.output
    (row,) = json.loads(evaluated.stdout)["rows"]
    assert row["mean"] is not None


def test_an_exported_set_describes_how_it_was_distilled(store, key, tmp_path):
    ddbench("convert", key, tmp_path / "out.safetensors", "--store", store)
    exported = harness.load_distilled(tmp_path / "out.safetensors")
    record = next(record for record in records(store).values() if record["key"] == key)
    provenance = exported.provenance
    assert provenance["record"] == record["checksum"]
    assert all(
        provenance[name] == record["result"][name] for name in ("method", "pool", "seed", "iterations", "status")
    )
    assert provenance["versions"] == record["provenance"]["versions"]
    students = [record["result"] for record in records(store).values() if record["kind"] == "student"]
    assert provenance["recipe"] == {student["evaluator"]: student["protocol"] for student in students}
    for student in students:
        scores = provenance["stored_accuracies"][f"{student['evaluator']} {student['architecture']}"]
        assert scores[student["student"]] == student["accuracy"]


def test_a_damaged_record_of_another_cell_does_not_matter(store, key, tmp_path):
    spoilt = shutil.copytree(store, tmp_path / "spoilt")
    student = next(record["key"] for record in records(store).values() if record["kind"] == "student")
    (spoilt / "cells" / student[:2] / f"{student}-1" / "record.json").write_text("{")
    result = ddbench("convert", key, tmp_path / "out.safetensors", "--store", spoilt)
    assert result.exit_code == 0
    assert "1 record cannot be read" in result.stdout
    (spoilt / "cells" / key[:2] / f"{key}-1" / "set.safetensors").write_bytes(b"x")
    assert_refused(ddbench("convert", key, tmp_path / "again.npz", "--store", spoilt), "missing or was altered")


def test_vico_takes_the_accuracies_along(data, tmp_path):
    result = small_run(data, tmp_path / "store")
    key = next(cell["key"] for cell in result.cells if cell["kind"] == "distilled")
    assert ddbench("convert", key[:6], tmp_path / "out.pt", "--store", tmp_path / "store").exit_code == 0
    content = torch.load(tmp_path / "out.pt", weights_only=True)
    students = [record["result"] for record in records(tmp_path / "store").values() if record["kind"] == "student"]
    ordered = sorted(students, key=lambda student: student["student"])
    assert content["accs_all_exps"] == {ARCHITECTURE: [student["accuracy"] for student in ordered]}


def test_a_key_is_looked_for_in_the_usual_store(store, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ddbench-store").symlink_to(store)
    assert ddbench("convert", key[:8], "out").exit_code == 0
    (tmp_path / key[:8]).write_text("x")
    assert_refused(ddbench("convert", key[:8], "other"), f"{key[:8]} is not a distilled set of ddbench")


def test_whitened_packed_and_soft_go_through(data, tmp_path):
    torch.save([torch.rand(3, 1, 16, 16), torch.arange(3)], tmp_path / "data.pt")
    words = ("--from", "idc[factor=2]", *dataset(data, "zca=true"))
    assert ddbench("convert", tmp_path / "data.pt", tmp_path / "packed.safetensors", *words).exit_code == 0
    packed = harness.load_distilled(tmp_path / "packed.safetensors")
    assert len(packed.training_data()[0]) == 12
    out = ddbench("convert", tmp_path / "packed.safetensors", tmp_path / "plain.pt").stdout
    assert "packing by multi-formation: 12 decoded images are written" in out
    torch.save(torch.randn(3, 1, 16, 16), tmp_path / "images.pt")
    torch.save(torch.randn(3, 3), tmp_path / "labels.pt")
    words = (*dataset(data), "--step-size", "0.02")
    soft = ddbench("convert", tmp_path / "images.pt", tmp_path / "soft.npz", *words)
    assert "softmax of its logits at temperature 1" in soft.stdout
    assert "soft labels; nothing is lost" in soft.stdout
    assert harness.load_distilled(tmp_path / "soft.npz").step_size == 0.02


def test_nothing_is_replaced_unless_it_is_said(store, key, tmp_path):
    for name in ("out.pt", "out"):
        words = ("convert", key[:8], tmp_path / name, "--store", store)
        assert ddbench(*words).exit_code == 0
        assert_refused(ddbench(*words), str(tmp_path / name), "is there already", "--force")
        assert ddbench(*words, "--force").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.pt"]


def test_a_folder_of_other_things_is_never_replaced(store, key, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    words = ("convert", key[:8], tmp_path / "mine", "--store", store)
    assert_refused(ddbench(*words, "--force"), "mine is a folder that ddbench did not write")
    assert (tmp_path / "mine" / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    assert ddbench("convert", key[:8], tmp_path / "empty", "--store", store, "--force").exit_code == 0


@pytest.mark.parametrize("name", ["out.safetensors", "out.npz", "out.pt", "out"])
def test_a_full_disk_leaves_nothing(store, key, tmp_path, monkeypatch, name):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    for target in ("pathlib.Path.write_bytes", "numpy.savez_compressed", "torch.save", "PIL.Image.Image.save"):
        monkeypatch.setattr(target, full)
    assert_refused(ddbench("convert", key[:8], tmp_path / name, "--store", store), name, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_data_set_without_normalisation_is_no_help(published, data, tmp_path):
    words = ("convert", published, tmp_path / "out", *dataset(data, ""))
    assert_refused(ddbench(*words), "does not say how its images were normalised", "normalize=", "like=")


def test_pixels_need_no_known_normalisation(data, store, key, tmp_path):
    ddbench("convert", key[:8], tmp_path / "pictures", "--store", store)
    result = ddbench("convert", tmp_path / "pictures", tmp_path / "out.npz", *dataset(data, ""))
    assert result.exit_code == 0, result.output
    (tmp_path / "pictures" / "preprocessing.safetensors").unlink()  # as folders of earlier versions are
    assert_refused(ddbench("convert", tmp_path / "pictures", tmp_path / "again.npz"), "pictures", "--dataset")


@pytest.mark.parametrize("options", ["", "zca=true"])
def test_pictures_bring_the_preprocessing_that_was_written(data, tmp_path, options):
    torch.save([torch.rand(3, 1, 16, 16), torch.arange(3)], tmp_path / "data.pt")
    words = ("--from", "idc[factor=1]", *dataset(data, options))
    assert ddbench("convert", tmp_path / "data.pt", tmp_path / "a.safetensors", *words).exit_code == 0
    for source, target in (("a.safetensors", "pics"), ("pics", "b.safetensors"), ("b.safetensors", "again")):
        result = ddbench("convert", tmp_path / source, f"{tmp_path / target}")
        assert result.exit_code == 0, result.output
        assert "lost: preprocessing" not in result.stdout
    original, other = (harness.load_distilled(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    assert original.preprocessing.name == other.preprocessing.name
    for name, value in original.preprocessing.tensors().items():
        assert torch.equal(value, other.preprocessing.tensors()[name])
    assert torch.equal(original.labels, other.labels)
    pixels = [distilled.preprocessing.invert(distilled.images) for distilled in (original, other)]
    assert (pixels[0] - pixels[1]).abs().max() <= 0.5 / 255 + 1e-3
    for number in range(3):
        name = f"{number}/000.png"
        assert (tmp_path / "pics" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


DAMAGES = {
    "no safetensors": lambda path: path.write_bytes(b"x"),
    "cut off": lambda path: os.truncate(path, 60),
    "of other images": lambda path: path.write_bytes(save({"mean": torch.zeros(3), "std": torch.ones(3)})),
    "of other tensors": lambda path: path.write_bytes(save({"x": torch.ones(1)})),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_preprocessing_of_pictures_is_one_line(store, key, tmp_path, name):
    ddbench("convert", key[:8], tmp_path / "pics", "--store", store)
    DAMAGES[name](tmp_path / "pics" / "preprocessing.safetensors")
    assert_refused(ddbench("convert", tmp_path / "pics", tmp_path / "b.npz"), "pre")


ABSENT = [("cifar10", 3, 32, 10), ("cifar100", 3, 32, 100), ("mnist", 1, 28, 10), ("fashion-mnist", 1, 28, 10),
          ("svhn", 3, 32, 10), ("digits", 1, 16, 10)]  # fmt: skip


@pytest.mark.parametrize(("name", "channels", "size", "classes"), ABSENT)
def test_names_and_constants_of_known_sets_need_no_images(tmp_path, monkeypatch, name, channels, size, classes):
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path / "nothing"))
    torch.save({"data": [[torch.randn(classes, channels, size, size), torch.arange(classes)]]}, tmp_path / "res.pt")
    result = ddbench("convert", tmp_path / "res.pt", tmp_path / "out.npz", "--dataset", name)
    assert result.exit_code == 0, result.output
    converted = harness.load_distilled(tmp_path / "out.npz")
    assert converted.preprocessing.name == ("auto" if name == "digits" else name)
    assert len(converted.classes) == classes
    assert ("cat" in converted.classes, "wolf" in converted.classes) == (name == "cifar10", name == "cifar100")
    assert not (tmp_path / "nothing").exists()
    torch.save({"data": [[torch.randn(classes, channels, 8, 8), torch.arange(classes)]]}, tmp_path / "small.pt")
    words = ("convert", tmp_path / "small.pt", tmp_path / "small.npz", "--dataset", name)
    assert_refused(ddbench(*words), f"{name} has ({channels}, {size}, {size})", "choose another --dataset")


def test_whitening_needs_the_images_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_DATA", str(tmp_path / "nothing"))
    torch.save({"data": [[torch.randn(10, 3, 32, 32), torch.arange(10)]]}, tmp_path / "res.pt")
    words = ("convert", tmp_path / "res.pt", tmp_path / "out.npz", "--dataset")
    for options in ("zca=true", "normalize=auto"):
        said = ("is computed from its training images", "cifar10 is missing", "ddbench prepare cifar10")
        assert_refused(ddbench(*words, f"cifar10[{options}]"), *said)
    assert ddbench(*words, "cifar10[normalize=svhn]").exit_code == 0
    assert harness.load_distilled(tmp_path / "out.npz").preprocessing.name == "svhn"
    words = ("convert", tmp_path / "out.npz", tmp_path / "again.npz", "--dataset", "cifar10[zca=true]")
    assert ddbench(*words).exit_code == 0, "the file names its own preprocessing"


def test_the_names_that_are_known_are_those_of_the_files():
    from torchvision.datasets import FashionMNIST

    from harness.datasets.known_classes import CIFAR10, CIFAR100, FASHION_MNIST

    assert tuple(FashionMNIST.classes) == FASHION_MNIST
    assert list(CIFAR10) == sorted(CIFAR10)
    assert list(CIFAR100) == sorted(CIFAR100)
    assert (len(set(CIFAR10)), len(set(CIFAR100))) == (10, 100)


def test_classes_in_another_order_are_refused(data, tmp_path):
    for name, classes in (("same", ("0", "1", "2")), ("other", ("2", "1", "0"))):
        distilled = harness.DistilledSet(
            torch.zeros(3, 1, 16, 16), torch.arange(3), classes, harness.Normalize("n", torch.zeros(1), torch.ones(1))
        )
        harness.save_distilled(distilled, tmp_path / f"{name}.safetensors")
    assert ddbench("convert", tmp_path / "same.safetensors", tmp_path / "a.npz", *dataset(data)).exit_code == 0
    words = ("convert", tmp_path / "other.safetensors", tmp_path / "b.npz", *dataset(data))
    assert_refused(ddbench(*words), "other.safetensors", "another order", "label 0 is '2'")


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("*.pt")) or [None], ids=str)
def test_sets_that_were_published_go_through(file, tmp_path):
    if file is None:
        pytest.skip("the published sets are not beside this checkout")
    preprocessing = harness.Normalize.named("cifar10", 3)
    published_set = harness.load_distilled(file, preprocessing=preprocessing)
    for name in ("out.safetensors", "out.npz", "out.pt"):
        harness.save_distilled(published_set, tmp_path / name)
        again = harness.load_distilled(tmp_path / name, preprocessing=preprocessing)
        assert torch.equal(again.images, published_set.images)
        assert torch.equal(again.labels, published_set.labels)
    theirs = torch.load(tmp_path / "out.pt", weights_only=True)
    assert theirs["accs_all_exps"] == published_set.provenance["stored_accuracies"]
    assert published_set.images.shape[1:] == (3, 32, 32)
