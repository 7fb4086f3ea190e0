"""What is found out about a network before it is run."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import DropoutNetwork, component, toy_problem

from harness.compute.network_traits import arithmetic, couples_images, draws_globally

CPU, SHAPE = torch.device("cpu"), (1, 16, 16)


class Centred(nn.Module):
    """Subtracts the mean of the batch, which no name gives away."""

    def forward(self, images):
        flat = images.flatten(1)
        return flat - flat.mean(0)


def built(name):
    return component("architecture", name).build(SHAPE, 3, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["instance", "layer", "group", "none"])
def test_images_pass_through_most_norms_by_themselves(norm):
    assert not couples_images(built(f"convnet[width=8,depth=2,norm={norm}]").train(), SHAPE, CPU)


def test_batch_norm_couples_images_until_it_is_frozen():
    network = built("convnet[width=8,depth=2,norm=batch]")
    assert couples_images(network.train(), SHAPE, CPU)
    assert not couples_images(network.eval(), SHAPE, CPU)


def test_coupling_is_found_where_no_known_layer_does_it():
    assert couples_images(Centred(), SHAPE, CPU)


def test_batch_norm_over_single_values_couples_images():
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), nn.BatchNorm1d(4))
    assert couples_images(network.train(), SHAPE, CPU)


def test_probing_leaves_a_network_as_it_was():
    network = built("convnet[width=8,depth=2,norm=batch]").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    couples_images(network, SHAPE, CPU), arithmetic(network, SHAPE), draws_globally(network, toy_problem())
    assert network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert draws_globally(DropoutNetwork(SHAPE, 3), toy_problem())


class Applies(nn.Module):
    """A function of the images and of whether it is in training."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images, self.training)


@pytest.mark.parametrize(
    ("function", "draws"),
    [
        (lambda images, training: functional.dropout(images, 0.1, training), True),
        (lambda images, training: functional.dropout2d(images, 0.1, training), True),
        (lambda images, training: images + torch.randn(images.shape), True),
        (lambda images, training: images * torch.rand_like(images), True),
        (lambda images, training: images + torch.randn(images.shape, generator=torch.Generator()), False),
        (lambda images, training: images * 2, False),
    ],
)
def test_what_draws_is_found_out_without_drawing(function, draws):
    before = torch.get_rng_state()
    assert draws_globally(Applies(function).eval(), toy_problem()) is draws
    assert torch.equal(before, torch.get_rng_state())


def test_arithmetic_is_counted_layer_by_layer():
    width = 8
    operations = 2 * (width * 9 * 16 * 16 + width * width * 9 * 8 * 8 + width * 4 * 4 * 3)
    values = 3 * width * (16 * 16 + 8 * 8) + width * (8 * 8 + 4 * 4) + 3
    assert arithmetic(built(f"convnet[width={width},depth=2]"), SHAPE) == (operations, values)
