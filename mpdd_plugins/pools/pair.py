"""Pool of several architectures that every step matches at once, as HMDC does with two (Moon et al., ECCV 2024).

What of "Heterogeneous model dataset condensation" is implemented: each step matches the images in a fresh network of
every architecture, with equal weight, or with the images' gradients of the networks brought to the same size. What is
not: the loss on the agreement of the two networks' features, and the accumulation of sizes over a run; the division of
the gradient by its maximum per image and channel; the real batches picked by k-means; and the training of the networks
on real images. A method brings its own loss, training and optimiser.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from harness import NameList, Options, Pool, option


class PairOptions(Options):
    """Options of `PairPool`."""

    of: NameList = option(
        ("convnet", "resnet18"), "architectures that each step matches at once", source="HMDC: convnet and a ViT",
        min_length=2,
    )  # fmt: skip
    balance: Literal["equal", "size"] = option(
        "equal", "equal: the mean of the images' gradients; size: of the gradients, each scaled to their mean largest "
        "value", source="HMDC, gradient balance",
    )  # fmt: skip


class PairPool(Pool[PairOptions]):
    """Draws one network of each architecture for every step."""

    Options = PairOptions

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the share of each architecture among the draws of a step."""
        shares: dict[str, float] = {}
        for name in self.options.of:
            shares[name] = shares.get(name, 0.0) + 1 / len(self.options.of)
        return shares

    def distribution_of(self, iteration: int, draw: int) -> Mapping[str, float]:
        """Return probability 1 for the architecture whose turn it is."""
        return {self.options.of[draw % len(self.options.of)]: 1.0}

    @property
    def together(self) -> int:
        """The number of architectures."""
        return len(self.options.of)

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the mean of the gradients; under ``balance=size`` of g_k m / m_k, with m_k = max |g_k|, m their mean.

        A gradient that is 0 everywhere stays so.
        """
        stacked = torch.stack(list(gradients))
        if self.options.balance == "size":
            sizes = stacked.abs().flatten(1).amax(1)
            factors = torch.where(sizes > 0, sizes.mean() / sizes, torch.ones_like(sizes))
            stacked = stacked * factors.view(-1, *[1] * (stacked.ndim - 1))
        return stacked.mean(0)
