"""ResNets for small images, as in DC's code."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.architectures.layers import (
    NORM_MEANING,
    LayeredNetwork,
    Layers,
    NormName,
    can_be_strided,
    leaves_enough,
)
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape

WIDTHS = (64, 128, 256, 512)
"""Channels of the 3x3 convolutions of each stage."""


class ResNetOptions(Options):
    """Options of all ResNets."""

    norm: NormName = option("instance", NORM_MEANING, source="DC, networks.py")
    downsample: Literal["stride", "avgpool"] = option(
        "stride",
        "halve the size by strided convolutions, or by 2x2 average pooling (and then without a pooling before the "
        "classifier)",
        source="DC, networks.py",
    )


class Residual(nn.Module):
    """A residual block: the sum of a branch and its input, or a projection of its input."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the ReLU of the sum, for maps (n, c, h, w)."""
        return torch.relu(self.branch(inputs) + self.shortcut(inputs))


class ResNet(Architecture[ResNetOptions]):
    """Four stages of residual blocks after a 3x3 convolution, then one linear layer (He et al., CVPR 2016).

    Widths, strides and the stem without pooling are those of DC's variant for small images. DC's code averages maps of
    4x4 pixels before the classifier; here maps of any size are averaged.

    Taps: ``stem``, the activations (n, 64, h, w) of the first convolution, and ``block1`` to ``block4``, the output of
    each stage. The features are the means of ``block4``, or ``block4`` flattened with ``downsample=avgpool``.
    """

    Options = ResNetOptions
    blocks: ClassVar[tuple[int, ...]]
    """Number of blocks of each stage."""
    expansion: ClassVar[int] = 1
    """Factor from a block's width to its output channels; above 1, blocks are bottlenecks with 1x1 convolutions."""

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network for images of ``shape`` (c, h, w), without the halvings that these are too small for.

        Raises:
            DataError: the norm needs more pixels than the images have.
        """
        layers = Layers(type(self).__name__.lower(), shape)
        layers.conv(WIDTHS[0], bias=False).norm(self.options.norm).activation().tap("stem")
        for stage, (width, count) in enumerate(zip(WIDTHS, self.blocks, strict=True)):
            for block in range(count):
                self._add_block(layers, width, halve=stage > 0 and block == 0)
            layers.tap(f"block{stage + 1}")
        if self.options.downsample == "stride":
            layers.add(nn.AdaptiveAvgPool2d(1), (layers.shape[0], 1, 1))
        return layers.network(classes)

    def _add_block(self, layers: Layers, width: int, halve: bool) -> None:
        # No convolution has a bias, as in DC: the norm after it would subtract the bias again.
        norm, widened = self.options.norm, width * self.expansion
        halve = halve and self._can_halve(layers.shape)
        strided = halve and self.options.downsample == "stride"
        stride, pool = 2 if strided else 1, halve and not strided

        branch = Layers(layers.name, layers.shape)
        if self.expansion > 1:
            branch.conv(width, 1, bias=False).norm(norm).activation()
        branch.conv(width, stride=stride, bias=False).norm(norm).activation().pool("avg" if pool else "none")
        branch.conv(widened, 1 if self.expansion > 1 else 3, bias=False).norm(norm)

        shortcut = Layers(layers.name, layers.shape)
        # Where the shape changes, the input is projected by a 1x1 convolution (option B of He et al.), else added as it
        # is.
        if branch.shape != layers.shape:
            shortcut.conv(widened, 1, stride=stride, bias=False).pool("avg" if pool else "none").norm(norm)
        layers.add(Residual(branch.body(), shortcut.body()), branch.shape)

    def _can_halve(self, shape: Shape) -> bool:
        if self.options.downsample == "stride":
            return can_be_strided(self.options.norm, shape)
        channels, height, width = shape
        return leaves_enough(self.options.norm, (channels, height // 2, width // 2))


class ResNet18(ResNet):
    """ResNet-18: two blocks per stage."""

    blocks = (2, 2, 2, 2)


class ResNet34(ResNet):
    """ResNet-34: the numbers of blocks of ResNet-50, without bottlenecks."""

    blocks = (3, 4, 6, 3)


class ResNet50(ResNet):
    """ResNet-50: bottleneck blocks."""

    blocks = (3, 4, 6, 3)
    expansion = 4
