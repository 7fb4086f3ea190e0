"""Architectures and the networks that they build."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from harness.types.options import Options
from harness.types.problem import Shape
from harness.types.seeds import global_rng_from

O = TypeVar("O", bound=Options)  # noqa: E741


class Network(nn.Module):
    """A classifier in two parts: features, and a classifier on top of them.

    Subclasses set ``classifier`` and define ``features``, which maps images (n, channels, height, width) to vectors
    (n, dimension). Logits are not normalised.
    """

    classifier: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """Return feature vectors (n, dimension), the classifier's input, for images (n, channels, height, width)."""
        raise TypeError(f"{type(self).__name__} does not define features()")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, classes) for images (n, channels, height, width)."""
        # Fixed for all networks: methods match features, and rely on logits being the classifier's of these.
        logits: Tensor = self.classifier(self.features(images))
        return logits


class Architecture(ABC, Generic[O]):
    """A family of networks with its options; subclasses define `network` with ordinary torch layers."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same options give other numbers."""

    def __init__(self, options: O) -> None:
        self.options = options

    @property
    def augmentations(self) -> Mapping[str, str]:
        """The augmentations, by family (``dc``), that a protocol uses for it in place of the data set's."""
        return {}

    @abstractmethod
    def network(self, shape: Shape, classes: int) -> Network:
        """Build a network for images of ``shape`` (channels, height, width).

        Raises:
            DataError: images of this shape are not supported; the message says which are.
        """

    def build(self, shape: Shape, classes: int, generator: torch.Generator) -> Network:
        """Build a network in training mode, with initial weights drawn from ``generator``."""
        # torch's layers draw their initial weights from the global generator and take no other.
        with global_rng_from(generator):
            return self.network(shape, classes)
