"""ConvNet: the network that most methods are published with."""

from collections.abc import Mapping

from pydantic import ValidationInfo, field_validator

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


class ConvNetOptions(Options):
    """Options of `ConvNet`."""

    width: int = option(128, "channels of each convolution", source="DC, utils.py", gt=0)
    depth: int = option(3, "number of blocks", source="DC, utils.py", gt=0)
    norm: NormName = option("instance", NORM_MEANING, source="DC, utils.py")
    act: ActivationName = option("relu", "activation function; leakyrelu has slope 0.01", source="DC, utils.py")
    pool: PoolName = option("avg", "2x2 pooling at the end of each block, or none", source="DC, utils.py")

    @field_validator("norm")
    @classmethod
    def _groups_divide_width(cls, norm: NormName, info: ValidationInfo) -> NormName:
        if norm == "group" and info.data.get("width", 0) % GROUPS:
            raise ValueError(f"width must be a multiple of {GROUPS}, the number of groups")
        return norm


class ConvNet(Architecture[ConvNetOptions]):
    """Equal blocks of convolution, norm, activation, pooling, then one linear layer (Gidaris and Komodakis, CVPR 2018).

    The defaults and the padding of 28x28 images to 32x32 are those of DC (Zhao et al., ICLR 2021). The features are the
    flattened output of the last block: 128 * 4 * 4 by default, for 32x32 pixels.

    Taps: ``actN``, the activations (n, width, h, w) of block N before its pooling, and ``blockN``, its output; N from 1
    to depth. Without a pooling the two are the same.
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
            layers.conv(chosen.width, padding=padding_to_32(shape, 1) if block == 0 else None)
            layers.norm(chosen.norm).activation(chosen.act).tap(f"act{block + 1}")
            # No norm follows the last block, so that its maps may shrink to a single pixel.
            layers.pool(chosen.pool, before="none" if last else chosen.norm).tap(f"block{block + 1}")
        return layers.network(classes)
