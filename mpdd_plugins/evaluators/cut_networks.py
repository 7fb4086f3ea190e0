"""Networks that are cut in two at a map of a given shape: a front up to the map, and a rear from it on."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness import Architecture, Network, Problem, Shape, UsageError
from mpdd_plugins.evaluators.drop_paths import ends_in_relu, layers_of

_LINEAR = (nn.Conv2d, nn.Linear, _BatchNorm, nn.GroupNorm, nn.LayerNorm)
"""Layers after which maps may be negative, up to the next activation: a network is not cut there."""
_SIGNED = (
    nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.Tanh,
)  # fmt: skip
"""Activations that may be negative."""
_LISTED = 12
"""Most taps that a message offers."""


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


def map_shape(problem: Problem, architecture: Architecture[Any], tap: str, name: str = "the network") -> Shape:
    """Return the shape (c, h, w) of a tap's map.

    Args:
        problem: provides the shape of the images.
        architecture: of the network that has the tap.
        tap: its name.
        name: what a message calls the network.

    Raises:
        UsageError: there is no such tap, or what it gives of an image has not three dimensions.
    """
    network = _on_meta(problem, architecture)
    if tap in network.taps:
        shape = tuple(_tapped(network, problem.shape, tap).shape[1:])
        if len(shape) == 3:
            return shape
        fault = f"{name} has no maps at its tap {tap!r}, but {'x'.join(map(str, shape))} numbers"
    else:
        fault = f"{name} has no tap {tap!r}"
    others = [other for other in network.taps if other != tap and _tapped(network, problem.shape, other).ndim == 4]
    listed = ", ".join(others[:_LISTED]) + (", ..." if len(others) > _LISTED else "")
    raise UsageError(f"{fault}: {f'its taps with maps are {listed}' if others else 'no tap of it has maps'}")


def has_signed_maps(network: Network, image: Shape, tap: str) -> bool:
    """Return whether a tap's maps are the output of a layer that may be negative, perhaps pooled.

    Of a block that computes by more than its layers, nothing is known beforehand.

    Args:
        network: on any device, meta too.
        image: shape of an image (c, h, w).
        tap: the tap's name.
    """
    calls: list[tuple[nn.Module, Any, Any]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401
        calls.append((module, inputs, output))

    leaves = [module for module in network.modules() if not [*module.children()]]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        maps = _tapped(network, image, tap)
    finally:
        for hook in hooks:
            hook.remove()
    for module, inputs, output in reversed(calls):
        if output is maps and _passes_on(module):
            maps = inputs[0]
        elif output is maps:
            return isinstance(module, _LINEAR + _SIGNED)
    return False


def taps_may_be_negative(problem: Problem, architecture: Architecture[Any], tap: str) -> bool:
    """Return `has_signed_maps` of an architecture's networks."""
    return has_signed_maps(_on_meta(problem, architecture), problem.shape, tap)


def _on_meta(problem: Problem, architecture: Architecture[Any]) -> Network:
    with torch.device("meta"):
        return architecture.network(problem.shape, len(problem.classes))


def _tapped(network: Network, image: Shape, tap: str) -> Tensor:
    """Return what a tap has of two images, in evaluation mode."""
    is_training, device = network.training, _device(network)
    with torch.no_grad():
        maps = network.eval().features(torch.zeros(2, *image, device=device), taps=[tap])[tap]
    network.train(is_training)
    return maps


def _device(network: nn.Module) -> torch.device:
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


def place_of(network: Network, image: Shape, wanted: Shape, *, signed: bool = False) -> int | None:
    """Return the number of layers after which a network first has maps of a shape that are not negative; None if never.

    Args:
        network: on any device, meta too.
        image: shape of an image (c, h, w).
        wanted: shape of the maps (c, h, w).
        signed: whether activations that may be negative count as others.
    """
    layers = layers_of(network)
    if layers is None:
        return None
    maps = torch.zeros(2, *image, device=_device(network))
    is_training = network.training
    network.eval()
    place, is_signed, refused = None, True, _LINEAR if signed else _LINEAR + _SIGNED
    with torch.no_grad():
        for number, layer in enumerate(layers, 1):
            maps = layer(maps)
            is_signed = _may_be_negative(layer, is_signed, refused)
            if place is None and tuple(maps.shape[1:]) == wanted and not is_signed:
                place = number
    network.train(is_training)
    return place


def _may_be_negative(layer: nn.Module, before: bool, refused: tuple[type[nn.Module], ...]) -> bool:
    """Return whether the output of a layer may be negative, if its input may be (``before``) or not.

    Args:
        layer: a layer or a block.
        before: whether its input may be negative.
        refused: layers whose output may be.
    """
    if isinstance(layer, nn.Sequential):
        return functools.reduce(lambda signed, part: _may_be_negative(part, signed, refused), layer, before)
    if "Pool" in type(layer).__name__:  # torch's, or networks' own
        return before
    # A block is known by its last part: pre-activation blocks and dense layers end in a convolution. The sum of a
    # residual block's branch and shortcut goes through a ReLU.
    last = list(layer.modules())[-1]
    return isinstance(last, refused) and not ends_in_relu(layer)


def _passes_on(module: nn.Module) -> bool:
    """Return whether a layer leaves the signs of its input as they are."""
    return "Pool" in type(module).__name__ or isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d)
