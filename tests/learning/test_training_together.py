"""Several networks trained at once: what each would have become by itself."""

import functools
import math

import pytest
import torch
from small_networks import CLASSES, data, draw_of, networks_of

from harness import Recipe, cross_entropy, train_classifier
from harness.learning.training import train_together
from mpdd_plugins.augmentations.dc import dc_augmentation
from mpdd_plugins.evaluators.kd import distillation_loss

COUNT = 3
NETWORKS = {
    "mlp": "mlp[width=8]",
    "convnet": "convnet[width=4,depth=2]",
    "convnet with batch norm": "convnet[width=4,depth=2,norm=batch]",
    "convnet with layer norm": "convnet[width=4,depth=1,norm=layer,pool=max]",
}
RECIPES = {
    "step": Recipe(epochs=7, lr=0.05, batch=4),
    "adam": Recipe(epochs=4, lr=0.01, optimizer="adam", schedule="cosine", batch=5),
    "adamw": Recipe(epochs=3, lr=0.01, optimizer="adamw", schedule="constant", batch=256),
}


def plain():
    return [cross_entropy] * COUNT


def kd_step(batch, known):
    return distillation_loss(batch.logits, known[batch.index], batch.labels, alpha=0.5, temperature=1.5)


def teachers(count=9):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(count, CLASSES, generator=generator, dtype=torch.float64) for _ in range(COUNT)]


def kd():
    return [functools.partial(kd_step, known=known) for known in teachers()]


def closures():
    return [lambda batch, known=known: kd_step(batch, known) for known in teachers()]


LOSSES = {"plain": plain, "kd": kd, "closures": closures}


def train_both(name, recipe, losses, images, labels, augment=None):
    """Loss curves and networks: at once, and one by one."""
    draws = [draw_of(k) for k in range(COUNT)]
    mine, others = networks_of(name), networks_of(name)
    at_once = train_together(mine, images, labels, recipe, draws, losses, augment)
    one_by_one = [
        train_classifier(network, images, labels, recipe, draw, loss=loss, augment=augment)
        for network, draw, loss in zip(others, draws, losses, strict=True)
    ]
    return (at_once, mine), (one_by_one, others)


def assert_same(actual, expected):
    for losses, others in zip(actual[0], expected[0], strict=True):
        assert losses == pytest.approx(others, rel=1e-9, nan_ok=True)
    for network, other in zip(actual[1], expected[1], strict=True):
        assert network.training
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-8, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("losses", ["plain", "kd"])
def test_networks_trained_at_once_are_those_trained_one_by_one(name, losses):
    actual, expected = train_both(NETWORKS[name], RECIPES["step"], LOSSES[losses](), *data())
    assert_same(actual, expected)
    assert len({tuple(curve) for curve in actual[0]}) == COUNT


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_so_they_are_with_any_recipe_and_loss(recipe, losses):
    assert_same(*train_both("mlp[width=8]", RECIPES[recipe], LOSSES[losses](), *data()))


def test_so_they_are_with_soft_labels():
    assert_same(*train_both("mlp[width=8]", RECIPES["step"], plain(), *data(soft=True)))


def test_networks_may_run_in_bfloat16_while_weights_and_losses_stay_as_they_are():
    images, labels = data()
    draws, recipe = [draw_of(k) for k in range(COUNT)], Recipe(epochs=3, lr=0.05)
    exact, coarse = ([network.float() for network in networks_of("convnet[width=4,depth=1]")] for _ in range(2))
    seen = []

    def loss(batch):
        seen.append(batch.logits.dtype)
        return cross_entropy(batch)

    expected = train_together(exact, images.float(), labels, recipe, draws, plain())
    context = functools.partial(torch.autocast, "cpu", torch.bfloat16)
    actual = train_together(coarse, images.float(), labels, recipe, draws, [loss] * COUNT, reduced=context)
    assert set(seen) == {torch.float32}
    assert actual != expected
    for mine, other in zip(actual, expected, strict=True):
        assert mine == pytest.approx(other, rel=0.02)
    assert all(weight.dtype == torch.float32 for network in coarse for weight in network.parameters())


def test_each_has_its_own_stream_of_augmentation():
    augment = dc_augmentation("crop+noise")
    actual, expected = train_both("convnet[width=4,depth=1]", RECIPES["step"], kd(), *data(), augment)
    assert_same(actual, expected)
    (plainly, _), _ = train_both("convnet[width=4,depth=1]", RECIPES["step"], kd(), *data())
    assert actual[0] != plainly


def test_a_network_that_diverges_ends_where_it_would_alone_and_leaves_the_others_alone():
    recipe = Recipe(epochs=8, lr=0.05, batch=4)

    def wild(batch):
        return cross_entropy(batch) * 1e200

    losses = [cross_entropy, wild, cross_entropy]
    actual, expected = train_both("mlp[width=8]", recipe, losses, *data())
    assert not math.isfinite(actual[0][1][-1])
    assert len(actual[0][1]) < recipe.epochs
    assert [len(curve) for curve in actual[0]] == [len(curve) for curve in expected[0]]
    assert_same(actual, expected)
    assert all(len(actual[0][k]) == recipe.epochs and math.isfinite(actual[0][k][-1]) for k in (0, 2))


def test_weights_that_are_not_trained_stay_as_they_are():
    networks = networks_of("mlp[width=8]")
    for network in networks:
        network.body[1].requires_grad_(False)
    before = [network.body[1].weight.clone() for network in networks]
    draws = [draw_of(k) for k in range(COUNT)]
    train_together(networks, *data(), RECIPES["step"], draws, plain())
    assert all(torch.equal(network.body[1].weight, weight) for network, weight in zip(networks, before, strict=True))
