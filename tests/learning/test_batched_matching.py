"""All classes in one launch sequence: the same as one after the other."""

import contextlib

import pytest
import torch
from matched_pairs import NETWORKS, assert_same, network_of, pairs_of

from harness import DISTANCES, gradient_of
from harness.learning import batched_matching as together
from harness.learning.batched_matching import match_together


def class_by_class(network, pairs, distance):
    """Losses and gradients as the definition has them."""
    losses, gradients = [], []
    for pair in pairs:
        target = gradient_of(network, pair.real, torch.full((len(pair.real),), pair.label))
        images = pair.synthetic.clone().requires_grad_()
        labels = torch.full((len(images),), pair.label)
        loss = distance(gradient_of(network, pair.transform(images), labels, differentiable=True), target)
        gradients.append(torch.autograd.grad(loss, images)[0])
        losses.append(loss.detach())
    return torch.stack(losses), gradients


@pytest.mark.parametrize("ipc", [1, 3])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", NETWORKS)
def test_all_classes_at_once_are_class_by_class(name, distance, ipc):
    network, pairs = network_of(name), pairs_of(ipc)
    expected = class_by_class(network, pairs, DISTANCES[distance])
    actual = match_together(network, pairs, DISTANCES[distance], contextlib.nullcontext)
    assert_same(actual, expected, 1e-10)


@pytest.mark.parametrize("distance", DISTANCES)
def test_all_classes_at_once_are_class_by_class_in_float32(distance):
    network, pairs = network_of("convnet").float(), pairs_of(2, dtype=torch.float32)
    expected = class_by_class(network, pairs, DISTANCES[distance])
    assert_same(match_together(network, pairs, DISTANCES[distance], contextlib.nullcontext), expected, 1e-5)


def test_classes_may_have_unequal_numbers_of_real_images_and_come_in_parts(monkeypatch):
    network, pairs = network_of("convnet"), pairs_of(2, counts=(5, 1, 3))
    expected = class_by_class(network, pairs, DISTANCES["layerwise"])
    for at_once in (1, 2):
        monkeypatch.setattr(together, "CLASSES_AT_ONCE", at_once)
        assert_same(match_together(network, pairs, DISTANCES["layerwise"], contextlib.nullcontext), expected, 1e-10)


def test_a_network_without_a_gradient_for_some_weights_is_matched_on_the_others_and_left_as_it_was():
    network, pairs = network_of("convnet with batch norm"), pairs_of(1)
    next(network.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expected = class_by_class(network, pairs, DISTANCES["mse"])
    assert_same(match_together(network, pairs, DISTANCES["mse"], contextlib.nullcontext), expected, 1e-10)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_only_the_real_gradients_are_taken_in_reduced_precision():
    network, pairs = network_of("convnet").float(), pairs_of(1, dtype=torch.float32)
    seen = []
    network.register_forward_hook(lambda module, images, logits: seen.append((len(images[0]), logits.dtype)))
    exact, _ = match_together(network, pairs, DISTANCES["layerwise"], contextlib.nullcontext)
    seen.clear()
    coarse, _ = match_together(network, pairs, DISTANCES["layerwise"], lambda: torch.autocast("cpu", torch.bfloat16))
    assert seen == [(5, torch.bfloat16)] * 3 + [(1, torch.float32)]
    assert not torch.equal(exact, coarse)
    torch.testing.assert_close(exact, coarse, rtol=0.05, atol=0)
