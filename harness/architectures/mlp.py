"""Multilayer perceptron, as in DC's code."""

import math

from torch import nn

from harness.architectures.layers import LayeredNetwork
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape


class MLPOptions(Options):
    """Options of `MLP`."""

    width: int = option(128, "units of each hidden layer", source="DC, networks.py", gt=0)


class MLP(Architecture[MLPOptions]):
    """Three linear layers on the pixels, with ReLU between them, as in DC (Zhao et al., ICLR 2021).

    The features are the activations of the second hidden layer.

    Taps: ``block1`` and ``block2``, the activations (n, width) of the hidden layers.
    """

    Options = MLPOptions

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network for images of ``shape`` (c, h, w), of any size."""
        width = self.options.width
        body = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(shape), width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        return LayeredNetwork(body, nn.Linear(width, classes), {"block1": "body.2", "block2": "body.4"})
