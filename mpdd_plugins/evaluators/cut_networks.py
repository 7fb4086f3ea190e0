"""Networks that are cut in two at a map of a given shape: a front up to the map, and a rear from it on."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness import Architecture, Network, Problem, Shape
from mpdd_plugins.evaluators.drop_paths import ends_in_relu, layers_of

_LINEAR = (nn.Conv2d, nn.Linear, _BatchNorm, nn.GroupNorm, nn.LayerNorm)
"""Layers after which maps may be negative, up to the next activation: a network is not cut there."""


class CutNetwork(Network):
    """A network that returns its map beside its logits while it trains, and logits alone in evaluation mode.

    Args:
        network: a network with a ``body`` of layers in sequence.
        place: number of layers of the front.
    """

    def __init__(self, network: Network, place: int) -> None:
        super().__init__()
        layers = layers_of(network)
        assert layers is not None, "checked by `why_uncut`"
        # In the order of the whole network, so that both have their parameters in one order.
        self.front, self._rear = nn.Sequential(*layers[:place]), nn.Sequential(*layers[place:])
        self.classifier = network.classifier

    def rear(self, maps: Tensor) -> Tensor:
        """Return the logits (n, classes) of maps (n, c, h, w)."""
        logits: Tensor = self.classifier(self._rear(maps).flatten(1))
        return logits

    def features(self, images: Tensor) -> Tensor:  # type: ignore[override]  # the base class adds taps
        """Return the classifier's input (n, dimension) for images (n, c, h, w)."""
        vectors: Tensor = self._rear(self.front(images)).flatten(1)
        return vectors

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, classes), in training mode with the flattened maps behind them (n, classes + c h w)."""
        maps = self.front(images)
        logits = self.rear(maps)
        return torch.cat([logits, maps.flatten(1)], dim=1) if self.training else logits


def map_shape(problem: Problem, architecture: Architecture[Any], tap: str) -> Shape:
    """Return the shape (c, h, w) of a tap's map.

    Raises:
        UsageError: there is no such tap.
    """
    with torch.device("meta"):
        network = architecture.network(problem.shape, len(problem.classes)).eval()
        maps = network.features(torch.zeros(2, *problem.shape), taps=[tap])[tap]
    channels, height, width = [*maps.shape[1:], 1, 1][:3]
    return channels, height, width


def place_of(network: Network, image: Shape, wanted: Shape) -> int | None:
    """Return the number of layers after which a network first has maps of a shape that are not negative; None if never.

    Args:
        network: on any device, meta too.
        image: shape of an image (c, h, w).
        wanted: shape of the maps (c, h, w).
    """
    layers = layers_of(network)
    if layers is None:
        return None
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    maps = torch.zeros(2, *image, device=device)
    is_training = network.training
    network.eval()
    place, signed = None, True
    with torch.no_grad():
        for number, layer in enumerate(layers, 1):
            maps = layer(maps)
            signed = _may_be_negative(layer, signed)
            if place is None and tuple(maps.shape[1:]) == wanted and not signed:
                place = number
    network.train(is_training)
    return place


def _may_be_negative(layer: nn.Module, before: bool) -> bool:
    """Return whether the output of a layer may be negative, if its input may be (``before``) or not."""
    if isinstance(layer, nn.Sequential):
        return functools.reduce(lambda signed, part: _may_be_negative(part, signed), layer, before)
    if "Pool" in type(layer).__name__:  # torch's, or networks' own
        return before
    # A block is known by its last part: pre-activation blocks and dense layers end in a convolution. The sum of a
    # residual block's branch and shortcut goes through a ReLU.
    last = list(layer.modules())[-1]
    return isinstance(last, _LINEAR) and not ends_in_relu(layer)
