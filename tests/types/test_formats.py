"""Files of distilled sets: what is written is read again, and nothing is read that could run code."""

import json
import os
import pickle
import struct
import warnings

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from studies import small_run
from torch.utils.data import TensorDataset
from toys import toy_problem, toy_set

import harness
from harness import DataError, DistilledSet, Normalize, Whiten, load_distilled, save_distilled

CLASSES = ("a", "b", "c")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.safetensors"


def same(first, second):
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert first.labels.dtype == second.labels.dtype
    assert first.classes == second.classes
    assert first.step_size == second.step_size
    assert first.provenance == second.provenance
    assert first.preprocessing.name == second.preprocessing.name
    ours, theirs = first.preprocessing.tensors(), second.preprocessing.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# --- our own ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_a_set_is_read_as_it_was_written(path, soft):
    problem = toy_problem(shape=(3, 16, 16))
    distilled = toy_set(problem, 2, soft=soft)
    provenance = {"method": "dc", "pool": None, "iterations": 3, "seed": 0}
    distilled = DistilledSet(distilled.images, distilled.labels, CLASSES, problem.preprocessing, 0.0123, provenance)
    save_distilled(distilled, path)
    read = load_distilled(path)
    same(read, distilled)
    assert read.label_kind == ("soft" if soft else "hard")
    assert read.storage_floats == distilled.storage_floats
    images, labels = TensorDataset(*read)[1]
    assert torch.equal(images, distilled.images[1])
    assert torch.equal(labels, distilled.labels[1])


def test_whitening_travels_with_the_set(path):
    problem = toy_problem(shape=(1, 8, 8), train=40)
    whiten = Whiten.fitted(problem.train.images, 0.1)
    images = whiten.to_inputs(problem.train.images[:3])
    save_distilled(DistilledSet(images, torch.tensor([0, 1, 2]), CLASSES, whiten), path)
    read = load_distilled(path)
    assert isinstance(read.preprocessing, Whiten)
    assert torch.equal(read.preprocessing.to_inputs(problem.score.images), whiten.to_inputs(problem.score.images))


def test_a_stores_set_is_ready_for_a_loader(data, tmp_path):
    result = small_run(data, tmp_path)
    key = next(cell["key"] for cell in result.cells if cell["kind"] == "distilled")
    file = tmp_path / "cells" / key[:2] / f"{key}-1" / "set.safetensors"
    distilled = harness.load_distilled(str(file))
    loader = TensorDataset(*distilled)
    assert len(loader) == 3
    raw = load_file(file)
    assert torch.equal(loader.tensors[0], raw["images"])
    assert loader.tensors[1].tolist() == [0, 1, 2]
    assert distilled.provenance["cell"] == key
    assert distilled.provenance["iterations"] == 2
    assert isinstance(distilled.preprocessing, Normalize)


def test_the_file_is_plain_safetensors(path, toy):
    save_distilled(toy_set(toy), path)
    with safe_open(path, framework="np") as file:
        metadata = json.loads(file.metadata()["ddbench"])
    assert metadata["format"] == 1
    assert metadata["classes"] == ["a", "b", "c"]


def written(path, *, metadata=None, **tensors):
    """A file like ours, with changes."""
    content = {
        "images": torch.zeros(3, 1, 4, 4),
        "labels": torch.arange(3),
        "preprocessing.mean": torch.zeros(1),
        "preprocessing.std": torch.ones(1),
    }
    whole = {"format": 1, "classes": CLASSES, "preprocessing": "x", "step_size": None, "provenance": {}}
    content = {name: tensor for name, tensor in {**content, **tensors}.items() if tensor is not None}
    save_file(content, path, {"ddbench": json.dumps({**whole, **(metadata or {})})})
    return path


def stored_as(**changes):
    """Metadata of a set that is stored by a parametrisation."""
    sound = {"name": "multi-formation", "provider": "ddbench", "options": {"factor": 2}, "shape": [1, 4, 4]}
    return {"metadata": {"format": 3, "parametrisation": {**sound, **changes}}}


def test_the_file_that_these_changes_spoil_is_sound(path):
    assert load_distilled(written(path)).classes == CLASSES
    assert len(load_distilled(written(path, **stored_as())).training_data()[0]) == 12


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metadata": {"format": 5}}, "format 5.*use a newer"),
        ({"metadata": {"format": "new"}}, "not a distilled set"),
        ({"metadata": {"classes": None}}, "not a distilled set"),
        ({"metadata": {"classes": "abc"}}, "class"),
        ({"metadata": {"classes": [1, 2, 3]}}, "class"),
        ({"metadata": {"classes": ["a", "b"]}}, r"labels must lie in 0 \.\.\. 1"),
        ({"metadata": {"step_size": "fast"}}, "step"),
        ({"metadata": {"provenance": ["dc"]}}, "provenance"),
        ({"metadata": {"label_kind": "soft"}}, "labels are hard, but its metadata says 'soft'"),
        ({"metadata": {"decoder": {"name": "zip"}}}, "packed by .*'zip'"),
        ({"metadata": {"decoder": "multi-formation"}}, "decoder"),
        ({"metadata": {"parametrisation": "multi-formation"}}, "parametrisation"),
        ({"metadata": {"parametrisation": {"name": "multi-formation"}}}, "no name, provider and options"),
        (stored_as(options={"factor": "2"}), "does not take its options"),
        (stored_as(options={"factor": True}), "does not take its options"),
        (stored_as(options={"factor": 10**9}), "does not take its options"),
        (stored_as(options={"factor": 2, "more": 1}), "does not take its options"),
        (stored_as(shape=[1, 4]), "channels, height and width"),
        (stored_as(shape=[1, 4, -4]), "channels, height and width"),
        (stored_as(shape=[1, 10**9, 10**9]), "more than a set may hold"),
        (stored_as(shape=[1, 8, 8]), "its stored images are .1, 4, 4., but have to be .1, 8, 8."),
        (stored_as(name="zip"), "by the parametrisation 'zip' of 'ddbench': use a newer ddbench"),
        (stored_as(name="zip", provider="acme"), "'zip' of 'acme': install the plugin 'acme'"),
        ({"parametrisation.codes": torch.zeros(2)}, "'parametrisation.codes', but names no parametrisation"),
        (
            {**stored_as(), "parametrisation.codes": torch.full((2,), float("nan"))},
            "'codes' of its parametrisation is not a tensor of finite numbers",
        ),
        ({"metadata": {"step_size": True}}, "step"),
        ({"metadata": {"step_size": 1e999}}, "step"),
        ({"metadata": {"classes": ["a", "b", ""]}}, "'' is not a name for a class"),
        ({"metadata": {"classes": ["a", "b", "b"]}}, "same name"),
        ({"images": torch.zeros(3, 1, 4, 4, dtype=torch.uint8)}, "images must be floats"),
        ({"metadata": {"preprocessing": None}}, "preprocessing"),
        ({"images": None}, "images"),
        ({"labels": None}, "labels"),
        ({"preprocessing.std": None}, "preprocessing"),
        ({"preprocessing.mean": torch.zeros(3)}, "preprocessing"),
        ({"preprocessing.std": torch.zeros(1)}, "preprocessing"),
        ({"preprocessing.mean": torch.full((1,), float("nan"))}, "preprocessing"),
        ({"images": torch.full((3, 1, 4, 4), float("nan"))}, "NaN"),
        ({"images": torch.full((3, 1, 4, 4), float("inf"))}, "infinite"),
        ({"images": torch.zeros(3, 16)}, "images must be"),
        ({"images": torch.zeros(0, 1, 4, 4), "labels": torch.zeros(0, dtype=torch.int64)}, "images must be"),
        ({"images": torch.zeros(3, 1, 0, 4)}, "images must be"),
        ({"labels": torch.arange(2)}, "3 images but 2 labels"),
        ({"labels": torch.tensor([0, 1, 3])}, "labels must lie"),
        ({"labels": torch.tensor([-1, 1, 2])}, "labels must lie"),
        ({"labels": torch.tensor([0.0, 1.0, 2.0])}, "labels"),
        ({"labels": torch.full((3, 2), 0.5)}, "labels"),
        ({"labels": torch.full((3, 3), float("nan"))}, "labels"),
        ({"labels": torch.eye(3, dtype=torch.int64)}, "labels"),
    ],
)
def test_a_set_that_cannot_be_meant_is_refused(path, changes, says):
    with pytest.raises(DataError, match=says) as caught:
        load_distilled(written(path, **changes))
    message = str(caught.value)
    assert path.name in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        struct.pack("<Q", 2**62) + b"{}",  # a header said to be huge
        struct.pack("<Q", 50) + b"{" * 50,
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_what_is_no_safetensors_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"set\.safetensors is not a distilled set"):
        load_distilled(path)


def test_a_truncated_file_is_refused(path, toy):
    save_distilled(toy_set(toy), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a distilled set"):
        load_distilled(path)


def test_safetensors_of_others_are_refused(path):
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(DataError, match="not a distilled set"):
        load_distilled(path)


@pytest.mark.parametrize("name", ["none.safetensors", "none.pt", "none.npz", "none", "a\nb"])
def test_what_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="there is no such file"):
        load_distilled(tmp_path / name)


# --- VICO-UoE ---------------------------------------------------------------------------------------------------------


class LegacyScalar:
    """Pickles as a NumPy scalar did under NumPy 1, as those who published their sets wrote it."""

    def __init__(self, value):
        self.value = value


class LegacyPickler(pickle._Pickler):
    """Writes `numpy.core.multiarray.scalar` for NumPy scalars."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, LegacyScalar):
            scalar = np.float64(obj.value)
            self.write(pickle.GLOBAL + b"numpy.core.multiarray\nscalar\n")
            self.save((scalar.dtype, scalar.tobytes()))
            self.write(pickle.REDUCE)
            return
        super().save(obj, save_persistent_id)


class Legacy:
    """The module that `torch.save` pickles with."""

    __name__ = "pickle"
    Pickler = LegacyPickler
    dumps = staticmethod(pickle.dumps)


def published(path, *, sets=3, accuracies=np.float64, module=pickle, **changes):
    """A file as DC's code writes it."""
    pairs = [[torch.full((3, 1, 4, 4), float(k)), torch.arange(3)] for k in range(sets)]
    scores = {"ConvNet": [accuracies(0.25), accuracies(0.5)], "MLP": []}
    torch.save({"data": pairs, "accs_all_exps": scores, **changes}, path, pickle_module=module)
    return path


def read(path, **how):
    return load_distilled(path, preprocessing=Normalize("n", torch.zeros(1), torch.ones(1)), **how)


@pytest.mark.parametrize(("accuracies", "module"), [(float, pickle), (np.float64, pickle), (LegacyScalar, Legacy())])
def test_published_files_are_read(tmp_path, accuracies, module):
    path = published(tmp_path / "res.pt", accuracies=accuracies, module=module)
    if module is not pickle:
        assert b"numpy.core.multiarray" in path.read_bytes()
    distilled = read(path, classes=CLASSES)
    assert torch.equal(distilled.images, torch.full((3, 1, 4, 4), 2.0))  # the last
    assert distilled.labels.tolist() == [0, 1, 2]
    assert distilled.classes == CLASSES
    assert distilled.provenance == {
        "file": "res.pt",
        "entry": 2,
        "entries": 3,
        "stored_accuracies": {"ConvNet": [0.25, 0.5]},
    }
    TensorDataset(*distilled)


@pytest.mark.parametrize(("entry", "index"), [(0, 0), (1, 1), (2, 2), (-1, 2), (-3, 0)])
def test_an_entry_can_be_asked_for(tmp_path, entry, index):
    distilled = read(published(tmp_path / "res.pt"), entry=entry)
    assert distilled.images.unique().tolist() == [index]
    assert distilled.provenance["entry"] == index
    assert ("stored_accuracies" in distilled.provenance) == (index == 2)


@pytest.mark.parametrize("entry", [3, -4, 100])
def test_an_entry_that_is_not_there_is_refused(tmp_path, entry):
    with pytest.raises(DataError, match=r"res\.pt has 3 sets: --entry goes from 0 to 2"):
        read(published(tmp_path / "res.pt"), entry=entry)


def test_preprocessing_is_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"does not say how.*give preprocessing="):
        load_distilled(published(tmp_path / "res.pt"))


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path, zipped):
    trace = tmp_path / "trace"
    path = tmp_path / "res.pt"
    content = {"data": [Evil(f"touch {trace}")]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"res\.pt is not read, because it could run code: .*system") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not trace.exists()


def test_a_bare_pickle_that_runs_code_is_not_run(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "res.pt"
    path.write_bytes(pickle.dumps(Evil(f"touch {trace}")))
    with pytest.raises(DataError, match=r"res\.pt"):
        read(path)
    assert not trace.exists()


def pair(images=None, labels=None):
    return [torch.zeros(3, 1, 4, 4) if images is None else images, torch.arange(3) if labels is None else labels]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": []}, "no list 'data'"),
        ({"data": torch.zeros(3)}, "no list 'data'"),
        ({"data": [torch.zeros(3)]}, r"not \[images, labels\]"),
        ({"data": [[torch.zeros(3)]]}, r"not \[images, labels\]"),
        ({"data": [pair(images=torch.zeros(3, 16))]}, "images must be"),
        ({"data": [pair(images=torch.zeros(3, 1, 4, 4, dtype=torch.uint8))]}, "images must be"),
        ({"data": [pair(images=torch.full((3, 1, 4, 4), float("nan")))]}, "NaN"),
        ({"data": [pair(labels=torch.tensor([0.0, 1.0, 2.0]))]}, "labels"),
        ({"data": [pair(labels=torch.tensor([0, 1, 3]))]}, "labels must lie"),
        ({"data": [pair(labels=torch.tensor([-1, 1, 2]))]}, "labels must be"),
        ({"data": [pair(labels=torch.arange(2))]}, "3 images but 2 labels"),
        ({"data": [pair(labels=torch.zeros(3, 1, dtype=torch.int64))]}, "labels"),
        ({"data": [pair(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64))]}, "labels|images"),
        ({"data": [pair(torch.zeros(3, 1, 4, 4).to_sparse(), None)]}, r"res\.pt"),
    ],
)
def test_published_sets_that_cannot_be_meant_are_refused(tmp_path, changes, says):
    with pytest.raises(DataError, match=says) as caught:
        read(published(tmp_path / "res.pt", **changes), classes=CLASSES)
    assert "res.pt" in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {"weights": torch.zeros(2)}, None])
def test_other_content_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "res.pt")
    with pytest.raises(DataError, match="not of the VICO-UoE format"):
        read(tmp_path / "res.pt")


@pytest.mark.parametrize(
    "scores",
    [{"ConvNet": 0.5}, {"ConvNet": ["good"]}, {"ConvNet": None}, {"x": [10**400]}, {"x": [float("nan")]}, [0.5], None],
)
def test_odd_accuracies_do_not_matter(tmp_path, scores):
    distilled = read(published(tmp_path / "res.pt", accs_all_exps=scores))
    assert distilled.provenance["stored_accuracies"] == {}


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "zip of others"])
def test_damaged_files_are_refused(tmp_path, damage):
    path = published(tmp_path / "res.pt")
    if damage == "zip of others":
        np.savez(tmp_path / "x.npz", a=np.zeros(3))
        content = (tmp_path / "x.npz").read_bytes()
    else:
        whole = path.read_bytes()
        content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[damage]
    path.write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(DataError, match=r"res\.pt") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1
