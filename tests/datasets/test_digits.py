import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from harness.datasets.problems import preprocessing_known


def test_every_digit_is_served_once_and_the_test_set_has_36_of_each(load):
    raw = load("digits")
    assert raw.classes == tuple("0123456789")
    assert torch.bincount(raw.test.labels).tolist() == [36] * 10
    assert len(raw.train) + len(raw.test) == 1797
    both = torch.cat([raw.train.labels, raw.test.labels])
    assert torch.equal(torch.bincount(both), torch.bincount(torch.from_numpy(load_digits().target)))


def test_the_split_never_changes(load):
    assert load("digits").test.fingerprint.startswith("8547c6df420113de")
    assert load("digits").train.fingerprint.startswith("8b96ab44060efe55")


def bilinear_16(image: np.ndarray) -> np.ndarray:
    """Enlarge 8x8 to 16x16 with pixel centres at (i + 0.5) / 2 - 0.5, clamped at the border."""
    at = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, 7), at - low
    rows = image[low] * (1 - part)[:, None] + image[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def test_images_are_enlarged_bilinearly(load):
    raw = load("digits")
    expected = np.stack([np.rint(bilinear_16(image) * 255 / 16) for image in load_digits().images]).astype(np.uint8)
    served = torch.cat([raw.train.images, raw.test.images])[:, 0].numpy()
    assert sorted(map(bytes, served)) == sorted(map(bytes, expected))


def test_it_brings_quick_defaults_and_its_own_normalisation(resolve, problem):
    traits = (digits := resolve("digits")).cls(digits.options).traits
    assert (traits.defaults.ipc, traits.defaults.iterations, traits.defaults.students) == ((1,), (100,), 2)
    assert traits.defaults.options["dc"] == {"batch_real": "64"}
    assert traits.defaults.options["plain"] == traits.defaults.options["kd"] == {"protocol": "quick"}
    assert "flip" not in traits.augmentations["dsa"].split("+")
    assert traits.augmentations["dc"] == "none"
    assert preprocessing_known(digits)
    digits = problem("digits")
    pixels = digits.train.images.numpy() / 255
    assert digits.preprocessing.tensors()["mean"].item() == pytest.approx(pixels.mean(), abs=1e-6)
    assert digits.preprocessing.tensors()["std"].item() == pytest.approx(pixels.std(), abs=1e-6)
    assert digits.shape == (1, 16, 16)
    assert digits.like is None
