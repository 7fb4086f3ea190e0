"""Wide residual networks: Zagoruyko and Komodakis, BMVC 2016."""

from pydantic import field_validator
from torch import Tensor, nn

from harness.architectures.layers import (
    NORM_MEANING,
    LayeredNetwork,
    Layers,
    NormName,
    can_be_strided,
    initialise_convolutions,
)
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape

WIDTHS = (16, 32, 64)
"""Channels of each stage at width 1; the first convolution has 16 at every width."""


class WRNOptions(Options):
    """Options of `WRN`."""

    depth: int = option(
        16, "layers with weights, 6 n + 4 with n blocks in each stage: 16, 22, 28, 40", source="G-VBSM: WRN-16-2", ge=10
    )
    width: int = option(2, "factor of the channels of each stage", source="G-VBSM: WRN-16-2", ge=1)
    norm: NormName = option("batch", NORM_MEANING, source="Zagoruyko and Komodakis")

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 4:
            raise ValueError("should be 6 n + 4 with a whole n, such as 16, 22, 28 or 40")
        return depth


class PreActivation(nn.Module):
    """A residual block whose norm and activation come before its convolutions (He et al., ECCV 2016).

    Args:
        activation: norm and activation of the input.
        branch: maps their output to what is added.
        projection: maps their output to the shortcut where the shape changes; None for the input as it is.
    """

    branches = ("branch",)
    """The parts that a shortcut leads around."""

    def __init__(self, activation: nn.Module, branch: nn.Module, projection: nn.Module | None) -> None:
        super().__init__()
        self.activation = activation
        self.branch = branch
        self.projection = projection

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum of branch and shortcut, for maps (n, c, h, w)."""
        active = self.activation(inputs)
        total: Tensor = self.branch(active) + (inputs if self.projection is None else self.projection(active))
        return total


class WRN(Architecture[WRNOptions]):
    """Three stages of pre-activation blocks that are wider and fewer than a ResNet's, then one linear layer.

    Convolutions have no biases and He's initial weights; there is no dropout. WRN-28-10 has 36.5 million parameters for
    ten classes. Images of 28x28 are not padded.

    Taps: ``stem``, the output (n, 16, h, w) of the first convolution, and ``block1`` to ``block3``, that of each stage.
    The features are the means of ``block3`` after a last norm and activation.
    """

    Options = WRNOptions

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network for images of ``shape`` (c, h, w), without the halvings that these are too small for.

        Raises:
            DataError: the norm needs more pixels than the images have.
        """
        layers = Layers("wrn", shape)
        layers.conv(WIDTHS[0], bias=False).tap("stem")
        for stage, width in enumerate(WIDTHS):
            for block in range((self.options.depth - 4) // 6):
                self._add_block(layers, width * self.options.width, halve=stage > 0 and block == 0)
            layers.tap(f"block{stage + 1}")
        layers.norm(self.options.norm).activation()
        layers.add(nn.AdaptiveAvgPool2d(1), (layers.shape[0], 1, 1))
        network = layers.network(classes)
        initialise_convolutions(network)
        return network

    def _add_block(self, layers: Layers, width: int, halve: bool) -> None:
        norm = self.options.norm
        stride = 2 if halve and can_be_strided(norm, layers.shape) else 1
        activation = Layers(layers.name, layers.shape).norm(norm).activation()
        branch = Layers(layers.name, layers.shape)
        branch.conv(width, stride=stride, bias=False).norm(norm).activation().conv(width, bias=False)
        projection = None
        if branch.shape != layers.shape:
            projection = Layers(layers.name, layers.shape).conv(width, 1, stride=stride, bias=False).body()
        layers.add(PreActivation(activation.body(), branch.body(), projection), branch.shape)
