import gzip
import hashlib
import pickle
import struct
import urllib.error
import urllib.request

import numpy as np
import pytest
import scipy.io
import torch
import torchvision

from harness.datasets.problems import preprocessing_known
from harness.errors import DataError
from harness.types.dataset import SIX_ARCHITECTURES

NAMES = ("mnist", "fashion-mnist", "svhn", "cifar10", "cifar100")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def idx(array: np.ndarray) -> bytes:
    """The MNIST file format: magic number 0x0000080D for D dimensions of bytes, sizes big-endian, then the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def idx_files(noise):
    """By name, the four files of a small MNIST; its training images and labels."""
    labels = np.arange(20, dtype=np.uint8) % 10
    images = noise(20, 28, 28)
    contents = {
        "train-images-idx3-ubyte": idx(images),
        "train-labels-idx1-ubyte": idx(labels),
        "t10k-images-idx3-ubyte": idx(images[:10]),
        "t10k-labels-idx1-ubyte": idx(labels[:10]),
    }
    return contents, images, labels


def test_mnist_is_read_from_its_raw_files(load, root, idx_files):
    contents, images, labels = idx_files
    (root / "MNIST" / "raw").mkdir(parents=True)
    for name, content in contents.items():
        (root / "MNIST" / "raw" / name).write_bytes(content)
    raw = load("mnist")
    assert np.array_equal(raw.train.images[:, 0].numpy(), images)
    assert raw.train.labels.tolist() == labels.tolist()
    assert (len(raw.test), raw.classes) == (10, tuple("0123456789"))


def test_prepare_unpacks_archives_that_were_put_there_by_hand(load, root, resolve, idx_files, monkeypatch):
    contents, images, _ = idx_files
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    resources = []
    for name, content in contents.items():
        packed = gzip.compress(content, mtime=0)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", md5(packed)))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    with pytest.raises(DataError, match="run `ddbench prepare fashion-mnist`"):
        load("fashion-mnist")
    resolved = resolve("fashion-mnist")
    resolved.make().prepare(root)
    raw = load("fashion-mnist")
    assert np.array_equal(raw.train.images[:, 0].numpy(), images)
    assert raw.classes[0] == "T-shirt/top"


def write_cifar(root, monkeypatch, source, folder, labels_key, meta_key, batches, meta_name):
    """Pickles as the originals, with torchvision's check sums set to theirs."""
    (root / folder).mkdir()
    sums = {}
    for name, (pixels, labels) in batches.items():
        content = pickle.dumps({"data": pixels.reshape(len(pixels), -1), labels_key: labels}, protocol=2)
        (root / folder / name).write_bytes(content)
        sums[name] = md5(content)
    meta = pickle.dumps({meta_key: [f"class {i}" for i in range(10)]}, protocol=2)
    (root / folder / meta_name).write_bytes(meta)
    dataset = getattr(torchvision.datasets, source)
    monkeypatch.setattr(dataset, "train_list", [[n, s] for n, s in sums.items() if not n.startswith("test")])
    monkeypatch.setattr(dataset, "test_list", [[n, s] for n, s in sums.items() if n.startswith("test")])
    monkeypatch.setattr(dataset, "meta", {"filename": meta_name, "key": meta_key, "md5": md5(meta)})


def test_cifar10_is_read_from_its_pickles(load, root, noise, monkeypatch):
    labels = [index % 10 for index in range(10)]
    batches = {name: (noise(10, 3, 32, 32, seed=seed), labels) for seed, name in enumerate(("one", "two", "test_one"))}
    write_cifar(root, monkeypatch, "CIFAR10", "cifar-10-batches-py", "labels", "label_names", batches, "batches.meta")
    raw = load("cifar10")
    assert np.array_equal(raw.train.images.numpy(), np.concatenate([batches["one"][0], batches["two"][0]]))
    assert np.array_equal(raw.test.images.numpy(), batches["test_one"][0])
    assert raw.train.labels.tolist() == labels * 2
    assert raw.train.labels.dtype == torch.int64
    assert raw.classes[3] == "class 3"
    (root / "cifar-10-batches-py" / "two").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cifar10 is missing or damaged"):
        load("cifar10")


def test_cifar100_has_the_fine_labels(load, root, noise, monkeypatch):
    batches = {name: (noise(10, 3, 32, 32), list(range(10))) for name in ("train", "test")}
    write_cifar(root, monkeypatch, "CIFAR100", "cifar-100-python", "fine_labels", "fine_label_names", batches, "meta")
    assert load("cifar100").train.labels.tolist() == list(range(10))


def test_svhn_is_read_from_its_mat_files_and_ten_means_zero(load, root, noise, monkeypatch):
    sources = {}
    for seed, part in enumerate(("train", "test")):
        path = root / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": noise(32, 32, 3, 10, seed=seed), "y": np.arange(1, 11, dtype=np.uint8)[:, None]})
        sources[part] = ["", path.name, md5(path.read_bytes())]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", sources)
    raw = load("svhn")
    assert raw.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert np.array_equal(raw.test.images.numpy(), noise(32, 32, 3, 10, seed=1).transpose(3, 2, 0, 1))


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("svhn", "train_32x32.mat, test_32x32.mat"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
    ],
)
def test_missing_files_are_named_with_the_place_and_the_command(load, root, name, archive):
    with pytest.raises(DataError) as caught:
        load(name)
    message = str(caught.value)
    assert f"run `ddbench prepare {name}`" in message
    assert archive in message
    assert str(root) in message
    assert "\n" not in message
    assert "download=True" not in message


@pytest.mark.parametrize("name", NAMES)
def test_prepare_without_a_network_says_which_files_to_put_where(resolve, root, name, monkeypatch, capsys):
    def offline(*_args, **_kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    resolved = resolve(name)
    with pytest.raises(DataError, match=rf"{name} cannot be fetched: put .* into {root}.*no network") as caught:
        resolved.make().prepare(root)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_damaged_file_is_one_clear_line(load, root, idx_files):
    (root / "MNIST" / "raw").mkdir(parents=True)
    for name, content in idx_files[0].items():
        (root / "MNIST" / "raw" / name).write_bytes(content[:100] if "images" in name else content)
    with pytest.raises(DataError, match="mnist is missing or damaged") as caught:
        load("mnist")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_traits_are_those_of_the_field(resolve, name):
    resolved = resolve(name)
    traits = resolved.make().traits
    assert traits.normalize == traits.like == name
    assert traits.augmentations["dc"] == ("crop+scale+rotate" if name == "mnist" else "none")
    flips = "flip" in traits.augmentations["dsa"].split("+")
    assert flips == (name in ("cifar10", "cifar100", "fashion-mnist"))
    defaults = traits.defaults
    assert defaults.options == {}
    assert (defaults.evaluators, defaults.architectures) == (("plain", "kd"), SIX_ARCHITECTURES)
    expected = ((1, 10), (1000, 2000, 3000), 10, 1) if name == "cifar10" else ((1,), (1000,), 5, 1)
    assert (defaults.ipc, defaults.iterations, defaults.students, defaults.distillations) == expected
    assert preprocessing_known(resolved)
