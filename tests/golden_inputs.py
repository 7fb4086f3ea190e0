"""Inputs of golden values in `tests/data`, whose files have the same formula, and the comparison with them."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from toys import component

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "gradient_matching_methods.json").read_text())
META_GOLDEN = json.loads((DATA / "meta_learning_methods.json").read_text())


def formula(k, shape, low=0.0, high=1.0):
    """Return a tensor in [low, high) by integer arithmetic from its number and the places of its values."""
    i = torch.arange(torch.Size(shape).numel())
    u = ((31 * i**2 + 101 * (2 * k + 1) * i + 17 * k**2 + 13 * k + 7) % 10007).double() / 10007
    return (low + (high - low) * u).view(shape)


def filled_convnet(channels, size, classes):
    """Return a ConvNet of width 4 in float64, each parameter by the formula."""
    network = component("architecture", "convnet[width=4]").network((channels, size, size), classes).double().train()
    layers = list(network.modules())
    pairs = [[module for module in layers if isinstance(module, kind)] for kind in (nn.Conv2d, nn.GroupNorm, nn.Linear)]
    with torch.no_grad():
        for depth, (convolution, norm) in enumerate(zip(*pairs[:2], strict=True)):
            fill(convolution, 10 * depth)
            norm.weight.copy_(formula(10 * depth + 2, norm.weight.shape, 0.8, 1.2))
            norm.bias.copy_(formula(10 * depth + 3, norm.bias.shape, -0.1, 0.1))
        fill(pairs[2][0], 90)
    return network


def fill(layer, number):
    """Give the weight of a layer values up to sqrt(3 / fan in), and its bias values up to 0.1."""
    bound = (3 / layer.weight[0].numel()) ** 0.5
    layer.weight.copy_(formula(number, layer.weight.shape, -bound, bound))
    layer.bias.copy_(formula(number + 1, layer.bias.shape, -0.1, 0.1))


def assert_golden(actual, golden, tolerance=1e-9):
    """Compare a tensor with golden values, to a part of its largest value."""
    flat = actual.detach().flatten()
    exact = {"rel": 0, "abs": tolerance * float(flat.abs().max())}
    assert list(actual.shape) == golden["shape"]
    if "values" in golden:
        assert flat.tolist() == pytest.approx(golden["values"], **exact)
        return
    assert flat[:8].tolist() == pytest.approx(golden["first"], **exact)
    assert [float(flat[int(at)]) for at in golden["at"]] == pytest.approx(list(golden["at"].values()), **exact)
    assert float(flat.norm()) == pytest.approx(golden["norm"], rel=tolerance)
    assert float(flat.sum()) == pytest.approx(golden["sum"], rel=tolerance, abs=10 * tolerance)
