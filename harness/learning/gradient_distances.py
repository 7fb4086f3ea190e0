"""How far two gradients are apart (DC, equations 7 to 9)."""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.learning.gradients import Gradient

Distance = Callable[[Gradient, Gradient], Tensor]


def layerwise_cosine(first: Gradient, second: Gradient) -> Tensor:
    """DC's own distance: for each row of each weight tensor 1 - cosine, summed.

    A row holds the weights into one output: convolutions (out, in, k, k) are read as (out, in k k), a layer norm's
    (channels, h, w) as (channels, h w). Vectors (biases, scales of norms) do not count, as in the reference. 1e-6 is
    added to the product of the norms; a row of zeros counts as 1.
    """
    total: Tensor = first[0].new_zeros(())
    for a, b in zip(first, second, strict=True):
        if a.ndim < 2:
            continue
        a, b = a.flatten(1), b.flatten(1)
        total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def squared_difference(first: Gradient, second: Gradient) -> Tensor:
    """Sum of squared differences over all parameters, biases included."""
    return (_flat(first) - _flat(second)).square().sum()


def cosine(first: Gradient, second: Gradient) -> Tensor:
    """1 - cosine of all parameters taken as one vector; 1e-6 is added to the product of the norms."""
    a, b = _flat(first), _flat(second)
    distance: Tensor = 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6)
    return distance


DISTANCES: dict[str, Distance] = {"layerwise": layerwise_cosine, "mse": squared_difference, "cosine": cosine}


def _flat(gradient: Gradient) -> Tensor:
    return torch.cat([part.flatten() for part in gradient])
