"""Layers put one after the other, with the shape that comes out of them."""

import math
from typing import Literal

from torch import Tensor, nn

from harness.architectures.pooling import AveragePool, MaxPool
from harness.errors import DataError
from harness.types.network import Network
from harness.types.problem import Shape

NormName = Literal["instance", "batch", "layer", "group", "none"]
ActivationName = Literal["relu", "sigmoid", "leakyrelu", "swish"]
PoolName = Literal["avg", "max", "none"]

GROUPS = 4
"""How many groups of channels ``norm=group`` has."""

NORM_MEANING = (
    "normalisation: instance (each channel of each image by itself), batch, layer (over channels and pixels), "
    f"group ({GROUPS} groups of channels), none; all with learned scale and shift"
)


class LayeredNetwork(Network):
    """A body, whose flattened output is the features, and a classifier on top of it."""

    def __init__(self, body: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.classifier = classifier

    def features(self, images: Tensor) -> Tensor:
        """The body's output, flattened."""
        vectors: Tensor = self.body(images).flatten(1)
        return vectors


class Layers:
    """Layers in order. Each method appends one and notes the shape that it gives.

    Args:
        name: the architecture, for messages.
        shape: channels, height, width of what goes in.
    """

    def __init__(self, name: str, shape: Shape) -> None:
        self.name = name
        self.shape = shape
        self._modules: list[nn.Module] = []

    def add(self, module: nn.Module, shape: Shape) -> "Layers":
        """Append a module that gives ``shape``."""
        self._modules.append(module)
        self.shape = shape
        return self

    def conv(
        self, width: int, kernel: int = 3, *, stride: int = 1, padding: tuple[int, int] | None = None, bias: bool = True
    ) -> "Layers":
        """A convolution to ``width`` channels; without ``padding``, only its stride makes the maps smaller."""
        pad = (kernel // 2, kernel // 2) if padding is None else padding
        channels, *sides = self.shape
        height, breadth = ((side + 2 * p - kernel) // stride + 1 for side, p in zip(sides, pad, strict=True))
        return self.add(nn.Conv2d(channels, width, kernel, stride, pad, bias=bias), (width, height, breadth))

    def norm(self, name: NormName) -> "Layers":
        """A normalisation; nothing for ``none``.

        Raises:
            DataError: it would normalise single values, and so give the same for all images.
        """
        if name == "none":
            return self
        if not leaves_enough(name, self.shape):
            raise DataError(
                f"{self.name} with norm={name} cannot tell images of {_size(self.shape)} apart, because it normalises "
                "single pixels: take norm=batch or larger images"
            )
        return self.add(_normalisation(name, self.shape), self.shape)

    def activation(self, name: ActivationName = "relu") -> "Layers":
        """An activation function."""
        modules = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "leakyrelu": nn.LeakyReLU, "swish": nn.SiLU}
        return self.add(modules[name](), self.shape)

    def pool(self, name: PoolName, before: NormName = "none") -> "Layers":
        """A pooling that halves both sides; left out where that would leave nothing, or too little for a norm.

        Args:
            name: nothing for ``none``.
            before: the norm that follows later on, if any.
        """
        channels, height, width = self.shape
        halved = (channels, height // 2, width // 2)
        if name == "none" or not leaves_enough(before, halved):
            return self
        return self.add(AveragePool() if name == "avg" else MaxPool(), halved)

    def body(self) -> nn.Sequential:
        """The layers as one module."""
        return nn.Sequential(*self._modules)

    def network(self, classes: int) -> LayeredNetwork:
        """The layers with one linear layer on top."""
        return LayeredNetwork(self.body(), nn.Linear(math.prod(self.shape), classes))


def leaves_enough(norm: NormName, shape: Shape) -> bool:
    """Whether ``shape`` has pixels, and enough that ``norm`` sees more than one value at a time.

    A value that is normalised by itself becomes zero: instance norm on maps of a single pixel makes a network constant.
    """
    channels, height, width = shape
    values = {"instance": 1, "group": channels // GROUPS, "layer": channels}.get(norm, 2)
    return min(height, width) > 0 and values * height * width > 1


def padding_to_32(shape: Shape, usual: int) -> tuple[int, int]:
    """Padding of a first convolution: ``usual``, and 2 more where a side is 28, which brings it to 32 as in DC."""
    height, width = (usual + 2 if side == 28 else usual for side in shape[1:])
    return height, width


def _normalisation(name: NormName, shape: Shape) -> nn.Module:
    channels = shape[0]
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "layer":
        return nn.LayerNorm(shape)
    return nn.GroupNorm(channels if name == "instance" else GROUPS, channels)


def _size(shape: Shape) -> str:
    return f"{shape[1]}x{shape[2]}"
