"""Sequences of layers that know the shape of their output."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from harness.architectures.pooling import AveragePool, MaxPool
from harness.architectures.recomputation import run_and_recompute
from harness.errors import DataError
from harness.types.network import Network
from harness.types.problem import Shape

# Names as they are typed in options, such as convnet[norm=group].
NormName = Literal["instance", "batch", "layer", "group", "none"]
ActivationName = Literal["relu", "sigmoid", "leakyrelu", "swish"]
PoolName = Literal["avg", "max", "none"]

GROUPS = 4
"""Groups of channels of ``norm=group``, as in DC's code."""

NORM_MEANING = (
    "normalisation: instance (each channel of each image by itself), batch, layer (over channels and pixels), "
    f"group ({GROUPS} groups of channels), none; all with learned scale and shift"
)


class LayeredNetwork(Network):
    """A network of a body, whose flattened output is the features, and a classifier on top of it.

    Args:
        body: maps images (n, c, h, w) to features, flattened or not.
        classifier: maps flattened features to logits.
        taps: paths of submodules by the names of their taps, from input to output.
    """

    def __init__(self, body: nn.Sequential, classifier: nn.Module, taps: Mapping[str, str]) -> None:
        super().__init__()
        self.body = body
        self.classifier = classifier
        self.name_taps(taps)

    def features(self, images: Tensor) -> Tensor:  # type: ignore[override]  # the base class adds taps
        """Return the flattened output of the body, (n, features), for images (n, c, h, w)."""
        maps: Tensor = run_and_recompute(self.body, images) if self._may_recompute() else self.body(images)
        return maps.flatten(1)

    def _may_recompute(self) -> bool:
        return self.recomputes and torch.is_grad_enabled()


class Layers:
    """Builds a sequence of layers; each method appends one and updates ``shape``.

    Args:
        name: name of the architecture, for error messages.
        shape: shape of the input (c, h, w).

    Attributes:
        shape: shape of the present output (c, h, w).
        taps: paths of marked layers in the network, by tap.
    """

    def __init__(self, name: str, shape: Shape) -> None:
        self.name = name
        self.shape = shape
        self.taps: dict[str, str] = {}
        self._modules: list[nn.Module] = []

    def add(self, module: nn.Module, shape: Shape) -> "Layers":
        """Append a module whose output has this shape."""
        self._modules.append(module)
        self.shape = shape
        return self

    def conv(
        self, width: int, kernel: int = 3, *, stride: int = 1, padding: tuple[int, int] | None = None, bias: bool = True
    ) -> "Layers":
        """Append a convolution to ``width`` channels.

        Args:
            width: channels of the output.
            kernel: side of the filter in pixels, odd.
            stride: pixels between outputs.
            padding: zeros on each side; None for as many as keep the size at stride 1.
            bias: whether each channel has a learned constant.
        """
        pad = (kernel // 2, kernel // 2) if padding is None else padding
        channels, *sides = self.shape
        height, breadth = ((side + 2 * p - kernel) // stride + 1 for side, p in zip(sides, pad, strict=True))
        return self.add(nn.Conv2d(channels, width, kernel, stride, pad, bias=bias), (width, height, breadth))

    def norm(self, name: NormName) -> "Layers":
        """Append a normalisation, or nothing if the name is ``none``.

        Raises:
            DataError: it would normalise single values, so that the output would be the same for all images, or the
                channels cannot be divided into groups.
        """
        if name == "none":
            return self
        if name == "group" and self.shape[0] % GROUPS:
            raise DataError(
                f"{self.name} with norm=group has a layer of {self.shape[0]} channels, which {GROUPS} groups do not "
                "divide: take another width or norm"
            )
        if not leaves_enough(name, self.shape):
            raise DataError(
                f"{self.name} with norm={name} cannot distinguish images of {_size(self.shape)}, because it normalises "
                "single pixels: take norm=batch or larger images"
            )
        return self.add(_normalisation(name, self.shape), self.shape)

    def activation(self, name: ActivationName = "relu") -> "Layers":
        """Append an activation function."""
        modules = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "leakyrelu": nn.LeakyReLU, "swish": nn.SiLU}
        return self.add(modules[name](), self.shape)

    def pool(self, name: PoolName, before: NormName = "none") -> "Layers":
        """Append a 2x2 pooling that halves both sides, unless that leaves no pixels, or too few for a norm.

        Args:
            name: kind of pooling; ``none`` appends nothing.
            before: the norm that follows in a later layer; ``none`` if none does.
        """
        channels, height, width = self.shape
        halved = (channels, height // 2, width // 2)
        if name == "none" or not leaves_enough(before, halved):
            return self
        return self.add(AveragePool() if name == "avg" else MaxPool(), halved)

    def tap(self, name: str) -> "Layers":
        """Name the present output as a tap of the network."""
        self.taps[name] = f"body.{len(self._modules) - 1}"
        return self

    def body(self) -> nn.Sequential:
        """Return the layers as one module."""
        return nn.Sequential(*self._modules)

    def network(self, classes: int) -> LayeredNetwork:
        """Return a network of the layers with one linear layer on top."""
        return LayeredNetwork(self.body(), nn.Linear(math.prod(self.shape), classes), self.taps)


def leaves_enough(norm: NormName, shape: Shape) -> bool:
    """Return whether ``shape`` (c, h, w) has pixels, and enough that ``norm`` averages more than one value."""
    # A value that is normalised by itself becomes zero: instance norm on maps of a single pixel makes a network
    # constant.
    channels, height, width = shape
    values = {"instance": 1, "group": channels // GROUPS, "layer": channels}.get(norm, 2)
    return min(height, width) > 0 and values * height * width > 1


def can_be_strided(norm: NormName, shape: Shape) -> bool:
    """Return whether a convolution of stride 2 on ``shape`` (c, h, w) leaves enough pixels for ``norm``."""
    channels, height, width = shape
    # A strided convolution rounds odd sides up, a pooling rounds them down.
    return leaves_enough(norm, (channels, (height + 1) // 2, (width + 1) // 2))


def initialise_convolutions(network: nn.Module) -> None:
    """Draw the weights of all convolutions as He et al. (ICCV 2015): normal, of variance 2 / (outputs * k * k)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def padding_to_32(shape: Shape, usual: int) -> tuple[int, int]:
    """Return the padding of a first convolution: ``usual``, and 2 more if a side is 28, which makes it 32 as in DC."""
    height, width = (usual + 2 if side == 28 else usual for side in shape[1:])
    return height, width


def _normalisation(name: NormName, shape: Shape) -> nn.Module:
    channels = shape[0]
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "layer":
        return nn.LayerNorm(shape)
    # As in DC's code, instance norm is GroupNorm with one channel per group: it has learned scales, and no statistics.
    return nn.GroupNorm(channels if name == "instance" else GROUPS, channels)


def _size(shape: Shape) -> str:
    return f"{shape[1]}x{shape[2]}"
