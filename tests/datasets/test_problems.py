from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.datasets.checks import check
from harness.datasets.problems import data_root, make_problem, preprocessing_known
from harness.datasets.splits import cut
from harness.errors import DataError, PluginError, UsageError
from harness.plugins.registry import Entry, Resolved
from harness.types.data.preprocessing import NORMALIZATIONS, Normalize, preprocessing_from
from harness.types.dataset import Dataset, DatasetOptions, RawData
from harness.types.options import Options
from harness.types.problem import Split
from harness.types.seeds import Streams


@pytest.fixture
def many(arrays, noise):
    """60 training images in classes of 40, 15 and 5; the name of the data set."""
    labels = np.repeat(np.arange(3), (40, 15, 5))
    return f"arrays[path={arrays(x_train=noise(60, 6, 6, 3, seed=5), y_train=labels)}]"


def rows(split: Split) -> list[bytes]:
    return [bytes(image) for image in split.images.flatten(1).numpy()]


# The data root


def test_the_data_root_is_an_environment_variable_or_in_the_cache(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("DDBENCH_DATA", raising=False)
    assert data_root() == Path("/home/me/.cache/ddbench-data")
    monkeypatch.setenv("DDBENCH_DATA", "~/sets")
    assert data_root() == Path("/home/me/sets")


# Splits


def test_by_default_everything_is_distilled_and_the_test_set_scores(problem, many):
    loaded = problem(many)
    assert (loaded.name, loaded.score_on, len(loaded.train), len(loaded.score)) == (many, "test", 60, 6)


def test_validation_takes_a_tenth_of_each_class_and_at_least_one(problem, many):
    loaded = problem(many, score_on="validation")
    assert torch.bincount(loaded.score.labels).tolist() == [4, 1, 1]
    assert torch.bincount(loaded.train.labels).tolist() == [36, 14, 4]
    assert loaded.score_on == "validation"
    assert sorted(rows(loaded.score) + rows(loaded.train)) == sorted(rows(problem(many).train))


def test_held_out_images_are_the_same_where_the_test_set_scores(problem, many):
    validated, held_out = problem(many, score_on="validation"), problem(many, hold_out=True)
    assert held_out.train.fingerprint == validated.train.fingerprint
    assert held_out.score.fingerprint == problem(many).score.fingerprint
    assert held_out.fingerprint != problem(many).fingerprint


def test_the_validation_split_follows_the_seed_alone(problem, many):
    first, again, other = (problem(many, score_on="validation", seed=seed) for seed in (0, 0, 1))
    assert first.score.fingerprint == again.score.fingerprint
    assert first.score.fingerprint != other.score.fingerprint


def test_the_draw_of_a_class_does_not_depend_on_the_others(noise):
    images = torch.from_numpy(noise(30, 1, 2, 2))
    labels = torch.tensor([0, 1, 2] * 10)
    everything = cut(Split(images, labels), lambda _: 3, Streams(0), "validation")[1]
    without_0 = labels > 0
    part = cut(Split(images[without_0], labels[without_0]), lambda _: 3, Streams(0), "validation")[1]
    assert rows(part) == rows(everything[everything.labels > 0])


def test_a_class_of_one_image_cannot_be_validated(problem, arrays):
    labels = np.array([0, 1, 2] + [0, 1] * 4 + [0])
    name = f"arrays[path={arrays(y_train=labels, classes=np.array(['a', 'b', 'lonely']))}]"
    assert len(problem(name).train) == 12
    with pytest.raises(DataError, match="class 'lonely' has one training image, too few for a validation split"):
        problem(name, hold_out=True)


# Normalisation


def test_the_tables_are_those_of_the_field():
    assert NORMALIZATIONS == {
        "mnist": ((0.1307,), (0.3081,)),
        "fashion-mnist": ((0.2861,), (0.3530,)),
        "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
        "tinyimagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }


@pytest.mark.parametrize(("option", "used"), [("normalize=svhn", "svhn"), ("like=cifar10", "cifar10")])
def test_a_named_normalisation(problem, arrays, option, used):
    loaded = problem(f"arrays[path={arrays()},{option}]")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALIZATIONS[used])
    expected = (loaded.train.images.float() / 255 - mean) / std
    assert loaded.preprocessing.name == used
    assert torch.allclose(loaded.preprocessing.to_inputs(loaded.train.images), expected)


def test_like_gives_all_that_goes_with_the_known_set(resolve, problem, arrays):
    path = arrays()
    copied, known = resolve(f"arrays[path={path},like=cifar10]"), resolve("cifar10")
    traits = copied.make().traits
    assert traits == known.make().traits
    loaded = problem(f"arrays[path={path},like=cifar10]")
    assert (loaded.like, loaded.augmentations) == ("cifar10", traits.augmentations)
    assert problem(f"arrays[path={path},like=cifar10,normalize=auto]").preprocessing.name == "auto"


def test_auto_is_computed_from_the_images_that_are_left(problem, many):
    for loaded in (problem(many), problem(many, hold_out=True)):
        pixels = loaded.train.images.numpy().astype(np.float64) / 255
        tensors = loaded.preprocessing.tensors()
        assert np.allclose(tensors["mean"], pixels.mean((0, 2, 3)), atol=1e-7)
        assert np.allclose(tensors["std"], pixels.std((0, 2, 3)), atol=1e-7)
    assert problem(many).preprocessing.tensors()["mean"].tolist() != tensors["mean"].tolist()


@pytest.mark.parametrize(
    ("option", "error", "line"),
    [
        ("normalize=cifar", UsageError, "no normalisation 'cifar': did you mean 'cifar10' or 'cifar100'"),
        ("normalize=mnist", DataError, "normalize=mnist is for 1 channels, but the images have 3"),
        ("zca=true,normalize=auto", UsageError, "leave out either zca or normalize"),
    ],
)
def test_bad_preprocessing(problem, many, option, error, line):
    with pytest.raises(error, match=line):
        problem(many.replace("]", f",{option}]"))


@pytest.mark.parametrize(
    ("options", "known"),
    [("", False), ("like=svhn", True), ("normalize=auto", True), ("normalize=cifar10", True), ("zca=true", True)],
)
def test_an_unknown_set_has_no_known_preprocessing(resolve, options, known):
    assert preprocessing_known(resolve(f"folder[path=x,{options}]")) is known


@pytest.mark.parametrize("option", ["normalize=auto", "normalize=cifar10", "zca=true"])
def test_preprocessing_can_be_undone_and_rebuilt(problem, many, option):
    loaded = problem(many.replace("]", f",{option}]"))
    images = loaded.score.images.float() / 255
    inputs = loaded.preprocessing.apply(images)
    assert torch.allclose(loaded.preprocessing.invert(inputs), images, atol=1e-5)
    rebuilt = preprocessing_from(loaded.preprocessing.name, loaded.preprocessing.tensors())
    assert torch.equal(rebuilt.apply(images), inputs)
    assert inputs.dtype == torch.float32


def test_a_constant_channel_does_not_blow_up():
    assert Normalize.computed(torch.full((3, 1, 2, 2), 7, dtype=torch.uint8)).std.tolist() == [pytest.approx(1e-3)]


# Whitening


@pytest.mark.parametrize("eps", [0.1, 0.001])
def test_whitened_images_have_the_covariance_of_the_formula(problem, arrays, noise, eps):
    """With covariance U diag(s) U^T, whitening by U diag((s + eps)^-1/2) U^T leaves U diag(s / (s + eps)) U^T."""
    images = noise(400, 3, 4, seed=3) // 2 + np.arange(120, dtype=np.uint8).repeat(40)[:4800].reshape(400, 3, 4)
    path = arrays(x_train=images, y_train=np.arange(400) % 3, x_test=images[:6])
    loaded = problem(f"arrays[path={path},zca=true,zca_eps={eps}]")
    flat = images.reshape(400, -1) / 255
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    whitened = loaded.preprocessing.to_inputs(loaded.train.images).flatten(1).numpy()
    assert np.allclose(whitened.mean(0), 0, atol=1e-4)
    assert np.allclose(np.cov(whitened.T), vectors @ np.diag(values / (values + eps)) @ vectors.T, atol=2e-4)
    expected = (flat - flat.mean(0)) @ vectors @ np.diag((values + eps) ** -0.5) @ vectors.T
    assert np.allclose(whitened, expected, atol=1e-3)


def test_whitening_is_fitted_once_for_each_training_set_and_eps(problem, many, root, monkeypatch):
    named = many.replace("]", ",zca=true]")
    first = problem(named)
    problem(named, hold_out=True)
    problem(many.replace("]", ",zca=true,zca_eps=0.2]"))
    assert len(list((root / "decoded").glob("zca-*"))) == 3
    monkeypatch.setattr("harness.types.data.preprocessing.Whiten.fitted", None)
    assert problem(named).fingerprint == first.fingerprint


# Fingerprints


def test_fingerprints_follow_pixels_labels_preprocessing_and_class_names_and_nothing_else(problem, arrays, noise):
    images, labels = noise(12, 6, 6, 3, seed=1), np.arange(12) % 3

    def fingerprint(options="normalize=svhn", **changes):
        path = arrays(**{"x_train": images, "y_train": labels, **changes})
        return problem(f"arrays[path={path},{options}]").fingerprint

    base = fingerprint()
    assert fingerprint(x_test=noise(6, 6, 6, 3, seed=8)) == base
    assert fingerprint(classes=np.array(["0", "1", "2"])) == base  # what a file without names has
    assert fingerprint(x_train=images.transpose(0, 3, 1, 2)) == base
    changed = images.copy()
    changed[5, 4, 3, 2] ^= 1
    others = [
        fingerprint(x_train=changed),
        fingerprint(y_train=np.roll(labels, 1)),
        fingerprint("normalize=cifar10"),
        fingerprint("normalize=auto"),
        fingerprint("zca=true"),
        fingerprint(classes=np.array(["a", "b", "c"])),
        fingerprint(classes=np.array(["a", "c", "b"])),
        fingerprint(classes=np.array(["a b", "c", "d"])),
        fingerprint(classes=np.array(["a", "b c", "d"])),
    ]
    assert len({base, *others}) == 10


# What a plugin's data set may get wrong


class Broken(Dataset[DatasetOptions]):
    raw: RawData

    def load(self, root):
        print("a plugin that chats")
        return self.raw


class Optionless(Dataset[DatasetOptions]):
    Options = Options

    def load(self, root):
        raise AssertionError


def sound() -> RawData:
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    return RawData(Split(images, labels), Split(images, labels), ("a", "b"))


def test_what_a_data_set_prints_goes_to_stderr(root, capsys):
    Broken.raw = sound()
    entry = Entry("dataset", "broken", "m:Broken", "", "theirs", "1")
    make_problem(Resolved(entry, Broken, DatasetOptions()), root=root)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "a plugin that chats\n")


def test_options_must_be_those_of_a_data_set(root):
    entry = Entry("dataset", "broken", "m:Broken", "", "theirs", "1")
    with pytest.raises(PluginError, match="'broken' do not derive from DatasetOptions"):
        make_problem(Resolved(entry, Optionless, Options()), root=root)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda split: Split(split.images.float(), split.labels), "must have uint8 images .* not torch.float32"),
        (lambda split: Split(split.images[:, 0], split.labels), r"must have uint8 images .*\(4, 2, 2\)"),
        (lambda split: Split(split.images, split.labels.int()), "must have int64 labels"),
        (lambda split: Split(split.images, split.labels[:3]), "has 4 images but 3 labels"),
        (lambda split: Split(split.images, split.labels + 1), "has the label 2, but there are 2 classes"),
        (lambda split: Split(split.images, split.labels * 0), "has no image of class 'b'"),
    ],
)
def test_every_split_is_checked(change, line):
    raw = sound()
    check(raw, "theirs")
    with pytest.raises(DataError, match=f"theirs: the training set {line}"):
        check(replace(raw, train=change(raw.train)), "theirs")
    with pytest.raises(DataError, match=f"theirs: the test set {line}"):
        check(replace(raw, test=change(raw.test)), "theirs")
