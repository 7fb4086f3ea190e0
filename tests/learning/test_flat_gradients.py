"""GSAM's gradient: golden values of FTD's code, limits in which it is another known gradient, what it leaves alone."""

import contextlib

import pytest
import torch
from golden_inputs import GOLDEN, formula
from small_networks import data, draw_of, networks_of
from torch import nn

from harness import Recipe, train_classifier
from harness.learning.gradients import as_a_whole, flat
from harness.learning.recipe import Batch, cross_entropy
from harness.learning.training import train_together


class Linear(nn.Module):
    """A softmax regression of four pixels."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3).double()
        with torch.no_grad():
            self.layer.weight.copy_(formula(900, (3, 4), -1, 1))
            self.layer.bias.copy_(formula(901, (3,), -0.5, 0.5))

    def forward(self, images):
        return self.layer(images.flatten(1))


def recipe(**fields):
    return Recipe(1, 0.1, "sgd", "constant", 0.0, 0.0, 8, **fields)


def test_two_steps_are_those_of_ftds_code():
    (golden,) = GOLDEN["ftd"].values()
    network, images, labels = Linear(), formula(902, (8, 4), -1, 1).view(8, 1, 2, 2), torch.arange(8) % 3
    for step in golden["steps"]:
        (loss,) = train_classifier(
            network, images, labels, recipe(flat_radius=0.01, flat_gap=0.4), draw_of(0), sliced=False
        )
        assert loss == pytest.approx(step["loss before"], rel=1e-9)
        assert network.layer.weight.flatten().tolist() == pytest.approx(step["weight"], abs=1e-9)
        assert network.layer.bias.tolist() == pytest.approx(step["bias"], abs=1e-9)


def gradients(network, radius, gap, images, labels):
    def loss(logits):
        return cross_entropy(Batch(labels, images, labels, logits))

    plain = as_a_whole(network, images, loss, contextlib.nullcontext)[1]
    flattened = flat(as_a_whole, radius, gap)(network, images, loss, contextlib.nullcontext)[1]
    return (torch.cat([part.flatten() for part in parts]) for parts in (plain, flattened))


def test_within_a_small_radius_it_is_the_plain_gradient():
    network, (images, labels) = networks_of("convnet[width=4,depth=1]", 1)[0], data()
    plain, flattened = gradients(network, 1e-9, 0.7, images, labels)
    torch.testing.assert_close(flattened, plain, rtol=1e-5, atol=1e-9)


def test_it_is_the_gradient_where_the_loss_is_higher_less_what_is_orthogonal_to_it():
    network, (images, labels) = networks_of("mlp[width=8]", 1)[0], data()
    before = [weight.detach().clone() for weight in network.parameters()]
    plain, at_once = gradients(network, 0.05, 0.0, images, labels)
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    weights = torch.cat([weight.detach().flatten() for weight in network.parameters()])
    moved = weights + 0.05 * weights**2 * plain / (weights * plain).norm()
    torch.nn.utils.vector_to_parameters(moved, network.parameters())
    there, _ = gradients(network, 1.0, 0.0, images, labels)
    torch.testing.assert_close(at_once, there)
    torch.nn.utils.vector_to_parameters(weights, network.parameters())
    _, with_gap = gradients(network, 0.05, 0.4, images, labels)
    removed = (there - with_gap) / 0.4
    assert float(removed @ there) == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(plain - removed, there * float(plain @ there / (there @ there)))


def test_the_second_pass_moves_no_running_statistics():
    images, labels = data()
    plain, flattened = (networks_of("convnet[width=4,depth=1,norm=batch]", 1)[0] for _ in range(2))
    train_classifier(plain, images, labels, recipe(), draw_of(0))
    train_classifier(flattened, images, labels, recipe(flat_radius=0.01, flat_gap=0.3), draw_of(0))
    of_plain, of_flat = (dict(network.named_buffers()) for network in (plain, flattened))
    assert of_plain["body.1.num_batches_tracked"] == 1
    assert float(of_plain["body.1.running_mean"].abs().max()) > 0
    assert all(torch.equal(buffer, of_flat[name]) for name, buffer in of_plain.items())


def test_networks_that_train_together_have_gradients_of_their_own():
    images, labels = data()
    wanted = networks_of("mlp[width=8]", 2)
    for student, network in enumerate(wanted):
        train_classifier(network, images, labels, recipe(flat_radius=0.05, flat_gap=0.3), draw_of(student))
    together = networks_of("mlp[width=8]", 2)
    train_together(
        together,
        images,
        labels,
        recipe(flat_radius=0.05, flat_gap=0.3),
        [draw_of(student) for student in range(2)],
        [cross_entropy] * 2,
    )
    for first, second in zip(wanted, together, strict=True):
        for one_weight, other in zip(first.parameters(), second.parameters(), strict=True):
            torch.testing.assert_close(one_weight, other)


def test_keys_of_recipes_without_it_stay():
    assert not [key for key in recipe().identity() if key.startswith("flat")]
    assert recipe(flat_radius=0.01).identity()["flat_radius"] == 0.01
    with pytest.raises(ValueError, match="flat_radius"):
        recipe(flat_gap=0.3)
