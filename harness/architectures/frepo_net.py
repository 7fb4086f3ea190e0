"""FRePoNet: the network that FRePo is published with, whose width doubles from block to block."""

import math

from torch import nn

from harness.architectures.layers import NORM_MEANING, LayeredNetwork, Layers, NormName
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape

MOMENTUM = 0.9
"""How far a batch moves batch norm's running statistics: almost to its own (Flax's momentum of 0.1)."""
TRUNCATED = 0.87962566103423978
"""Standard deviation of a standard normal cut off at 2 on both sides."""


class FRePoNetOptions(Options):
    """Options of `FRePoNet`."""

    width: int = option(128, "channels of the first convolution; each later has twice as many", source="FRePo", gt=0)
    depth: int = option(3, "number of blocks", source="FRePo", gt=0)
    norm: NormName = option(
        "batch", f"{NORM_MEANING}. It stands before the convolutions of all blocks but the first", source="FRePo"
    )


class FRePoNet(Architecture[FRePoNetOptions]):
    """Blocks of norm, convolution, ReLU and pooling, then one linear layer (Zhou et al., NeurIPS 2022, FRePo).

    Features are the flattened output of the last block: 512 * 4 * 4 by default, for 32x32 pixels. Grey images are
    padded by 2 more pixels on each side, which makes 28x28 images 32x32. Weights are LeCun's truncated normal ones, and
    biases zero. Flax's batch norm, in the released code, takes the biased variance; ours the unbiased one.

    Taps: ``blockN``, the output of block N, from 1 to depth.
    """

    Options = FRePoNetOptions

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network, without the poolings that its images are too small for.

        Args:
            shape: shape of an image (c, h, w).
            classes: number of logits.

        Raises:
            DataError: the norm needs more pixels than the images have.
        """
        chosen, layers = self.options, Layers("frepo-net", shape)
        for block in range(chosen.depth):
            if block:
                layers.norm(chosen.norm)
            padding = (3, 3) if block == 0 and shape[0] == 1 else None
            layers.conv(chosen.width * 2**block, padding=padding).activation()
            last = block == chosen.depth - 1
            layers.pool("avg", before="none" if last else chosen.norm).tap(f"block{block + 1}")
        network = layers.network(classes)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = MOMENTUM
            elif isinstance(module, nn.Conv2d | nn.Linear):
                _initialise(module)
        return network


def _initialise(layer: nn.Conv2d | nn.Linear) -> None:
    """Draw LeCun's normal weights, of variance 1 / fan-in, cut off at two standard deviations of the whole normal."""
    deviation = 1 / math.sqrt(layer.weight[0].numel()) / TRUNCATED
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    assert layer.bias is not None, "both kinds of layers have biases"
    nn.init.zeros_(layer.bias)
