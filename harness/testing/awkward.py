"""Awkward cases that every method meets: batch norm, dropout, and real images in another order."""

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from harness.plugins.registry import Entry, Resolved
from harness.testing.contract import architecture
from harness.types.network import Architecture, Network
from harness.types.options import Options
from harness.types.problem import Problem, Shape

BATCH_NORM = "convnet[width=4,depth=2,norm=batch]"
DROPOUT = "convnet-with-dropout"


class DropoutConvNet(Network):
    """A network of one convolution, with dropout before the classifier."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(shape[0], 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.5))
        self.classifier = nn.Linear(64, classes)
        # For methods that match the output of blocks.
        self.name_taps({"block1": "body"})

    def features(self, images: Tensor) -> Tensor:  # type: ignore[override]  # the base class adds taps
        """Return feature vectors (n, 64) after dropout."""
        features: Tensor = self.pool(self.body(images))
        return features


class WithDropout(Architecture[Options]):
    """The architecture of `DropoutConvNet`."""

    def network(self, shape: Shape, classes: int) -> Network:
        """Build a network with dropout."""
        return DropoutConvNet(shape, classes)


def resolve(name: str) -> Resolved[Architecture[Any]]:
    """Return an architecture by its name: a registered one, or the one with dropout that the kit brings."""
    if name != DROPOUT:
        return architecture(name)
    entry = Entry("architecture", DROPOUT, f"{__name__}:WithDropout", "a small network with dropout", "ddbench", "")
    return Resolved(entry, WithDropout, Options())


class Reordered(Problem):
    """A problem that returns the same real images in another order: those at even places first."""

    @classmethod
    def of(cls, problem: Problem) -> "Reordered":
        """Return a reordered copy of a problem."""
        return cls(**{field.name: getattr(problem, field.name) for field in fields(problem)})

    def real_batch(self, label: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw the same images as the problem, and reorder them."""
        images = super().real_batch(label, count, generator)
        return torch.cat([images[::2], images[1::2]])
