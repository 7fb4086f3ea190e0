"""Tiny-ImageNet, ImageNet, CIFAR-10-C and MedMNIST, on small files of their real layouts."""

import shutil
import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from harness.datasets import mapped
from harness.datasets.collections import imagenet
from harness.datasets.collections.cifar10_c import CORRUPTIONS
from harness.datasets.collections.imagenet import SUBSETS
from harness.datasets.known_classes import CIFAR10
from harness.datasets.traits import convnet_depth
from harness.errors import DataError, UsageError
from harness.plugins.discovery import plugins
from harness.testing import DatasetContract
from harness.types.dataset import RawData
from harness.types.names import parse_name
from harness.types.problem import Split

WNIDS = ("n02124075", "n01443537", "n03126707", "n02012849", "n03444034")
WORDS = ("Egyptian cat", "goldfish, Carassius auratus", "crane", "crane", "go-kart")


def jpeg(path, noise, seed, size=(64, 64), grey=False):
    """Save a JPEG, and return the colours that it decodes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(*size, seed=seed) if grey else noise(*size, 3, seed=seed)
    Image.fromarray(pixels).save(path, "JPEG")
    return np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)


# Tiny-ImageNet


@pytest.fixture
def tiny(root, noise):
    """Five classes of three training and two validation images; the folder and its images by name."""
    base, images, lines = root / "tiny-imagenet-200", {}, []
    base.mkdir()
    (base / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    words = [f"{wnid}\t{word}\n" for wnid, word in zip(WNIDS, WORDS, strict=True)]
    (base / "words.txt").write_text("".join(["n00001740\tentity\n", *words]))
    for label, wnid in enumerate(WNIDS):
        for index in range(3):
            name = f"{wnid}_{index}.JPEG"
            images[name] = jpeg(base / "train" / wnid / "images" / name, noise, 10 * label + index, grey=index == 1)
        (base / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
        for index in range(2):
            name = f"val_{2 * label + index}.JPEG"
            images[name] = jpeg(base / "val" / "images" / name, noise, 100 + 10 * label + index)
            lines.append(f"{name}\t{WNIDS[(label + index) % 5]}\t0\t32\t44\t62\n")
    (base / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    (base / "test" / "images").mkdir(parents=True)
    return base, images


def test_tiny_imagenet_is_read_from_its_own_layout(load, tiny):
    raw, (_, images) = load("tiny-imagenet"), tiny
    assert raw.classes == ("goldfish", "crane (n02012849)", "Egyptian cat", "crane (n03126707)", "go-kart")
    assert raw.train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    for row, wnid in ((0, "n01443537"), (14, "n03444034")):
        assert np.array_equal(raw.train.images[row].numpy(), images[f"{wnid}_{row % 3}.JPEG"])
    grey = raw.train.images[1]
    assert torch.equal(grey[0], grey[2])
    # The annotations decide order and labels: the last line of val_9 comes first, whose class is the first of wnids.
    assert np.array_equal(raw.test.images[0].numpy(), images["val_9.JPEG"])
    order = sorted(WNIDS)
    lines = [(9 - row, WNIDS[((9 - row) // 2 + (9 - row) % 2) % 5]) for row in range(10)]
    assert raw.test.labels.tolist() == [order.index(wnid) for _, wnid in lines]


def test_tiny_imagenet_at_a_path_and_mapped_is_the_same(load, tiny, root, tmp_path, monkeypatch):
    first = load("tiny-imagenet")
    moved = shutil.move(tiny[0], tmp_path / "elsewhere")
    monkeypatch.setattr(mapped, "LARGE", 1)
    again = load(f"tiny-imagenet[path={moved}]")
    assert again.train.on_disk
    assert (again.train.fingerprint, again.test.fingerprint) == (first.train.fingerprint, first.test.fingerprint)


def test_a_second_load_decodes_nothing_until_a_file_changes(load, tiny, noise, monkeypatch):
    first, decode = load("tiny-imagenet"), "harness.types.data.images._decode"
    with monkeypatch.context() as patched:
        patched.setattr(decode, None)
        assert load("tiny-imagenet").train.fingerprint == first.train.fingerprint
    jpeg(tiny[0] / "val/images/val_9.JPEG", noise, 999, size=(64, 64), grey=True)
    assert load("tiny-imagenet").test.fingerprint != first.test.fingerprint


def rewrite(name, change):
    def damage(base):
        (base / name).write_text(change((base / name).read_text()))

    return damage


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (
            lambda base: (base / "wnids.txt").unlink(),
            r"has no wnids\.txt: path= must name the folder tiny-imagenet",
        ),
        (lambda base: shutil.rmtree(base / "val"), r"has no val/val_annotations\.txt: path= must name"),
        (lambda base: shutil.rmtree(base / "train" / WNIDS[0]), rf"train/{WNIDS[0]}/images is missing: unpack"),
        (rewrite("words.txt", lambda text: text.replace("n03444034", "n9")), r"words\.txt has no name for n03444034"),
        (rewrite("wnids.txt", lambda text: text + "n12345678\n"), r"words\.txt has no name for n12345678 of wnids"),
        (
            rewrite("val/val_annotations.txt", lambda text: text.replace("val_3.J", "val_33.J")),
            r"has no 'val_33",
        ),
        (
            rewrite("val/val_annotations.txt", lambda text: "val_0.JPEG n02124075"),
            "line 1: '' is not a class of wnid",
        ),
        (rewrite("wnids.txt", lambda text: ""), r"wnids\.txt is empty: unpack"),
        (rewrite("wnids.txt", lambda text: text + WNIDS[0]), rf"wnids\.txt has {WNIDS[0]} twice: delete one"),
        (
            rewrite("val/val_annotations.txt", lambda text: text + text.splitlines()[0]),
            r"val_annotations\.txt, line \d+: 'val_\d\.JPEG' is there twice: .*delete the line",
        ),
        (rewrite("val/val_annotations.txt", lambda text: ""), r"val_annotations\.txt is empty: unpack"),
        (lambda base: (base / "val/images").rename(base / "val/n1"), r"val/images is missing: the validation images"),
        (lambda base: (base / "words.txt").write_bytes(b"\xff\xfe\xff"), r"words\.txt cannot be read as text: unpack"),
        (lambda base: Image.new("RGB", (32, 64)).save(base / "val/images/val_0.JPEG"), "is 32x64 but .*unpack tiny-im"),
        (lambda base: (base / "val/images/val_0.JPEG").write_text("no"), "val_0.JPEG is not an image that can be read"),
    ],
)
def test_another_layout_is_one_line_that_names_the_file(load, tiny, damage, line):
    damage(tiny[0])
    with pytest.raises(DataError, match=line) as caught:
        load("tiny-imagenet")
    assert "\n" not in str(caught.value)
    assert str(tiny[0]) in str(caught.value)


@pytest.mark.parametrize("name", ["tiny-imagenet", "imagenet", "cifar10-c"])
def test_a_path_is_checked_without_reading_images(resolve, root, name):
    resolve(name).make().check_files(root)
    with pytest.raises(DataError, match="nowhere does not exist: path= must name"):
        resolve(f"{name}[path=nowhere]").make().check_files(root)


def test_without_the_folder(load, root):
    with pytest.raises(DataError, match=r"tiny-imagenet-200 does not exist: put the folder tiny-.* by path="):
        load("tiny-imagenet")


@pytest.mark.parametrize("name", ["tiny-imagenet", "medmnist[name=bloodmnist]"])
def test_the_contract_of_data_sets_is_kept(tiny, root, noise, monkeypatch, name):
    medical(root, noise)
    monkeypatch.setenv("DDBENCH_DATA", str(root))
    contract = DatasetContract()
    contract.name = name
    outcomes = list(contract.outcomes())
    assert [outcome for outcome in outcomes if outcome.status == "FAILED"] == []
    assert sum(outcome.status == "ok" for outcome in outcomes) == len(outcomes)


# ImageNet


@pytest.fixture
def ilsvrc(root, noise, monkeypatch):
    """Twelve classes with an image or two each, as if they were all of ImageNet."""
    monkeypatch.setattr(imagenet, "CLASSES", 12)
    monkeypatch.setitem(SUBSETS, "nette", (7, 0, 11))
    base = root / "imagenet"
    for index in range(12):
        for part, count in (("train", 1 + index % 2), ("val", 1)):
            for number in range(count):
                size = (70 + 3 * index, 90) if number else (95, 71)
                place = base / part / f"n{index:08}" / f"{part}_{number}.JPEG"
                jpeg(place, noise, 100 * index + number + (part == "val") * 50, size, grey=index == 11)
    return base


def test_a_subset_has_mtts_labels_and_torchvisions_pixels(load, ilsvrc, resolve):
    raw = load("imagenet[subset=nette,size=64]")
    resolved = resolve("imagenet[subset=nette,size=64]").make()
    assert raw.classes == resolved.outline.classes == ("cock", "tench", "goldfinch")
    assert raw.train.labels.tolist() == [0, 0, 1, 2, 2]
    transform = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(64), transforms.PILToTensor()])
    files = [*(ilsvrc / "train/n00000007").iterdir()], [*(ilsvrc / "val/n00000011").iterdir()]
    for file, pixels in zip(sorted(files[0]), raw.train.images[:2], strict=True):
        assert torch.equal(pixels, transform(Image.open(file).convert("RGB")))
    assert torch.equal(raw.test.images[2], transform(Image.open(files[1][0]).convert("RGB")))


def test_all_classes_are_mapped_from_a_file(load, ilsvrc, root, monkeypatch):
    monkeypatch.setattr(mapped, "LARGE", 12 * 64 * 64 * 3)
    raw = load("imagenet[size=64]")
    assert raw.train.on_disk
    assert (len(raw.classes), len(raw.train), len(raw.test)) == (12, 18, 12)
    assert raw.train.images.shape[1:] == (3, 64, 64)
    assert [path.name.partition("-")[0] for path in (root / "decoded").iterdir()] == ["imagenet"]
    monkeypatch.setattr("harness.types.data.images._decode", None)
    assert load("imagenet").train.fingerprint == raw.train.fingerprint, "64 pixels are the default of all classes"


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (
            lambda base: shutil.rmtree(base / "train" / "n00000004"),
            "train has 11 class folders, not 12: classes are",
        ),
        (lambda base: shutil.rmtree(base / "val" / "n00000007"), "val/n00000007 is missing: .*validation set is flat"),
        (lambda base: (base / "val").rename(base / "validation"), "has no folder 'val': path= must name a folder of"),
        (lambda base: (base / "val/n00000007/val_0.JPEG").unlink(), "val/n00000007 has no images: path= must name"),
    ],
)
def test_another_layout_of_imagenet_is_one_line(load, ilsvrc, damage, line):
    damage(ilsvrc)
    with pytest.raises(DataError, match=line) as caught:
        load("imagenet[subset=nette,size=64]")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("imagenet[subset=woofs]", "there is no such subset: did you mean 'woof'"),
        ("imagenet[size=100]", "must be 32, 64, 128, 224 or 256"),
        ("cifar10-c[corruption=smoke]", "there is no corruption 'smoke'"),
        ("cifar10-c[corruption=fog+snow+fog]", "'fog' is there twice, and its images would count twice"),
        ("cifar10-c[severity=6]", "less than or equal to 5"),
        ("medmnist[name=chestmnist]", "several labels each"),
        ("medmnist[name=pathmist]", "did you mean 'pathmnist'"),
        ("medmnist[name=pathmnist,size=32]", "must be 28, 64, 128 or 224"),
        ("medmnist", "needs its option 'name'"),
    ],
)
def test_options_are_checked_by_name(resolve, name, line):
    with pytest.raises(UsageError, match=line):
        resolve(name)


def test_subsets_are_ten_classes_each():
    for name, indices in SUBSETS.items():
        assert len(set(indices)) == 10, name
        assert all(0 <= index < 1000 for index in indices)
    assert SUBSETS["nette"] == (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)


def test_names_are_torchvisions_and_differ():
    names = imagenet._names(tuple(range(1000)))
    assert len(set(names)) == 1000
    assert (names[0], names[309], names[953]) == ("tench", "bee", "pineapple")


# Main models by size


@pytest.mark.parametrize(("size", "depth"), [(28, 3), (32, 3), (64, 4), (128, 5), (224, 6), (256, 6)])
def test_depths_are_the_published_ones(resolve, size, depth):
    assert convnet_depth(size) == depth
    if size not in (28, 32):
        defaults = resolve(f"imagenet[size={size}]").make().traits.defaults
        assert defaults.options["convnet"] == {"depth": str(depth)}
        assert defaults.options["single"] == {"main": f"convnet[depth={depth}]"}
        assert defaults.options["kd"]["teacher"] == f"convnet[depth={depth}]"


@pytest.mark.parametrize(
    "pool",
    ["single", "main-model", "main-similar", "total-random", "adaptive", "deep", "pair", "early-stage"],
)
def test_pools_draw_main_networks_of_the_published_depth(resolve, pool):
    """By default; the similar ones follow their main network."""
    registry, defaults = plugins().registry, resolve("imagenet[size=128]").make().traits.defaults
    names = parse_name(pool), defaults.complete(parse_name(pool))
    small, sized = ({*registry.resolve("pool", name).make().distribution(0)} for name in names)
    assert "convnet" in small
    assert "convnet[depth=5]" in sized
    assert "convnet" not in sized


# CIFAR-10-C


@pytest.fixture
def corrupted(root, noise, monkeypatch):
    """Files of ten images at each of five severities; CIFAR-10's own training images are noise."""
    base, labels = root / "CIFAR-10-C", np.tile([0, 3, 9, 1, 2, 4, 5, 6, 8, 7], 5).astype(np.uint8)
    base.mkdir()
    np.save(base / "labels.npy", labels)
    for seed, name in enumerate((*CORRUPTIONS, "spatter")):
        np.save(base / f"{name}.npy", noise(50, 32, 32, 3, seed=seed))
    train = Split(torch.from_numpy(noise(10, 3, 32, 32)), torch.arange(10))
    monkeypatch.setattr("harness.datasets.torchvision.CIFAR10.load", lambda self, root: RawData(train, train, CIFAR10))
    return base


def test_a_corruption_at_a_severity_is_the_test_set(load, corrupted, noise):
    raw = load("cifar10-c[corruption=fog,severity=2]")
    fog = noise(50, 32, 32, 3, seed=CORRUPTIONS.index("fog"))
    assert np.array_equal(raw.test.images.numpy(), fog[10:20].transpose(0, 3, 1, 2))
    assert raw.test.labels.tolist() == [0, 3, 9, 1, 2, 4, 5, 6, 8, 7]
    assert (len(raw.train), raw.classes) == (10, CIFAR10)


@pytest.mark.parametrize("threshold", [1, 2**30])
def test_all_corruptions_at_all_severities(load, corrupted, noise, monkeypatch, threshold):
    monkeypatch.setattr(mapped, "LARGE", threshold)
    raw = load("cifar10-c")
    assert (len(raw.test), raw.test.on_disk) == (750, threshold == 1)
    assert np.array_equal(raw.test.images[50:100].numpy(), noise(50, 32, 32, 3, seed=1).transpose(0, 3, 1, 2))
    assert "spatter" not in CORRUPTIONS
    assert len(load("cifar10-c[corruption=spatter+fog,severity=5]").test) == 20


def test_sets_are_those_of_cifar10_and_published_accuracies_do_not_apply(resolve, corrupted, root):
    from harness.datasets.problems import make_problem

    problem = make_problem(resolve("cifar10-c[corruption=fog]"), root=root)
    # The key of a set names the training images, and not those that it is scored on.
    assert problem.fingerprint == make_problem(resolve("cifar10"), root=root).fingerprint
    assert (problem.like, problem.scored_like) == ("cifar10", None)
    assert problem.preprocessing.name == "cifar10"


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda base: (base / "fog.npy").unlink(), r"fog\.npy is missing: path= must name the folder CIFAR-10-C"),
        (lambda base: (base / "labels.npy").unlink(), r"labels\.npy is missing"),
        (lambda base: np.save(base / "fog.npy", np.zeros((49, 32, 32, 3), np.uint8)), r"fog\.npy holds uint8 \(49, 32"),
        (lambda base: np.save(base / "labels.npy", np.zeros(49, int)), r"labels\.npy holds int64 \(49,\), not whole"),
        (lambda base: np.save(base / "labels.npy", np.full(50, 10)), r"labels\.npy has labels that are not 0 to 9"),
        (lambda base: (base / "fog.npy").write_text("no"), r"fog\.npy is not a readable \.npy file"),
        (shutil.rmtree, r"CIFAR-10-C does not exist: put the folder CIFAR-10-C with labels\.npy .* by path="),
    ],
)
def test_another_layout_of_cifar10_c_is_one_line(load, corrupted, damage, line):
    damage(corrupted)
    with pytest.raises(DataError, match=line) as caught:
        load("cifar10-c[corruption=fog]")
    assert "\n" not in str(caught.value)


# MedMNIST


def medical(root, noise, name="bloodmnist", size=28, classes=8, grey=False, **changes):
    channels = () if grey else (3,)
    arrays = {}
    for seed, part in enumerate(("train", "val", "test")):
        arrays[f"{part}_images"] = noise(2 * classes, size, size, *channels, seed=seed)
        arrays[f"{part}_labels"] = (np.arange(2 * classes) % classes).reshape(-1, 1)
    (root / "medmnist").mkdir(exist_ok=True)
    file = root / "medmnist" / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
    np.savez(file, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})
    return file, arrays


@pytest.mark.parametrize(("size", "grey"), [(28, True), (28, False), (64, False)])
def test_medmnist_is_read_from_its_file(load, root, noise, size, grey):
    _, arrays = medical(root, noise, size=size, grey=grey)
    raw = load(f"medmnist[name=bloodmnist,size={size}]")
    expected = arrays["train_images"][:, None] if grey else arrays["train_images"].transpose(0, 3, 1, 2)
    assert np.array_equal(raw.train.images.numpy(), expected)
    assert raw.test.labels.tolist() == arrays["test_labels"][:, 0].tolist()
    assert raw.classes == tuple("01234567")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"test_labels": None}, "has no 'test_labels': it must hold train_images"),
        (
            {"train_labels": np.zeros((16, 14), int)},
            r"train_labels must be a whole number for each image \(n, 1\)",
        ),
        ({"train_labels": np.full((16, 1), 8)}, "train_labels has the label 8, but there are 8 classes"),
        ({"train_labels": np.zeros((9, 1), int)}, r"has 16 train images of \[28, 28\] with 9 labels"),
        ({"test_images": np.zeros((16, 64, 64, 3), np.uint8)}, r"has 16 test images of \[64, 64\] .* not of 28x28"),
    ],
)
def test_another_content_of_medmnist_is_one_line(load, root, noise, changes, line):
    file, _ = medical(root, noise, **changes)
    with pytest.raises(DataError, match=line) as caught:
        load("medmnist[name=bloodmnist]")
    assert str(file) in str(caught.value)


def test_without_the_file_or_the_package_the_remedy_is_said(load, resolve, root, monkeypatch):
    with pytest.raises(DataError, match=r"bloodmnist\.npz does not exist: put it there, or run `ddbench prepare 'medm"):
        load("medmnist[name=bloodmnist]")
    monkeypatch.setattr("harness.system.packages._is_installed", lambda module: False)
    with pytest.raises(UsageError, match=r"needs the package medmnist, .*: pip install 'ddbench\[medmnist\]'"):
        resolve("medmnist[name=bloodmnist]").make().prepare(root)


def test_prepare_asks_the_package_for_the_file(load, resolve, root, noise, monkeypatch):
    """A stand-in for the package, with the arguments of version 3."""

    class BloodMNIST:
        def __init__(self, split, download=False, root=None, size=None):
            assert (split, download, size) == ("train", True, 64)
            if not hasattr(type(self), "fails"):
                medical(root_of_sets, noise, size=64)
            else:
                raise RuntimeError("Something went wrong when downloading!\nno network")

    root_of_sets, package = root, types.ModuleType("medmnist")
    package.__spec__ = ModuleSpec("medmnist", None, origin="stand-in")
    package.INFO, package.BloodMNIST = {"bloodmnist": {"python_class": "BloodMNIST"}}, BloodMNIST
    monkeypatch.setitem(sys.modules, "medmnist", package)
    dataset = resolve("medmnist[name=bloodmnist,size=64]").make()
    BloodMNIST.fails = True
    with pytest.raises(DataError, match=r"bloodmnist_64\.npz cannot be fetched: put it into .*no network\)"):
        dataset.prepare(root)
    del BloodMNIST.fails
    dataset.prepare(root)
    assert len(load("medmnist[name=bloodmnist,size=64]").train) == 16
