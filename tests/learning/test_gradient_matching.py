"""Gradients and their distances against NumPy, finite differences and published values."""

import contextlib
import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import component, toy_problem

from harness import DISTANCES, Pair, gradient_of, layerwise_cosine, match_classes
from harness.learning.gradients import gradient_in_slices

PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "reference_values.json").read_text())["matching"]

CONV, LAYER_NORM, LINEAR, VECTOR = (4, 3, 3, 3), (5, 4, 4), (3, 20), (7,)


def layerwise_by_hand(first, second):
    total = 0.0
    for a, b in zip(first, second, strict=True):
        if a.ndim == 1:
            continue
        for out in range(a.shape[0]):
            row_a, row_b = a[out].reshape(-1), b[out].reshape(-1)
            norms = math.sqrt(sum(x * x for x in row_a)) * math.sqrt(sum(x * x for x in row_b))
            total += 1 - sum(x * y for x, y in zip(row_a, row_b, strict=True)) / (norms + 1e-6)
    return total


def mse_by_hand(first, second):
    return sum(((a - b) ** 2).sum() for a, b in zip(first, second, strict=True))


def cosine_by_hand(first, second):
    dot = sum((a * b).sum() for a, b in zip(first, second, strict=True))
    squares = [sum((a**2).sum() for a in gradient) for gradient in (first, second)]
    return 1 - dot / (math.sqrt(squares[0]) * math.sqrt(squares[1]) + 1e-6)


def l1_by_hand(first, second):
    return sum(np.abs(a - b).sum() for a, b in zip(first, second, strict=True))


def l1_mean_by_hand(first, second):
    return sum(np.abs(a[out] - b[out]).mean() for a, b in zip(first, second, strict=True) for out in range(len(a)))


BY_HAND = {
    "layerwise": layerwise_by_hand,
    "mse": mse_by_hand,
    "cosine": cosine_by_hand,
    "l1": l1_by_hand,
    "l1-mean": l1_mean_by_hand,
}


def random_gradient(shapes, seed, scale=1.0, zero_rows=False):
    rng = np.random.default_rng(seed)
    gradient = [scale * rng.standard_normal(shape) for shape in shapes]
    if zero_rows:
        for part in gradient:
            part[rng.random(len(part)) < 0.3] = 0
    return gradient


def distance(name, first, second):
    return float(DISTANCES[name](*([torch.from_numpy(part) for part in gradient] for gradient in (first, second))))


@pytest.mark.parametrize("name", BY_HAND)
def test_distance_is_the_formula_evaluated_row_by_row(name):
    shapes = [CONV, VECTOR, LAYER_NORM, LINEAR, VECTOR]
    first, second = random_gradient(shapes, 1), random_gradient(shapes, 2)
    assert distance(name, first, second) == pytest.approx(BY_HAND[name](first, second), rel=1e-12)


@pytest.mark.parametrize("name", BY_HAND)
@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    shapes=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-6, 1e-3, 1.0, 1e3]),
    zero_rows=st.booleans(),
)
def test_distance_is_the_formula_for_any_shapes_and_values(name, shapes, seed, scale, zero_rows):
    first, second = random_gradient(shapes, seed, scale, zero_rows), random_gradient(shapes, seed + 1, 1.0, zero_rows)
    expected = BY_HAND[name](first, second)
    assert distance(name, first, second) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_biases_count_nothing_in_the_layerwise_distance_and_all_in_the_others():
    weight, bias, other = random_gradient([LINEAR, VECTOR, VECTOR], 3)
    assert distance("layerwise", [weight, bias], [weight, other]) == pytest.approx(0, abs=1e-5)
    assert distance("layerwise", [bias], [other]) == 0
    assert distance("mse", [weight, bias], [weight, other]) == pytest.approx(((bias - other) ** 2).sum())
    assert distance("cosine", [bias], [other]) == pytest.approx(cosine_by_hand([bias], [other]))


def test_a_row_of_zeros_counts_one():
    weight = random_gradient([LINEAR], 4)[0]
    dead = weight.copy()
    dead[1] = 0
    assert distance("layerwise", [dead], [weight]) == pytest.approx(1, abs=1e-5)
    assert distance("layerwise", [dead * 0], [weight]) == len(weight)


@pytest.mark.parametrize("name", ["layerwise", "cosine"])
def test_epsilon_is_added_to_the_product_of_the_norms(name):
    row = np.array([[1e-3, 0.0]])
    assert distance(name, [row], [row]) == pytest.approx(0.5, rel=1e-12)


def test_a_convolutions_row_is_one_output_over_all_inputs_and_pixels():
    first = np.zeros((2, 2, 1, 1))
    second = np.zeros((2, 2, 1, 1))
    first[:, 0], second[:, 1] = 1.0, 1.0  # each row orthogonal: 1 for each of the two outputs
    assert distance("layerwise", [first], [second]) == pytest.approx(2)


def test_distance_has_a_finite_gradient_where_a_row_is_zero():
    dead = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(layerwise_cosine([dead], [torch.ones(2, 3, dtype=torch.float64)]), dead)
    assert torch.isfinite(slope).all()


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("soft", [False, True])
def test_gradient_of_a_linear_classifier_is_the_closed_form(soft):
    rng = np.random.default_rng(5)
    images, weight, bias = rng.standard_normal((6, 1, 2, 2)), rng.standard_normal((3, 4)), rng.standard_normal(3)
    targets = rng.dirichlet(np.ones(3), 6) if soft else np.eye(3)[[0, 2, 1, 1, 0, 2]]
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    network[1].weight.data, network[1].bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
    labels = torch.from_numpy(targets if soft else targets.argmax(1))

    mine = gradient_of(network, torch.from_numpy(images), labels)

    error = (softmax(images.reshape(6, 4) @ weight.T + bias) - targets) / 6
    np.testing.assert_allclose(mine[0], error.T @ images.reshape(6, 4), rtol=1e-12)
    np.testing.assert_allclose(mine[1], error.sum(0), rtol=1e-12)
    assert not any(part.requires_grad for part in mine)


def test_gradient_leaves_frozen_parameters_out_and_the_network_untouched():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    network[1].requires_grad_(False)
    parts = gradient_of(network, torch.ones(2, 1, 2, 2), torch.tensor([0, 1]))
    assert [part.shape for part in parts] == [(3, 5), (3,)]
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("size", [1, 3, 4, 50])
@pytest.mark.parametrize("soft", [False, True])
def test_gradient_in_slices_is_that_of_the_whole_batch(size, soft):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    images = torch.randn(10, 1, 4, 4).double()
    labels = torch.rand(10, 3).double() if soft else torch.arange(10) % 3
    whole, sliced = gradient_of(network, images, labels), gradient_in_slices(network, images, labels, size)
    for a, b in zip(whole, sliced, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", BY_HAND)
def test_gradient_can_be_differentiated_by_the_images(name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
    real, images = torch.randn(5, 1, 4, 4).double(), torch.randn(2, 1, 4, 4).double().requires_grad_()
    labels = torch.tensor([1, 1])
    target = gradient_of(network, real, torch.full((5,), 1))

    def loss_at(values):
        return DISTANCES[name](gradient_of(network, values, labels, differentiable=True), target)

    (mine,) = torch.autograd.grad(loss_at(images), images)

    numeric, step = torch.zeros(images.numel(), dtype=torch.float64), 1e-5
    for i in range(images.numel()):
        shift = torch.zeros_like(numeric)
        shift[i] = step
        shift = shift.view_as(images)
        numeric[i] = (loss_at(images + shift) - loss_at(images - shift)).detach() / (2 * step)
    assert mine.norm() > 1e-3
    torch.testing.assert_close(mine.flatten(), numeric, rtol=1e-6, atol=1e-8)


def fill(network):
    """Give every parameter the values of reference_values.json."""
    norms = (nn.GroupNorm, nn.BatchNorm2d, nn.LayerNorm)
    scales = {id(module.weight) for module in network.modules() if isinstance(module, norms)}
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters(), start=1):
            i = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
            parameter.copy_((0.05 * torch.sin(0.7 * i * k)).view_as(parameter) + (id(parameter) in scales))


def test_matching_loss_and_image_gradient_are_the_published_ones():
    published = PUBLISHED["ConvNet"]
    network = component("architecture", "convnet").network((3, 32, 32), 10).double().train()
    fill(network)
    pixels = torch.arange(16 * 3 * 32 * 32, dtype=torch.float64)
    real = torch.sin(0.01 * pixels).view(16, 3, 32, 32)
    synthetic = torch.cos(0.013 * pixels[: 2 * 3 * 32 * 32]).view(2, 3, 32, 32).requires_grad_()

    target = gradient_of(network, real, torch.full((16,), 3))
    loss = layerwise_cosine(gradient_of(network, synthetic, torch.full((2,), 3), differentiable=True), target)
    (gradient,) = torch.autograd.grad(loss, synthetic)

    assert float(loss.detach()) == pytest.approx(published["loss"], rel=1e-8)
    assert float(gradient.norm()) == pytest.approx(published["grad_norm"], rel=1e-8)
    assert gradient.flatten()[:6].tolist() == pytest.approx(published["grad_first"], rel=1e-8)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_each_class_is_one_batch_whatever_norm_the_network_has(norm):
    problem = toy_problem(train=40)
    network = component("architecture", f"convnet[width=4,depth=1,norm={norm}]").build(
        problem.shape, 3, torch.Generator().manual_seed(0)
    )
    before = copy.deepcopy(network)

    def pair(label):
        real = problem.real_batch(label, 40, torch.Generator().manual_seed(label))
        return Pair(label, real, real[:2] + 0.1, lambda images: images)

    losses, gradients, statistics = [], [], []
    for _ in range(2):
        network.load_state_dict(before.state_dict())
        loss, gradient = match_classes(network, problem, pair, layerwise_cosine, contextlib.nullcontext)
        losses.append(float(loss))
        gradients.append(gradient)
        statistics.append([buffer.clone() for buffer in network.buffers()])
    expected = []
    for label in range(3):
        target = gradient_of(before, pair(label).real, torch.full((40,), label))
        synthetic = pair(label).synthetic.requires_grad_()
        ours = gradient_of(before, synthetic, torch.full((2,), label), differentiable=True)
        expected.append(layerwise_cosine(ours, target).item())
    assert losses == [pytest.approx(sum(expected), rel=1e-4)] * 2
    assert torch.equal(*gradients)
    for first, other in zip(*statistics, strict=True):
        assert torch.equal(first, other)
