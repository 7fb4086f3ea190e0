"""DenseNets with bottlenecks and compression for small images: Huang et al., CVPR 2017."""

import torch
from pydantic import field_validator
from torch import Tensor, nn

from harness.architectures.layers import (
    NORM_MEANING,
    LayeredNetwork,
    Layers,
    NormName,
    initialise_convolutions,
)
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape

BLOCKS = 3
"""Dense blocks, which a transition follows but for the last."""


class DenseNetBCOptions(Options):
    """Options of `DenseNetBC`."""

    depth: int = option(
        40, "layers with weights, 6 n + 4 with n bottlenecks in each block: 40, 100, 190, 250", source="Huang et al.",
        ge=10,
    )  # fmt: skip
    growth: int = option(12, "channels that each bottleneck adds", source="Huang et al.", ge=1)
    norm: NormName = option("batch", NORM_MEANING, source="Huang et al.")

    @field_validator("depth")
    @classmethod
    def _whole_bottlenecks(cls, depth: int) -> int:
        if depth % 6 != 4:
            raise ValueError("should be 6 n + 4 with a whole n, such as 40, 100, 190 or 250")
        return depth


class Bottleneck(nn.Module):
    """A layer whose output is its input with more channels behind it."""

    def __init__(self, addition: nn.Module) -> None:
        super().__init__()
        self.addition = addition

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c + growth, h, w)."""
        return torch.cat([inputs, self.addition(inputs)], 1)


class DenseNetBC(Architecture[DenseNetBCOptions]):
    """Three blocks in which each layer sees the maps of all before it, then one linear layer.

    The first convolution has twice as many channels as a bottleneck adds. A bottleneck is a 1x1 convolution to four
    times that number and a 3x3 one, each after norm and ReLU; a transition halves the channels and pools. Convolutions
    have no biases and He's initial weights. The network of depth 100 and growth 12 has 0.8 million parameters for ten
    classes. Images of 28x28 are not padded.

    Taps: ``stem``, the output of the first convolution, and ``block1`` to ``block3``, that of each block before its
    transition. The features are the means of ``block3`` after a last norm and activation.
    """

    Options = DenseNetBCOptions

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network for images of ``shape`` (c, h, w), without the poolings that these are too small for.

        Raises:
            DataError: the norm needs more pixels than the images have, or ``norm=group`` other channels.
        """
        norm = self.options.norm
        layers = Layers("densenet-bc", shape)
        layers.conv(2 * self.options.growth, bias=False).tap("stem")
        for block in range(1, BLOCKS + 1):
            for _ in range((self.options.depth - 4) // 6):
                self._add_bottleneck(layers)
            layers.tap(f"block{block}")
            if block < BLOCKS:
                transition = Layers(layers.name, layers.shape).norm(norm).activation()
                transition.conv(layers.shape[0] // 2, 1, bias=False).pool("avg", before=norm)
                layers.add(transition.body(), transition.shape)
        layers.norm(norm).activation()
        layers.add(nn.AdaptiveAvgPool2d(1), (layers.shape[0], 1, 1))
        network = layers.network(classes)
        initialise_convolutions(network)
        return network

    def _add_bottleneck(self, layers: Layers) -> None:
        norm, growth = self.options.norm, self.options.growth
        addition = Layers(layers.name, layers.shape).norm(norm).activation().conv(4 * growth, 1, bias=False)
        addition.norm(norm).activation().conv(growth, bias=False)
        channels, height, width = layers.shape
        layers.add(Bottleneck(addition.body()), (channels + growth, height, width))
