"""Activations that are computed again: every bit is the same, and less is kept."""

import contextlib

import pytest
import torch
from matched_pairs import SHAPE, pairs_of
from toys import component

from harness import DISTANCES, gradient_of
from harness.compute.quick_convolutions import QuickConvolutions
from harness.learning.batched_matching import match_together

NAMES = [
    "resnet-cifar[norm=instance]",
    "wrn[norm=layer]",
    "densenet-bc[depth=10,growth=16,norm=group]",
    "vit[dim=16,depth=4,heads=2,mlp=16]",
    "convnet[width=8,depth=12,skip=true,norm=batch]",
    "lenet",
]


def networks_of(name, shape=SHAPE, frozen=True):
    """The same network twice; the second computes activations again."""
    pair = [component("architecture", name).build(shape, 3, torch.Generator().manual_seed(0)) for _ in range(2)]
    if frozen:
        for network in pair:
            network.eval()
    pair[1].recomputes = True
    return pair


def images_of(count, shape=SHAPE):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def kept_bytes(network, images):
    """What a pass keeps for its gradient, each tensor counted once."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(images).sum()
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    return sum(storage.nbytes() for place, storage in storages.items() if place not in weights)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_and_gradients_of_gradients_have_the_same_bits(name):
    results = []
    for network in networks_of(name):
        images = images_of(4).requires_grad_()
        gradient = gradient_of(network, images, torch.tensor([0, 1, 2, 0]), differentiable=True)
        target = [part.detach().roll(1, 0) for part in gradient]
        distance = DISTANCES["layerwise"](gradient, target)
        results.append([*gradient, *torch.autograd.grad(distance, images), network(images)])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))
    assert float(results[0][-2].norm()) > 0


@pytest.mark.parametrize("name", ["resnet-cifar[depth=56,norm=instance]", "convnet[width=8,depth=30,skip=true]"])
def test_a_pass_keeps_a_fraction(name):
    plain, recomputing = networks_of(name)
    assert kept_bytes(recomputing, images_of(4)) < kept_bytes(plain, images_of(4)) / 4


def test_batch_norm_updates_its_statistics_once():
    plain, recomputing = networks_of("resnet-cifar", frozen=False)
    for network in (plain, recomputing):
        network(images_of(4)).sum().backward()
    assert int(recomputing.body[1].num_batches_tracked) == 1
    for first, second in zip(plain.buffers(), recomputing.buffers(), strict=True):
        assert torch.equal(first, second)


def test_dropout_drops_the_same_values_again():
    gradients = []
    for network in networks_of("vit[dim=16,depth=4,heads=2,mlp=16,dropout=0.5]", frozen=False):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            gradients.append(gradient_of(network, images_of(4), torch.zeros(4, dtype=torch.long)))
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_quick_convolutions_are_quick_again():
    """What is computed again runs in the backward pass, after the context of the pass has ended."""
    gradients = []
    for network in networks_of("convnet[width=128,depth=2]", (3, 32, 32)):
        with QuickConvolutions():
            logits = network(images_of(8, (3, 32, 32)))
        gradients.append(torch.autograd.grad(logits.square().sum(), list(network.parameters())))
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "resnet-cifar[norm=instance]",
        "wrn[depth=10,norm=layer]",
        "densenet-bc[depth=10,growth=16,norm=group]",
        "vit[dim=16,depth=2,heads=2,mlp=16,dropout=0]",
        "convnet[width=4,depth=8,skip=true]",
    ],
)
def test_a_gpus_way_of_matching_gives_the_same(name):
    """All classes at once, by torch.func."""
    network = networks_of(name)[0].double()
    pairs = pairs_of(2)
    losses, gradients = match_together(network, pairs, DISTANCES["layerwise"], contextlib.nullcontext)
    for pair, loss, gradient in zip(pairs, losses, gradients, strict=True):
        target = gradient_of(network, pair.real, torch.full((len(pair.real),), pair.label))
        leaf = pair.synthetic.detach().requires_grad_()
        labels = torch.full((len(leaf),), pair.label)
        mine = DISTANCES["layerwise"](gradient_of(network, pair.transform(leaf), labels, differentiable=True), target)
        torch.testing.assert_close(loss, mine.detach())
        torch.testing.assert_close(gradient, *torch.autograd.grad(mine, leaf), rtol=1e-6, atol=1e-9)
