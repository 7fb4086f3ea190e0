"""ResNets for images of 32x32, of 20 to 110 layers: He, Zhang, Ren and Sun, CVPR 2016, section 4.2."""

from typing import Literal

from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional

from harness.architectures.layers import (
    NORM_MEANING,
    LayeredNetwork,
    Layers,
    NormName,
    can_be_strided,
    initialise_convolutions,
)
from harness.architectures.resnet import Residual
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape

WIDTHS = (16, 32, 64)
"""Channels of each stage."""


class ResNetCIFAROptions(Options):
    """Options of `ResNetCIFAR`."""

    depth: int = option(
        20, "layers with weights, 6 n + 2 with n blocks in each stage: 20, 32, 44, 56, 110", source="He et al.", ge=8
    )
    norm: NormName = option("batch", NORM_MEANING, source="He et al.")
    shortcut: Literal["A", "B"] = option(
        "A",
        "where the shape changes: A, every second pixel with channels of zeros; B, a 1x1 convolution and a norm",
        source="He et al.",
    )

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 2:
            raise ValueError("should be 6 n + 2 with a whole n, such as 20, 32, 44, 56 or 110")
        return depth


class PaddedShortcut(nn.Module):
    """The shortcut without parameters of He et al.: option A.

    Args:
        stride: pixels between those that are taken.
        zeros: channels of zeros that are appended.
    """

    def __init__(self, stride: int, zeros: int) -> None:
        super().__init__()
        self.stride, self.zeros = stride, zeros

    def forward(self, maps: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, c + zeros, ceil(h / stride), ceil(w / stride))."""
        return functional.pad(maps[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.zeros))


class ResNetCIFAR(Architecture[ResNetCIFAROptions]):
    """Three stages of n residual blocks with 16, 32 and 64 channels, means of the maps, and one linear layer.

    Convolutions have no biases and He's initial weights. Of the paper's networks for CIFAR-10, with batch norm and
    option A, that of 20 layers has 0.27 million parameters, and that of 110 layers 1.7 million. Images of 28x28 are
    not padded.

    Taps: ``stem``, the activations (n, 16, h, w) of the first convolution, and ``block1`` to ``block3``, the output of
    each stage. The features are the means of ``block3``.
    """

    Options = ResNetCIFAROptions

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network for images of ``shape`` (c, h, w), without the halvings that these are too small for.

        Raises:
            DataError: the norm needs more pixels than the images have.
        """
        layers = Layers("resnet-cifar", shape)
        layers.conv(WIDTHS[0], bias=False).norm(self.options.norm).activation().tap("stem")
        for stage, width in enumerate(WIDTHS):
            for block in range((self.options.depth - 2) // 6):
                self._add_block(layers, width, halve=stage > 0 and block == 0)
            layers.tap(f"block{stage + 1}")
        layers.add(nn.AdaptiveAvgPool2d(1), (layers.shape[0], 1, 1))
        network = layers.network(classes)
        initialise_convolutions(network)
        return network

    def _add_block(self, layers: Layers, width: int, halve: bool) -> None:
        norm = self.options.norm
        stride = 2 if halve and can_be_strided(norm, layers.shape) else 1
        branch = Layers(layers.name, layers.shape)
        branch.conv(width, stride=stride, bias=False).norm(norm).activation().conv(width, bias=False).norm(norm)
        shortcut = Layers(layers.name, layers.shape)
        if branch.shape != layers.shape and self.options.shortcut == "A":
            shortcut.add(PaddedShortcut(stride, width - layers.shape[0]), branch.shape)
        elif branch.shape != layers.shape:
            shortcut.conv(width, 1, stride=stride, bias=False).norm(norm)
        layers.add(Residual(branch.body(), shortcut.body()), branch.shape)
