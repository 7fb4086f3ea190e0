"""Distances between two gradients of one network (DC, equation 9; IDC)."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from harness.learning.gradients import Gradient

Distance = Callable[[Gradient, Gradient], Tensor]


def layerwise_cosine(first: Gradient, second: Gradient) -> Tensor:
    """Return DC's distance of two gradients: 1 - cosine of each row of each weight tensor, summed (DC, equation 9).

    A row holds the weights into one output: a convolution's (out, in, k, k) is read as (out, in k k), a layer norm's
    (c, h, w) as (c, h w). Vectors (biases, scales of norms) do not count, as in DC's code. 1e-6 is added to the
    product of the norms, so that a row of zeros counts as 1.

    Args:
        first: a gradient, weight by weight; the result can be differentiated by it if it has a graph.
        second: the other gradient, of the same shapes.
    """
    total: Tensor = first[0].new_zeros(())
    for a, b in zip(first, second, strict=True):
        if a.ndim < 2:  # a vector has one value per output: its cosine would be 1 or -1
            continue
        a, b = a.flatten(1), b.flatten(1)  # (out, weights into one output)
        total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def squared_difference(first: Gradient, second: Gradient) -> Tensor:
    """Return the sum of squared differences over all parameters, biases included."""
    return (_flat(first) - _flat(second)).square().sum()


def absolute_difference(first: Gradient, second: Gradient) -> Tensor:
    """Return the sum of absolute differences over all parameters (IDC, condense.py)."""
    return (_flat(first) - _flat(second)).abs().sum()


def mean_absolute_difference(first: Gradient, second: Gradient) -> Tensor:
    """Return the mean absolute difference of each output's weights, summed over outputs and tensors (IDC).

    A vector's outputs have a weight each.
    """
    pairs = zip(first, second, strict=True)
    return torch.stack([(a - b).abs().reshape(len(a), -1).mean(1).sum() for a, b in pairs]).sum()


def cosine(first: Gradient, second: Gradient) -> Tensor:
    """Return 1 - cosine of all parameters taken as one vector; 1e-6 is added to the product of the norms."""
    a, b = _flat(first), _flat(second)
    distance: Tensor = 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6)
    return distance


DISTANCES: dict[str, Distance] = {
    "layerwise": layerwise_cosine,
    "mse": squared_difference,
    "cosine": cosine,
    "l1": absolute_difference,
    "l1-mean": mean_absolute_difference,
}
"""Distances by name: DC's option ``distance`` takes the first three, IDC's ``metric`` all but ``cosine``."""


# Cached, since a GPU's recordings of a matching are found by its distance.
@functools.cache
def mean_over_layers(distance: Distance, *, outputs: bool = False) -> Distance:
    """Return a distance that is divided by the number of layers, so that a deep network counts no more than others.

    `layerwise_cosine` and `squared_difference` are sums over layers: those of a network of 100 layers, and the
    gradients of the images with them, are many times those of three.

    Args:
        distance: one of `DISTANCES` that is a sum over layers. A layer is a weight of at least two dimensions; what
            counts of vectors (biases, scales of norms) is divided by the same number.
        outputs: divide by the number of all layers' outputs (filters, units), so that a wide network counts no more
            than others either.
    """

    def mean(first: Gradient, second: Gradient) -> Tensor:
        counts = [len(part) if outputs else 1 for part in first if part.ndim > 1]
        return distance(first, second) / max(1, sum(counts))

    return mean


def _flat(gradient: Gradient) -> Tensor:
    return torch.cat([part.flatten() for part in gradient])
