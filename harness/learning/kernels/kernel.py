"""Base class of the kernels of infinitely wide networks, and their activation functions in closed form."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from harness.types.options import Options, option
from harness.types.problem import Shape

NEAREST = 1 - 1e-15
"""Largest cosine of two different images: beyond it the ReLU's derivatives have infinite parts that cancel."""


class KernelOptions(Options):
    """Options of every kernel; variances are those of the NTK parametrisation."""

    depth: int = option(1, "hidden layers, or blocks of a convolutional network", source="KIP", ge=1)
    act: Literal["relu", "erf"] = option("relu", "activation function", source="KIP")
    of: Literal["ntk", "nngp"] = option(
        "ntk", "ntk: the kernel of training all layers; nngp: of training the last one", source="KIP"
    )
    weight: float = option(2.0, "variance of a weight times its fan-in, W_std^2", source="KIP", gt=0)
    bias: float = option(0.01, "variance of a bias, b_std^2", source="KIP", ge=0)


class Kernel(ABC):
    """A function of two images, which is computed of many pairs at once, in float64 and differentiably.

    Attributes:
        options: depth, activation and variances.
    """

    Options: ClassVar[type[KernelOptions]] = KernelOptions

    def __init__(self, options: KernelOptions) -> None:
        self.options = options

    @abstractmethod
    def __call__(self, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
        """Return the kernel of each pair of images: (n, m), float64.

        Args:
            first: images (n, c, h, w).
            second: images (m, c, h, w).
            same: which pairs are one image twice (n, m), booleans. Their formula is another: the general one has
                infinite derivatives at equal images.
        """

    @abstractmethod
    def floats_of_pair(self, shape: Shape) -> float:
        """Return about how many float64 values of memory a pair of images takes, with the graph."""

    def activated(self, covariance: Tensor, first: Tensor, second: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[phi(u) phi(v)] and E[phi'(u) phi'(v)] of Gaussian u and v with mean zero.

        Args:
            covariance: of u and v (n, m, ...).
            first: variances of u, which broadcast to it.
            second: variances of v, which broadcast to it.
            same: where u and v are the same variable, which broadcasts to it.
        """
        return ACTIVATIONS[self.options.act](covariance, first, second, same)

    def own(self, variance: Tensor) -> Tensor:
        """Return E[phi(u)^2] of Gaussian u with this variance."""
        return variance / 2 if self.options.act == "relu" else 2 / math.pi * (2 * variance / (1 + 2 * variance)).asin()


def relu(covariance: Tensor, first: Tensor, second: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Return `Kernel.activated` of the ReLU: the arc-cosine kernels of order 1 and 0 (Cho and Saul, NeurIPS 2009)."""
    scale = (first * second).sqrt()
    # Where both are one variable the cosine is 1, whose angle has no derivative: these places get 0 and then, below,
    # their own values, so that nothing infinite is multiplied by zero on the way back.
    cosine = torch.where(same, 0.0, covariance / scale).clamp(-NEAREST, NEAREST)
    angle = math.pi - cosine.acos()
    product = scale * ((1 - cosine.square()).sqrt() + cosine * angle) / (2 * math.pi)
    return torch.where(same, scale / 2, product), torch.where(same, 0.5, angle / (2 * math.pi))


def erf(covariance: Tensor, first: Tensor, second: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Return `Kernel.activated` of the error function (Williams, NeurIPS 1996), which is smooth everywhere."""
    scale = (1 + 2 * first) * (1 + 2 * second)
    product = 2 / math.pi * (2 * covariance / scale.sqrt()).asin()
    return product, 4 / math.pi / (scale - 4 * covariance.square()).sqrt()


ACTIVATIONS = {"relu": relu, "erf": erf}
"""Each returns what `Kernel.activated` does."""
