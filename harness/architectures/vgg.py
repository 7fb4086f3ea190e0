"""VGGs, as in DC's code."""

from typing import ClassVar

from harness.architectures.layers import NORM_MEANING, LayeredNetwork, Layers, NormName, padding_to_32
from harness.types.network import Architecture
from harness.types.options import Options, option
from harness.types.problem import Shape

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the convolutions of each stage."""


class VGGOptions(Options):
    """Options of all VGGs."""

    norm: NormName = option("instance", NORM_MEANING, source="DC, networks.py")


class VGG(Architecture[VGGOptions]):
    """Five stages of 3x3 convolutions with max pooling, then one linear layer (Simonyan and Zisserman, ICLR 2015).

    One linear layer in place of three, and the norm after each convolution, are DC's.

    Taps: ``act1`` to ``act5``, the last activations (n, channels, h, w) of each stage, and ``block1`` to ``block5``,
    its output after the pooling.
    """

    Options = VGGOptions
    convolutions: ClassVar[tuple[int, ...]]
    """Number of convolutions of each stage."""

    def network(self, shape: Shape, classes: int) -> LayeredNetwork:
        """Build a network for images of ``shape`` (c, h, w), without the poolings that these are too small for.

        Raises:
            DataError: the norm needs more pixels than the images have.
        """
        norm = self.options.norm
        layers = Layers(type(self).__name__.lower(), shape)
        padding: tuple[int, int] | None = padding_to_32(shape, 1)
        for stage, (width, count) in enumerate(zip(WIDTHS, self.convolutions, strict=True)):
            for _ in range(count):
                layers.conv(width, padding=padding).norm(norm).activation()
                padding = None  # only the first convolution pads 28x28 images to 32x32
            # No norm follows the last pooling, so that maps may shrink to a single pixel.
            last = stage == len(WIDTHS) - 1
            layers.tap(f"act{stage + 1}").pool("max", before="none" if last else norm).tap(f"block{stage + 1}")
        return layers.network(classes)


class VGG11(VGG):
    """VGG with 8 convolutions (configuration A)."""

    convolutions = (1, 1, 2, 2, 2)


class VGG13(VGG):
    """VGG with 10 convolutions (configuration B)."""

    convolutions = (2, 2, 2, 2, 2)


class VGG16(VGG):
    """VGG with 13 convolutions (configuration D)."""

    convolutions = (2, 2, 3, 3, 3)


class VGG19(VGG):
    """VGG with 16 convolutions (configuration E)."""

    convolutions = (2, 2, 4, 4, 4)
