"""LeNet, as in DC's code."""

import math

from torch import nn

from harness.architectures.layers import LayeredNetwork, Layers, padding_to_32
from harness.errors import DataError
from harness.types.network import Architecture
from harness.types.options import Options
from harness.types.problem import Shape

SMALLEST = 14
"""Smallest side in pixels: 14 - 4 of the first convolution, halved by the pooling, leaves 5 for the second one."""


class LeNet(Architecture[Options]):
    """Two 5x5 convolutions and three linear layers, with ReLU and max pooling (after LeCun et al., 1998), as in DC.

    The features are the flattened output of the convolutions: 16 * 5 * 5 for 32x32 pixels.

    Taps: ``act1`` and ``act2``, the activations (n, channels, h, w) of the convolutions, and ``block1`` and ``block2``,
    the same after the poolings.
    """

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network for images of ``shape`` (c, h, w).

        Raises:
            DataError: the images are too small for two convolutions without padding.
        """
        if min(shape[1:]) < SMALLEST:
            raise DataError(
                f"lenet cannot use images of {shape[1]}x{shape[2]}: resize them to {SMALLEST}x{SMALLEST} or more, "
                "or take another architecture"
            )
        layers = Layers("lenet", shape)
        layers.conv(6, 5, padding=padding_to_32(shape, 0)).activation().tap("act1").pool("max").tap("block1")
        layers.conv(16, 5, padding=(0, 0)).activation().tap("act2").pool("max").tap("block2")
        head = nn.Sequential(
            nn.Linear(math.prod(layers.shape), 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)
        )
        return LayeredNetwork(layers.body(), head, layers.taps)
