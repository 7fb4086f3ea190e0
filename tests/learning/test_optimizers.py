"""Lion and LAMB against the papers' algorithms, replayed in NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness import Recipe
from harness.learning.optimizers import Lamb, Lion

SHAPES = [(3, 4), (5,)]


def start():
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in SHAPES]


def gradients(step):
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def stepped(optimizer, parameters, steps):
    for step in range(steps):
        for parameter, gradient in zip(parameters, gradients(step), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


def lion(weights, which, steps, rate, decay):
    """Chen et al., algorithm 2."""
    momentum = np.zeros_like(weights)
    for step in range(steps):
        gradient = gradients(step)[which].numpy()
        direction = np.sign(0.9 * momentum + (1 - 0.9) * gradient)
        weights = weights - rate * (direction + decay * weights)
        momentum = 0.99 * momentum + (1 - 0.99) * gradient
    return weights


def lamb(weights, which, steps, rate, decay):
    """You et al., algorithm 2, with the identity as phi."""
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, steps + 1):
        gradient = gradients(step - 1)[which].numpy()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        ratio = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-6)
        direction = ratio + decay * weights
        weights = weights - rate * np.linalg.norm(weights) / np.linalg.norm(direction) * direction
    return weights


@pytest.mark.parametrize(("kind", "formula"), [(Lion, lion), (Lamb, lamb)])
@given(rate=st.floats(1e-4, 0.1), decay=st.sampled_from([0.0, 0.01, 0.5]), steps=st.integers(1, 12))
def test_steps_are_the_papers(kind, formula, rate, decay, steps):
    parameters, before = start(), start()
    moved = stepped(kind(parameters, rate, weight_decay=decay), parameters, steps)
    for which, weights in enumerate(before):
        wanted = formula(weights.detach().numpy(), which, steps, rate, decay)
        np.testing.assert_allclose(moved[which], wanted, rtol=1e-6, atol=1e-9)  # LAMB counts its steps in float32


@pytest.mark.parametrize("kind", [Lion, Lamb])
def test_a_rate_may_lie_in_a_tensor_as_recorded_steps_need_it(kind):
    numbers, tensors = start(), start()
    wanted = stepped(kind(numbers, 0.25), numbers, 4)
    actual = stepped(kind(tensors, torch.tensor(0.25)), tensors, 4)
    assert all(np.array_equal(mine, other) for mine, other in zip(actual, wanted, strict=True))


def test_weights_of_zeros_and_gradients_of_zeros_have_a_ratio_of_one():
    weights = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    weights.grad = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    Lamb([weights], 0.1).step()
    torch.testing.assert_close(weights.detach(), torch.tensor([-0.1, 0.1, -0.1]).double(), rtol=1e-4, atol=0)
    still = nn.Parameter(torch.ones(3))
    still.grad = torch.zeros(3)
    Lamb([still], 0.1).step()
    assert torch.equal(still.detach(), torch.ones(3))


@pytest.mark.parametrize("kind", [Lion, Lamb])
def test_a_parameter_without_a_gradient_stays_as_it_is(kind):
    weights = nn.Parameter(torch.ones(3))
    kind([weights], 0.1, weight_decay=0.5).step()
    assert torch.equal(weights.detach(), torch.ones(3))


@pytest.mark.parametrize(
    ("name", "kind"), [("lion", Lion), ("lamb", Lamb), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
@pytest.mark.parametrize("recorded", [True, False])
def test_a_recipe_names_its_optimiser(name, kind, recorded):
    optimizer = Recipe(3, 0.02, name, weight_decay=0.3).new_optimizer(start(), recorded=recorded)
    assert type(optimizer) is kind
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.02)
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) is recorded
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
