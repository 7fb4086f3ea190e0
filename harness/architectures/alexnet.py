"""AlexNet for small images, as in DC's code."""

from typing import Literal

from harness.architectures.layers import LayeredNetwork, Layers, padding_to_32
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape


class AlexNetOptions(Options):
    """Options of `AlexNet`."""

    norm: Literal["none", "batch"] = option("none", "normalisation after each convolution", source="DC, networks.py")


class AlexNet(Architecture[AlexNetOptions]):
    """Five convolutions and one linear layer: AlexNet (Krizhevsky et al., NeurIPS 2012) in DC's version for 32x32.

    Taps: ``block1`` to ``block5``, the output (n, channels, h, w) of each convolution after activation and pooling, and
    ``act1``, ``act2`` and ``act5``, the activations before the poolings.
    """

    Options = AlexNetOptions

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network, without the poolings that its images are too small for.

        Args:
            shape: shape of an image (c, h, w).
            classes: number of logits.
        """
        norm = self.options.norm
        layers = Layers("alexnet", shape)
        layers.conv(128, 5, padding=padding_to_32(shape, 2)).norm(norm).activation().tap("act1")
        layers.pool("max").tap("block1")
        layers.conv(192, 5).norm(norm).activation().tap("act2").pool("max").tap("block2")
        layers.conv(256).norm(norm).activation().tap("block3")
        layers.conv(192).norm(norm).activation().tap("block4")
        layers.conv(192).norm(norm).activation().tap("act5").pool("max").tap("block5")
        return layers.network(classes)
