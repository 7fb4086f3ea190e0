"""The picture beside each set."""

import numpy as np
import pytest
import torch
from PIL import Image
from studies import records, small_run, write_arrays

from harness.experiment.picture import draw_grid
from harness.types.distilled import DistilledSet
from harness.types.preprocessing import Normalize, Whiten


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
