"""What a format writes, it reads again; and others read it as their own."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder
from toys import toy_problem

from harness import DataError, DistilledSet, Normalize, UsageError, Whiten, load_distilled, save_distilled
from harness.plugins.set_formats import writer_for
from harness.types.formats.folder_names import folder_names

WHOLE = ("set.safetensors", "set.npz")
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)

few_sets = settings(max_examples=50)
"""Each example writes files. Every choice of `sets` has two or three outcomes: 50 sets hold each of them many times."""


@st.composite
def sets(draw, soft=None):
    """Distilled sets of all sorts."""
    count, size = draw(st.integers(1, 12)), (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    classes = tuple(draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    planes = draw(st.sampled_from([1, 3]))
    images = torch.randn(count, planes, *size, generator=generator) * draw(st.sampled_from([1e-6, 1.0, 50.0]))
    labels = torch.randint(0, len(classes), (count,), generator=generator)
    if draw(st.booleans()) if soft is None else soft:
        labels = torch.softmax(3 * torch.randn(count, len(classes), generator=generator), 1)
    preprocessing = Normalize(
        "some", torch.rand(planes, generator=generator), torch.rand(planes, generator=generator) + 0.1
    )
    step = draw(st.none() | st.floats(1e-8, 10))
    provenance = draw(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=9), max_size=3))
    return DistilledSet(images, labels, classes, preprocessing, step, provenance)


def same(first, second):
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert first.labels.dtype == second.labels.dtype
    assert (first.classes, first.step_size, first.provenance) == (second.classes, second.step_size, second.provenance)
    ours, theirs = first.preprocessing.tensors(), second.preprocessing.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", WHOLE)
@few_sets
@given(distilled=sets())
def test_nothing_is_lost(name, distilled):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        assert save_distilled(distilled, path) == ()
        read = load_distilled(path)
        same(read, distilled)
        assert read.preprocessing.name == "some"


@pytest.mark.parametrize("name", WHOLE)
def test_whitening_travels(tmp_path, name):
    problem = toy_problem(shape=(1, 8, 8), train=40)
    whiten = Whiten.fitted(problem.train.images, 0.1)
    distilled = DistilledSet(whiten.to_inputs(problem.train.images[:3]), torch.arange(3), ("a", "b", "c"), whiten)
    save_distilled(distilled, tmp_path / name)
    same(load_distilled(tmp_path / name), distilled)
    assert isinstance(load_distilled(tmp_path / name).preprocessing, Whiten)


@few_sets
@given(distilled=sets(soft=False))
def test_vico_keeps_images_and_labels(distilled):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "res.pt"
        lost = save_distilled(distilled, path)
        assert {"class names", "preprocessing some"} <= set(lost)
        assert any("step size" in word for word in lost) == (distilled.step_size is not None)
        read = load_distilled(path, preprocessing=distilled.preprocessing, classes=distilled.classes)
        assert torch.equal(read.images, distilled.images)
        assert torch.equal(read.labels, distilled.labels)


def test_vico_is_what_the_reference_reads(tmp_path):
    """As DC-BENCH's loader has it: ``torch.load(path)["data"][-1]``; here with nothing but plain data allowed."""
    scores = {"convnet": [np.float64(0.25), 0.5], "mlp": []}
    distilled = DistilledSet(
        torch.randn(3, 1, 4, 4).double().float().requires_grad_(),
        torch.arange(3),
        ("a", "b", "c"),
        Normalize("n", torch.zeros(1), torch.ones(1)),
        provenance={"stored_accuracies": scores},
    )
    save_distilled(distilled, tmp_path / "res.pt")
    content = torch.load(tmp_path / "res.pt", weights_only=True)
    assert list(content) == ["data", "accs_all_exps"]
    ((images, labels),) = content["data"]
    assert isinstance(content["data"][-1], list)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert torch.equal(images, distilled.images)
    assert not images.requires_grad
    assert content["accs_all_exps"] == {"convnet": [0.25, 0.5]}
    assert all(type(score) is float for score in content["accs_all_exps"]["convnet"])


@few_sets
@given(distilled=sets(soft=False))
def test_pictures_are_within_half_a_level(distilled):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures"
        (lost, *_) = save_distilled(distilled, path)
        read = load_distilled(path, preprocessing=distilled.preprocessing)
        order = torch.sort(distilled.labels, stable=True).indices
        assert torch.equal(read.labels, distilled.labels[order])
        assert (read.classes, read.step_size, read.provenance) == (
            distilled.classes,
            distilled.step_size,
            distilled.provenance,
        )
        wanted = distilled.preprocessing.invert(distilled.images)[order].clamp(0, 1)
        assert (distilled.preprocessing.invert(read.images) - wanted).abs().max() <= 0.5 / 255 + 1e-5
        share = ((wanted == 0) | (wanted == 1)).float().mean()
        clipped = float(lost.split(", ")[1].split(" %")[0]) / 100
        assert clipped <= share + 1e-3


def test_other_loaders_read_the_pictures(tmp_path):
    problem = toy_problem(shape=(3, 8, 8))
    classes = ("zebra", "ant", "10")
    labels = torch.tensor([0, 0, 1, 2])
    distilled = DistilledSet(problem.train_inputs[:4], labels, classes, problem.preprocessing)
    save_distilled(distilled, tmp_path / "set")
    folder = ImageFolder(tmp_path / "set")
    assert [name.partition("_")[2] for name in folder.classes] == list(classes)
    assert folder.targets == labels.tolist()
    assert Path(folder.samples[1][0]).name == "001.png"
    pixels = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture, _ in folder])
    assert torch.equal(pixels, problem.train.images[:4])


def test_grey_pictures_are_grey(tmp_path):
    problem = toy_problem(shape=(1, 8, 8))
    save_distilled(
        DistilledSet(problem.train_inputs[:1], torch.tensor([0]), ("a",), problem.preprocessing), tmp_path / "x"
    )
    with Image.open(tmp_path / "x" / "a" / "000.png") as picture:
        assert picture.mode == "L"


@pytest.mark.parametrize("format", ["vico", "images"])
def test_soft_labels_are_refused_with_the_reason(tmp_path, format):
    distilled = DistilledSet(
        torch.zeros(2, 1, 2, 2), torch.full((2, 2), 0.5), ("a", "b"), Normalize("n", *torch.ones(2, 1))
    )
    with pytest.raises(DataError, match="these labels are soft: write safetensors or npz"):
        save_distilled(distilled, tmp_path / "out", format)
    assert not list(tmp_path.iterdir())


def test_pictures_of_two_channels_are_refused(tmp_path):
    distilled = DistilledSet(
        torch.zeros(1, 2, 2, 2), torch.zeros(1).long(), ("a",), Normalize("n", torch.zeros(2), torch.ones(2))
    )
    with pytest.raises(DataError, match="1 or 3 channels, and these have 2"):
        save_distilled(distilled, tmp_path / "out")


@given(st.lists(st.text(min_size=1, max_size=100), min_size=1, max_size=30, unique=True))
def test_folder_names_are_safe_different_and_in_order(classes):
    names = folder_names(classes)
    assert len({name.casefold() for name in names}) == len(classes)
    assert names == sorted(names)
    for name in names:
        assert name
        assert not set(name) & set('/\\:*?"<>|\n\0')
        assert not name.startswith((".", " "))
        assert not name.endswith((".", " "))
        assert len(name) < 80
        assert name.upper() not in {"CON", "NUL", "COM1"}


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (["airplane", "automobile"], ["airplane", "automobile"]),
        ([str(digit) for digit in range(10)], [str(digit) for digit in range(10)]),
        (["9", "10"], ["0_9", "1_10"]),
        (["b", "a"], ["0_b", "1_a"]),
        (["Cat", "cat"], ["0_Cat", "1_cat"]),
        (["<script>"], ["script"]),
        (["../x", "a/b"], ["0_x", "1_a_b"]),
        (["", "..", "."], ["0", "1", "2"]),
        (["CON"], ["CON_"]),
        (["Straße", "été"], ["Straße", "été"]),
        (["1", "10", "2"], ["0_1", "1_10", "2_2"]),
        (["1", "2", "10"], ["0_1", "1_2", "2_10"]),
    ],
)
def test_folder_names(classes, names):
    assert folder_names(classes) == names


def test_a_folder_brings_what_pixels_do_not_hold(tmp_path):
    problem = toy_problem(shape=(3, 8, 8))
    provenance = {"method": "dc", "iterations": 3}
    distilled = DistilledSet(
        problem.train_inputs[:3], torch.tensor([0, 1, 1]), ("<b>", "b", "c"), problem.preprocessing, 0.02, provenance
    )
    save_distilled(distilled, tmp_path / "set")
    about = json.loads((tmp_path / "set" / "ddbench.json").read_text())
    assert about["folders"] == [["0_b", "<b>"], ["1_b", "b"], ["2_c", "c"]]
    assert list((tmp_path / "set" / "2_c").iterdir()) == []
    read = load_distilled(tmp_path / "set", preprocessing=problem.preprocessing)
    assert (read.classes, read.step_size, read.provenance) == (distilled.classes, 0.02, provenance)


@pytest.mark.parametrize(
    ("path", "format", "name"),
    [
        ("a.pt", None, "vico"),
        ("a.PTH", None, "vico"),
        ("a", None, "images"),
        ("a.png", "npz", "npz"),
        ("a", "vico", "vico"),
    ],
)
def test_the_suffix_decides_the_format(path, format, name):
    assert writer_for(Path(path), format).format.ddbench_name == f"format {name} of ddbench"


@pytest.mark.parametrize(
    ("path", "format", "says"),
    [
        ("a.png", None, r"no format has the suffix '\.png': say --to \(safetensors, vico, npz, images\)"),
        ("a.pt", "mtt", "'mtt' is only read: write one of safetensors"),
        ("a.pt", "safetensor", "did you mean 'safetensors'"),
    ],
)
def test_formats_that_cannot_be_written(path, format, says):
    with pytest.raises(UsageError, match=says):
        writer_for(Path(path), format)
