"""FRePo's and KIP's whitening: golden values, the covariance that is left, files, and the way back."""

import numpy as np
import pytest
import torch
from golden_inputs import META_GOLDEN, assert_golden, formula

from harness import DistilledSet, Whiten, load_distilled, save_distilled
from harness.datasets.problems import make_problem
from harness.plugins.discovery import plugins
from harness.types.data.preprocessing import layer_normalised, preprocessing_from
from harness.types.data.whitening import _moments, _symmetric_root, fit_frepo, fit_kip

GOLDEN = META_GOLDEN["frepo"]["standardisation and ZCA, reg .1"]


def pixels(count=60, shape=(3, 4, 5)):
    """Images whose neighbouring pixels resemble each other."""
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    return (noise * 20 + 128).clamp(0, 255).to(torch.uint8)


def test_the_whitening_is_frepos():
    """In float64 from the parts, because the golden inputs are no whole levels of pixels."""
    train, images = (formula(1240, (40, 3, 3, 3)), formula(1241, (2, 3, 3, 3)))
    mean, std = train.mean((0, 1, 2)), train.std((0, 1, 2), correction=0)
    flat = ((train - mean) / std).flatten(1)
    center = flat.mean(0)
    transform, inverse = _symmetric_root((flat - center).T @ (flat - center) / 40, 0.1)
    assert_golden(transform, GOLDEN["whitening matrix"])
    whitened = (((images - mean) / std).flatten(1) - center) @ transform
    assert_golden(whitened.view(2, 3, 3, 3), GOLDEN["whitened"])
    back = ((whitened @ inverse + center).view(2, 3, 3, 3)) * std + mean
    torch.testing.assert_close(back, images)


def by_hand(normal, reg):
    """Whitened images (n, d) of normalised ones, with NumPy."""
    flat = normal.reshape(len(normal), -1).astype(np.float64)
    centred = flat - flat.mean(0)
    covariance = centred.T @ centred / len(flat)
    values, vectors = np.linalg.eigh(
        covariance + reg * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    return centred @ vectors @ np.diag(values**-0.5) @ vectors.T


@pytest.mark.parametrize("reg", [0.1, 0.01])
def test_frepos_images_are_standardised_and_whitened(reg):
    train = pixels()
    raw = train.numpy() / 255
    normal = (raw - raw.mean((0, 2, 3), keepdims=True)) / raw.std((0, 2, 3), keepdims=True)
    inputs = fit_frepo(train, reg).to_inputs(train).flatten(1).numpy()
    assert np.allclose(inputs, by_hand(normal, reg), atol=2e-4)


def test_kips_images_lose_mean_and_norm_and_are_whitened():
    train = pixels()
    raw = train.numpy() / 255
    centred = raw - raw.mean((1, 2, 3), keepdims=True)
    normal = centred / np.sqrt((centred**2).sum((1, 2, 3), keepdims=True))
    whiten = fit_kip(train, 0.1)
    assert np.allclose(whiten.to_inputs(train).flatten(1).numpy(), by_hand(normal, 0.1), atol=2e-3)
    # A brighter image with more contrast is the same.
    images = train[:5].float() / 255
    torch.testing.assert_close(whiten.apply(0.2 + 0.5 * images), whiten.apply(images), rtol=1e-3, atol=1e-3)


def test_back_gives_all_images_one_brightness_and_contrast():
    train = pixels()
    images, whiten = train.float() / 255, fit_kip(train, 0.1)
    back = whiten.invert(whiten.apply(images))
    torch.testing.assert_close(layer_normalised(back), layer_normalised(images), rtol=1e-3, atol=1e-4)
    assert float(back.mean()) == pytest.approx(float(images.mean()), rel=1e-3)
    again = fit_frepo(train, 0.1)
    torch.testing.assert_close(again.invert(again.apply(images)), images, rtol=1e-4, atol=1e-4)


def test_an_even_image_is_finite():
    assert not layer_normalised(torch.full((1, 1, 4, 4), 0.3)).abs().max() > 1e-2


def test_moments_do_not_depend_on_blocks(monkeypatch):
    whole = _moments(pixels(), layer_normalised)
    monkeypatch.setattr("harness.types.data.whitening.BLOCK", 7)
    for first, second in zip(whole, _moments(pixels(), layer_normalised), strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", ["frepo-zca", "kip-zca"])
def test_a_set_carries_it_in_its_file(kind, tmp_path):
    dataset = plugins().registry.resolve("dataset", f"digits[normalize={kind}]")
    problem = make_problem(dataset, root=tmp_path)
    again = make_problem(dataset, root=tmp_path)
    assert (
        problem.fingerprint
        == again.fingerprint
        != make_problem(
            plugins().registry.resolve("dataset", f"digits[normalize={kind},zca_eps=0.2]"), root=tmp_path
        ).fingerprint
    )
    whiten = problem.preprocessing
    assert isinstance(whiten, Whiten)
    assert whiten.identity() == f"{kind} reg=0.1"
    images = problem.preprocessing.to_inputs(problem.train.images[:10])
    distilled = DistilledSet(images, torch.arange(10), problem.classes, whiten)
    save_distilled(distilled, tmp_path / "set.safetensors")
    read = load_distilled(tmp_path / "set.safetensors")
    assert torch.equal(read.preprocessing.to_inputs(problem.score.images), whiten.to_inputs(problem.score.images))
    assert read.misfit(problem) is None
    rebuilt = preprocessing_from(whiten.name, whiten.tensors())
    assert torch.equal(rebuilt.invert(images), whiten.invert(images))
