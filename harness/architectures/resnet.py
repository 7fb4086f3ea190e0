"""Residual networks."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.architectures.layers import NORM_MEANING, LayeredNetwork, Layers, NormName, leaves_enough
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape

WIDTHS = (64, 128, 256, 512)
"""Channels of the 3x3 convolutions of each stage."""


class ResNetOptions(Options):
    """Options of every ResNet."""

    norm: NormName = option("instance", NORM_MEANING, source="DC, networks.py")
    downsample: Literal["stride", "avgpool"] = option(
        "stride",
        "halve the size by strided convolutions, or by 2x2 average pooling (and then without a pooling before the "
        "classifier)",
        source="DC, networks.py",
    )


class Residual(nn.Module):
    """A branch added to its input, or to a projection of its input."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        """ReLU of the sum."""
        return torch.relu(self.branch(inputs) + self.shortcut(inputs))


class ResNet(Architecture[ResNetOptions]):
    """Four stages of residual blocks after a 3x3 convolution, then one linear layer (He et al., CVPR 2016).

    Widths, strides and the stem without pooling are the variant for small images in DC. It averages maps of 4x4; here
    they are averaged whatever their size.
    """

    Options = ResNetOptions
    blocks: ClassVar[tuple[int, ...]]
    """How many each stage has."""
    expansion: ClassVar[int] = 1
    """A block gives this many times its width; if more than 1, between 1x1 convolutions (a bottleneck)."""

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Construct a network, without the halvings that its images are too small for.

        Raises:
            DataError: the norm needs more pixels than the images have.
        """
        layers = Layers(type(self).__name__.lower(), shape)
        layers.conv(WIDTHS[0], bias=False).norm(self.options.norm).activation()
        for stage, (width, count) in enumerate(zip(WIDTHS, self.blocks, strict=True)):
            for block in range(count):
                self._add_block(layers, width, halve=stage > 0 and block == 0)
        if self.options.downsample == "stride":
            layers.add(nn.AdaptiveAvgPool2d(1), (layers.shape[0], 1, 1))
        return layers.network(classes)

    def _add_block(self, layers: Layers, width: int, halve: bool) -> None:
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
        if branch.shape != layers.shape:
            shortcut.conv(widened, 1, stride=stride, bias=False).pool("avg" if pool else "none").norm(norm)
        layers.add(Residual(branch.body(), shortcut.body()), branch.shape)

    def _can_halve(self, shape: Shape) -> bool:
        channels, height, width = shape
        spare = 1 if self.options.downsample == "stride" else 0
        return leaves_enough(self.options.norm, (channels, (height + spare) // 2, (width + spare) // 2))


class ResNet18(ResNet):
    """ResNet with two blocks a stage."""

    blocks = (2, 2, 2, 2)


class ResNet34(ResNet):
    """ResNet with the blocks of ResNet-50, without bottlenecks."""

    blocks = (3, 4, 6, 3)


class ResNet50(ResNet):
    """ResNet with bottleneck blocks."""

    blocks = (3, 4, 6, 3)
    expansion = 4
