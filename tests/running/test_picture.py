"""The picture beside each set."""

import numpy as np
import pytest
import torch
from PIL import Image
from studies import Heard, records, small_run, write_arrays

from harness.running import distilling
from harness.running.set_picture import draw_grid, layout, pixels_by_class
from harness.types.data.preprocessing import Normalize, Whiten
from harness.types.distilled import DistilledSet


def grid(path, images, *, classes=("a", "b", "c"), labels=None, preprocessing=None):
    """The pixels of a drawn set as (height, width, 3) in [0, 255]."""
    channels = images.shape[1]
    preprocessing = preprocessing or Normalize("n", torch.full((channels,), 0.5), torch.full((channels,), 0.25))
    labels = torch.arange(len(images)) % len(classes) if labels is None else labels
    draw_grid(DistilledSet(images, labels, classes, preprocessing), path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def patches(picture, colour):
    """How many separate rectangles there are of a colour."""
    from scipy.ndimage import label

    labelled, _ = label((np.abs(picture - np.array(colour)) <= 3).all(axis=2))
    return int((np.bincount(labelled.flatten())[1:] > 200).sum())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("per_class", [1, 4])
def test_mid_grey_inputs_are_mid_grey_in_the_picture(tmp_path, channels, per_class):
    picture = grid(tmp_path / "a.png", torch.zeros(3 * per_class, channels, 16, 16))  # 0 * 0.25 + 0.5
    assert patches(picture, (128, 128, 128)) == 3 * per_class


def test_colours_are_denormalised_and_clipped(tmp_path):
    images = torch.zeros(3, 3, 16, 16)
    images[0, 0], images[1, 1], images[2] = 1.0, -1.0, 50.0  # 0.75 red, 0.25 green, beyond white
    picture = grid(tmp_path / "a.png", images)
    assert patches(picture, (191, 128, 128)) == 1
    assert patches(picture, (128, 64, 128)) == 1


def test_whitened_images_are_shown_as_they_were(tmp_path):
    flat = 16 * 16
    whiten = Whiten("zca", torch.full((flat,), 0.25), torch.eye(flat) * 4, torch.eye(flat) / 4)
    picture = grid(tmp_path / "a.png", torch.ones(3, 1, 16, 16), preprocessing=whiten)
    assert patches(picture, (128, 128, 128)) == 3  # 1 / 4 + 0.25


def test_soft_labels_and_classes_of_unequal_size(tmp_path):
    soft = torch.tensor([[0.6, 0.2, 0.2], [0.7, 0.2, 0.1], [0.0, 0.1, 0.9]])
    picture = grid(tmp_path / "a.png", torch.zeros(3, 1, 16, 16), labels=soft)
    assert patches(picture, (128, 128, 128)) == 3


def test_names_of_classes_are_text_whatever_they_hold(tmp_path):
    names = ("[bold]a[/bold]", "$b^2_$", r"\frac{c}")
    picture = grid(tmp_path / "a.png", torch.zeros(3, 1, 16, 16), classes=names)
    assert patches(picture, (128, 128, 128)) == 3


def test_a_picture_lies_beside_each_set(tmp_path):
    names = np.array(["[bold]x", "$y$", "z"])
    data = write_arrays(tmp_path / "a.npz", classes=names)
    store = tmp_path / "store"
    small_run(data, store, iterations=[0, 2], distillations=2)
    sets = [name for name, record in records(store).items() if record["kind"] == "distilled"]
    assert len(sets) == 4
    for name in sets:
        with Image.open(store / "cells" / name[:2] / name / "images.png") as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 100


def shown(path, images, names, **how):
    """The size of a drawn set's picture."""
    grid(path, images, classes=names, **how)
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("count", [41, 100])
def test_many_classes_lie_in_several_columns(tmp_path, count):
    names = tuple(f"class {number}" for number in range(count))
    picture = grid(tmp_path / "a.png", torch.zeros(count, 1, 2, 2), classes=names)
    assert max(picture.shape) <= 4100
    assert 0.3 < picture.shape[0] / picture.shape[1] < 4
    assert patches(picture, (128, 128, 128)) == count


@pytest.mark.parametrize("count", [3, 100])
def test_long_names_cover_no_image(tmp_path, count):
    names = tuple(f"{number}{'W' * 30}" for number in range(count))
    images = torch.zeros(count, 3, 16, 16)
    images[:, 0] = 1.0  # a colour that no edge of a letter has
    picture = grid(tmp_path / "a.png", images, classes=names)
    assert (picture == [191, 128, 128]).all(axis=2).sum() == count * 64 * 64


def test_pixels_are_enlarged_by_a_whole_factor(tmp_path):
    images = torch.zeros(1, 1, 28, 28)
    images[0, 0, ::2, ::2] = 1.0
    picture = grid(tmp_path / "a.png", images, classes=("a",))
    assert ((picture == 191).all(axis=2).sum(), (picture == 128).all(axis=2).sum()) == (14**2 * 4, (28**2 - 14**2) * 4)


def test_larger_images_are_averaged(tmp_path):
    images = torch.zeros(1, 1, 128, 128)
    images[..., ::2], images[..., 1::2] = 1.0, -1.0
    picture = grid(tmp_path / "a.png", images, classes=("a",))
    assert (np.abs(picture - 128) <= 1).all(axis=2).sum() == 64 * 64


def test_the_size_of_a_picture_is_bounded(tmp_path):
    for classes, images in ((1, 10**6), (10, 50), (40, 50), (41, 1), (1000, 1), (1500, 10**6), (10**5, 1)):
        placed = layout(classes, images)
        assert placed.classes * placed.columns <= 2000
        assert placed.rows * placed.blocks >= placed.classes
        assert max(placed.rows, placed.blocks * placed.columns) * placed.pitch <= 4000
    wide = shown(tmp_path / "b.png", torch.zeros(3, 3, 4, 2000), ("a", "b", "c"))
    assert max(wide) <= 4200
    assert [len(rows) for rows in pixels_by_class(one_class(70), 1, 50)] == [50]


def one_class(count):
    return DistilledSet(
        torch.zeros(count, 1, 2, 2), torch.zeros(count).long(), ("a",), Normalize("n", *torch.ones(2, 1))
    )


def test_images_of_any_kind_are_drawn(tmp_path):
    half = {"preprocessing": Normalize("n", torch.full((2,), 0.5), torch.full((2,), 0.25))}
    shown(tmp_path / "two.png", torch.zeros(3, 2, 8, 8), ("a", "b", "c"), **half)
    images = torch.zeros(3, 1, 8, 8).requires_grad_()
    shown(tmp_path / "gradient.png", images, ("a", "b", "c"))
    lost = DistilledSet(torch.zeros(3, 1, 8, 8), torch.arange(3), ("a", "b", "c"), Normalize("n", *torch.ones(2, 1)))
    lost.images[:] = torch.nan
    draw_grid(lost, tmp_path / "nan.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 0 for name in ("two", "gradient", "nan"))


def test_class_names_of_any_kind_are_drawn(tmp_path):
    shown(tmp_path / "a.png", torch.zeros(3, 1, 8, 8), ("\u65e5\u672c\u8a9e", "\U0001f600", "x" * 200))
    odd = one_class(1)
    object.__setattr__(odd, "classes", ("\ud800\0\n",))
    draw_grid(odd, tmp_path / "odd.png")


@pytest.mark.parametrize(
    "error", [ValueError("Image size\nis too large"), MemoryError(), RecursionError(), SystemExit(3)]
)
def test_a_picture_that_cannot_be_drawn_does_not_cost_the_set(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(distilling, "draw_grid", fail)
    heard = Heard()
    result = small_run(write_arrays(tmp_path / "a.npz"), tmp_path / "store", reporter=heard)
    assert not result.failed
    assert result.rows[0]["mean"] is not None
    (distilled,) = [record for record in records(tmp_path / "store").values() if record["kind"] == "distilled"]
    assert set(distilled["files"]) == {"set.safetensors", "state.safetensors"}
    (notice,) = [text for text in heard.notices if "picture" in text and not text.startswith("arrays[")]
    assert type(error).__name__ in notice
    assert "\n" not in notice


def test_a_picture_that_is_interrupted_stops_the_run(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(distilling, "draw_grid", interrupt)
    with pytest.raises(KeyboardInterrupt):
        small_run(write_arrays(tmp_path / "a.npz"), tmp_path / "store")
