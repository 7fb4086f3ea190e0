"""Awkward cases that every method meets: batch norm, dropout, real images in another order, watched gradients."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.plugins.registry import Entry, Resolved
from harness.testing.contract import architecture
from harness.types.network import Architecture, Network
from harness.types.options import Options
from harness.types.problem import Problem, Shape

BATCH_NORM = "convnet[width=4,depth=2,norm=batch]"
DROPOUT, WATCHED = "convnet-with-dropout", "convnet-with-watched-batch-norm"
_MANY = 8
"""Images of a batch that are no longer of one class by chance."""


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


class WatchedConvNet(Network):
    """A network of one convolution and batch norm, which notes gradients that batch statistics spoil.

    It looks at the first gradient by the logits of each pass in which batch norm uses the batch's own statistics. That
    of a cross-entropy is negative at the label alone, so it shows which images, and of which classes, it comes from.
    """

    spoiled: ClassVar[list[str]] = []
    """What was noted, in words; a check empties it first. It is the class's, since networks are built by name."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(shape[0], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.classifier = nn.Linear(64, classes)

    def features(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Return feature vectors (n, 64)."""
        features: Tensor = self.pool(self.body(images))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, classes), of which the first gradient is looked at."""
        logits = super().forward(images)
        if logits.requires_grad and self.body[1].training:
            logits.register_hook(self._look_once())  # type: ignore[no-untyped-call]
        return logits

    def _look_once(self) -> Callable[[Tensor], None]:
        # A second gradient by the same logits is that of a distance of gradients, which says nothing of labels.
        seen: list[None] = []

        def look(gradient: Tensor) -> None:
            if not seen:
                seen.append(None)
                self.spoiled.extend(_fault_of(gradient.detach()))

        return look


def _fault_of(gradient: Tensor) -> Iterator[str]:
    """Yield why a gradient (n, classes) by the logits of a pass with batch statistics is spoiled, if it is."""
    counted = gradient.abs().sum(1) > 0
    count, others = int(counted.sum()), int((~counted).sum())
    if count < _MANY or len(set(gradient[counted].argmin(1).tolist())) > 1:
        return
    if others:
        yield f"a gradient of {count} images of one class comes from a pass with {others} others, normalised together"
    else:
        yield f"a gradient of {count} images of one class comes from a pass normalised by the statistics of that class"


class WithWatch(Architecture[Options]):
    """The architecture of `WatchedConvNet`."""

    def network(self, shape: Shape, classes: int) -> Network:
        """Build a network that is watched."""
        return WatchedConvNet(shape, classes)


_OWN: dict[str, type[Architecture[Options]]] = {DROPOUT: WithDropout, WATCHED: WithWatch}


def resolve(name: str) -> Resolved[Architecture[Any]]:
    """Return an architecture by its name: a registered one, or one that the kit brings."""
    if name not in _OWN:
        return architecture(name)
    entry = Entry("architecture", name, f"{__name__}:{_OWN[name].__name__}", "a small network", "ddbench", "")
    return Resolved(entry, _OWN[name], Options())


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
