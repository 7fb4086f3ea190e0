"""ConvNet: the network that most methods are published with."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationInfo, field_validator
from torch import Tensor, nn

from harness.architectures.layers import (
    GROUPS,
    NORM_MEANING,
    ActivationName,
    LayeredNetwork,
    Layers,
    NormName,
    PoolName,
    padding_to_32,
)
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape

PUBLISHED_DEPTH = 5
"""Most blocks of the published ConvNets, which pool after each of them."""
DEEP_SMALLEST = 4
"""Side in pixels of the maps that deeper ConvNets no longer pool."""


class ConvNetOptions(Options):
    """Options of `ConvNet`."""

    width: int = option(128, "channels of each convolution", source="DC, utils.py", gt=0)
    depth: int = option(3, "number of blocks", source="DC, utils.py", gt=0)
    norm: NormName = option("instance", NORM_MEANING, source="DC, utils.py")
    act: ActivationName = option("relu", "activation function; leakyrelu has slope 0.01", source="DC, utils.py")
    pool: PoolName = option("avg", "2x2 pooling at the end of each block, or none", source="DC, utils.py")
    skip: bool = option(
        False,
        "residual blocks: each but the first adds its activations, divided by the root of the depth, to its input",
        source="Stable ResNet, Hayou et al., 2021",
    )
    smallest: int | None = option(
        None,
        f"no pooling of maps whose shorter side has so many pixels or fewer; auto: 1 up to {PUBLISHED_DEPTH} blocks, "
        f"{DEEP_SMALLEST} from {PUBLISHED_DEPTH + 1} on",
        source="DC: 1",
        ge=1,
    )

    @field_validator("norm")
    @classmethod
    def _groups_divide_width(cls, norm: NormName, info: ValidationInfo) -> NormName:
        if norm == "group" and info.data.get("width", 0) % GROUPS:
            raise ValueError(f"width must be a multiple of {GROUPS}, the number of groups")
        return norm

    @property
    def smallest_map(self) -> int:
        """The shorter side, in pixels, of maps that are no longer pooled."""
        return self.smallest or (1 if self.depth <= PUBLISHED_DEPTH else DEEP_SMALLEST)

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value; ``skip`` and ``smallest`` only if they make another network than DC's."""
        # Cells have the keys that they had before there were these two.
        values = super().as_json() | {"smallest": self.smallest_map}
        return {key: value for key, value in values.items() if (key, value) not in (("skip", False), ("smallest", 1))}


class Skip(nn.Module):
    """A block whose output is scaled and added to its input."""

    branches = ("block",)
    """The parts that a shortcut leads around."""

    # After the activation, so that the identity leads from the first block to the last, whatever the activation is.

    def __init__(self, block: nn.Module, scale: float) -> None:
        super().__init__()
        self.block = block
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sum, for maps (n, c, h, w)."""
        total: Tensor = inputs + self.scale * self.block(inputs)
        return total


class ConvNet(Architecture[ConvNetOptions]):
    """Equal blocks of convolution, norm, activation, pooling, then one linear layer (Gidaris and Komodakis, CVPR 2018).

    The defaults and the padding of 28x28 images to 32x32 are those of DC (Zhao et al., ICLR 2021). The features are the
    flattened output of the last block: 128 * 4 * 4 by default, for 32x32 pixels.

    Taps: ``actN``, the activations (n, width, h, w) of block N before its pooling, and ``blockN``, its output; N from 1
    to depth. Without a pooling the two are the same. With ``skip``, ``actN`` is the sum of the scaled activations and
    the block's input: without, networks of 30 blocks hardly train. The factor is that of Hayou et al. (AISTATS 2021).
    """

    Options = ConvNetOptions

    @property
    def augmentations(self) -> Mapping[str, str]:
        """Return DC's ``crop+noise`` for batch norm; DC trains that network so on every data set."""
        return {"dc": "crop+noise"} if self.options.norm == "batch" else {}

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network, without the poolings that its images are too small for.

        Args:
            shape: shape of an image (c, h, w).
            classes: number of logits.

        Raises:
            DataError: the norm needs more pixels than the images have.
        """
        chosen = self.options
        # Only the first convolution pads 28x28 images to 32x32; the others keep their size.
        layers = Layers("convnet", shape)
        for block in range(chosen.depth):
            last = block == chosen.depth - 1
            own = Layers(layers.name, layers.shape) if chosen.skip and block else layers
            own.conv(chosen.width, padding=padding_to_32(shape, 1) if block == 0 else None)
            own.norm(chosen.norm).activation(chosen.act)
            if own is not layers:
                # Without the factor, sums of activations, none of which is negative, would grow with the depth.
                layers.add(Skip(own.body(), 1 / math.sqrt(chosen.depth)), own.shape)
            layers.tap(f"act{block + 1}")
            if min(layers.shape[1:]) > chosen.smallest_map:
                # No norm follows the last block, so that its maps may shrink to a single pixel.
                layers.pool(chosen.pool, before="none" if last else chosen.norm)
            layers.tap(f"block{block + 1}")
        return layers.network(classes)
