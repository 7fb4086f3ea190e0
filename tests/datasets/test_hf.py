"""Data sets through the package ``datasets``: on parquet files where it is installed, else on a stand-in for it."""

import io
import json
import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from PIL import Image

from harness.datasets import mapped
from harness.errors import DataError, UsageError
from harness.system.packages import lacking_package


def encoded(noise, seed, size=(8, 6), grey=False):
    """An encoded image, and the colours that it decodes to."""
    pixels = noise(*size, seed=seed) if grey else noise(*size, 3, seed=seed)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue(), np.asarray(Image.fromarray(pixels).convert("RGB")).transpose(2, 0, 1)


class Split:
    """Rows of columns, with the calls of the package's ``Dataset`` that the data set makes."""

    def __init__(self, columns, names=None):
        self.columns, self.column_names = columns, list(columns)
        self.features = {name: types.SimpleNamespace() for name in columns}
        if names:
            self.features["label"].names = names

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name):
        return self.columns[name]

    def select_columns(self, names):
        return Split({name: self.columns[name] for name in names})

    def cast_column(self, name, feature):
        assert feature.decode is False
        if any(isinstance(cell, int) for cell in self.columns[name]):
            raise TypeError("Couldn't cast array of type\nint64 to struct")
        return self

    def iter(self, batch_size):
        for start in range(0, len(self), batch_size):
            yield {name: values[start : start + batch_size] for name, values in self.columns.items()}


@pytest.fixture
def package(monkeypatch):
    """A stand-in for the package, which loads the splits that a test puts into it."""
    module = types.ModuleType("datasets")
    module.__spec__ = ModuleSpec("datasets", None, origin="stand-in")
    module.splits, module.calls = {}, []

    def load_dataset(path, name=None, revision=None):
        module.calls.append((path, name, revision))
        if not module.splits:
            raise ConnectionError(f"Couldn't reach {path!r} on the Hub\n(offline)")
        return module.splits

    module.load_dataset, module.Image = load_dataset, lambda decode: types.SimpleNamespace(decode=decode)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


@pytest.fixture
def rows(noise, tmp_path):
    """The columns of a split, and its images; one lies in a file of its own."""

    def rows(labels, seed=0, **how):
        images = [encoded(noise, seed + index, **how) for index in range(len(labels))]
        (tmp_path / f"{seed}.png").write_bytes(images[0][0])
        cells = [{"bytes": content, "path": None} for content, _ in images]
        cells[0] = {"bytes": None, "path": str(tmp_path / f"{seed}.png")}
        return {"image": cells, "label": labels}, np.stack([pixels for _, pixels in images])

    return rows


def test_class_labels_and_images_of_both_splits(load, package, rows):
    (train, images), (test, _) = rows([1, 0, 1, 0]), rows([0, 1], seed=50)
    package.splits = {"train": Split(train, ["cat", "dog"]), "test": Split(test, ["cat", "dog"])}
    raw = load("hf[path=me/pets,revision=v1,config=small]")
    assert package.calls == [("me/pets", "small", "v1")] * 2
    assert raw.classes == ("cat", "dog")
    assert raw.train.labels.tolist() == [1, 0, 1, 0]
    assert np.array_equal(raw.train.images.numpy(), images)


@pytest.mark.parametrize("threshold", [1, 2**30])
def test_what_is_decoded_once_follows_the_content(load, package, rows, monkeypatch, threshold):
    monkeypatch.setattr(mapped, "LARGE", threshold)
    (train, _), (test, _) = rows([0, 1, 1, 0]), rows([0, 1], seed=50)
    package.splits = {"train": Split(train), "validation": Split(test)}
    first = load("hf[path=me/pets,test=validation]")
    with monkeypatch.context() as patched:
        patched.setattr("harness.datasets.collections.hf.decode_bytes", None)
        assert load("hf[path=me/pets,test=validation]").train.fingerprint == first.train.fingerprint
    assert first.train.on_disk is (threshold == 1)
    package.splits["train"].columns["image"] = rows([0] * 4, seed=90)[0]["image"]
    assert load("hf[path=me/pets,test=validation]").train.fingerprint != first.train.fingerprint


def test_texts_name_the_classes_and_grey_stays_grey(load, package, rows):
    (train, images), (test, _) = rows(["b", "a", "b"], grey=True), rows(["a", "b"], seed=50, grey=True)
    package.splits = {"train": Split(train), "test": Split(test)}
    raw = load("hf[path=x]")
    assert (raw.classes, raw.train.labels.tolist()) == (("a", "b"), [1, 0, 1])
    assert np.array_equal(raw.train.images.numpy(), images[:, :1])


def test_numbers_are_their_own_names_and_sizes_are_set(load, package, rows, resolve):
    (train, _), (test, _) = rows([0, 2, 1]), rows([0, 1, 2], seed=50, size=(9, 9))
    package.splits = {"train": Split(train), "test": Split(test)}
    raw = load("hf[path=x,size=64]")
    assert (raw.classes, tuple(raw.test.images.shape)) == (("0", "1", "2"), (3, 3, 64, 64))
    assert resolve("hf[path=x,size=64]").make().traits.defaults.options["convnet"] == {"depth": "4"}
    with pytest.raises(DataError, match=r"image 0 of the split test is 9x9 but image 0 .* is 6x8: give size=N"):
        load("hf[path=x]")


@pytest.mark.parametrize(
    ("change", "name", "line"),
    [
        (
            lambda splits: splits.clear(),
            "hf[path=x]",
            r"hf\[path=x\] cannot be loaded: .*Couldn't reach 'x' on",
        ),
        (lambda splits: splits.pop("test"), "hf[path=x]", r"has no split 'test': write test=, there is train"),
        (lambda splits: None, "hf[path=x,image=img]", r"has no column 'img': write image=, did you mean 'image'"),
        (lambda splits: None, "hf[path=x,label=fine]", r"has no column 'fine': write label="),
        (lambda splits: None, "hf[path=x,image=label]", r"column 'label' does not hold encoded images: name another"),
        (
            lambda splits: splits["test"].columns["label"].__setitem__(0, -1),
            "hf[path=x]",
            "no label .-1.: name another split",
        ),
        (lambda splits: splits["test"].columns["label"].__setitem__(0, -2), "hf[path=x]", "must hold a class for each"),
        (lambda splits: splits["test"].columns["label"].__setitem__(0, None), "hf[path=x]", "must hold a class for"),
        (
            lambda splits: splits["test"].columns["image"].__setitem__(1, None),
            "hf[path=x]",
            "image 1 of the split test is",
        ),
        (
            lambda splits: splits["test"].columns["image"].__setitem__(1, {"bytes": b"no", "path": None}),
            "hf[path=x]",
            "image 1 of the split test is not an image that can be read",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(load, package, rows, change, name, line):
    (train, _), (test, _) = rows([0, 1]), rows([0, 1], seed=50)
    package.splits = {"train": Split(train), "test": Split(test)}
    change(package.splits)
    with pytest.raises(DataError, match=line) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_a_folder_whose_path_is_a_pattern_is_refused(load, package, tmp_path):
    (tmp_path / "pets [1]").mkdir()
    with pytest.raises(DataError, match=r"pets \[1\]\]: the package .* pattern: rename it, .* without \[ and \]"):
        load(f"hf[path={tmp_path / 'pets [1]'}]")


def test_without_the_package_the_remedy_is_said(load, monkeypatch):
    monkeypatch.setattr("harness.system.packages._is_installed", lambda module: False)
    with pytest.raises(UsageError, match=r"hf needs the package datasets, .*: pip install 'ddbench\[hf\]'"):
        load("hf[path=x]")


def test_a_folder_called_as_the_package_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert "pip install 'x'" in lacking_package({"no_such_package": "x"})


@pytest.mark.filterwarnings("ignore")  # what the package's own packages warn of
def test_real_parquet_files(load, tmp_path, noise):
    """Skipped where the package is not installed: it needs 300 MB."""
    if lacking_package({"datasets": "ddbench[hf]"}):
        pytest.skip("the package datasets is not installed: pip install 'ddbench[hf]'")
    import pyarrow
    import pyarrow.parquet

    names, images = {"_type": "ClassLabel", "names": ["cat", "dog"]}, {}
    described = json.dumps({"info": {"features": {"picture": {"_type": "Image"}, "kind": names}}})
    (tmp_path / "pets").mkdir()
    for split, labels in (("train", [1, 0, 1]), ("test", [0, 1])):
        images[split] = [encoded(noise, 10 * len(labels) + index) for index in range(len(labels))]
        cell = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        cells = pyarrow.array([{"bytes": content, "path": None} for content, _ in images[split]], type=cell)
        table = pyarrow.table({"picture": cells, "kind": labels}).replace_schema_metadata({"huggingface": described})
        pyarrow.parquet.write_table(table, tmp_path / "pets" / f"{split}-00000-of-00001.parquet")
    raw = load(f"hf[path={tmp_path / 'pets'},image=picture,label=kind]")
    assert (raw.classes, raw.train.labels.tolist(), raw.test.labels.tolist()) == (("cat", "dog"), [1, 0, 1], [0, 1])
    assert np.array_equal(raw.train.images.numpy(), np.stack([pixels for _, pixels in images["train"]]))
