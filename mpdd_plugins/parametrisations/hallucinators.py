"""HaBa's bases and hallucinators: Liu et al., "Dataset Distillation via Factorization", NeurIPS 2022.

Each stored image is a basis, and each of ``count`` hallucinators, which all classes share, makes a training image of
it: deconv(scale * conv(basis) + shift), without any nonlinearity. Bases and images are network inputs.

Every basis is decoded by every hallucinator, where the published students draw one at each access of a basis: an
epoch over this set is ``count`` of theirs, so that the length of a published training is divided by ``count``. The
gradient of a hallucinator is the sum over all classes: with many of them, ``lr_img`` has to be lower than for plain
images.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness import DataError, InitialImages, Options, Parametrisation, Shape, UsageError, option

KERNEL = 3


class HallucinatorOptions(Options):
    """Options of `Hallucinators`."""

    count: int = option(5, "hallucinators, by each of which every basis is decoded", source="HaBa", ge=1)
    basis: Literal["full", "grey"] = option(
        "full", "full: a basis has the channels of an image; grey: it has one, of which hallucinators make colours",
        source="HaBa, published code",
    )  # fmt: skip


class Hallucinators(Parametrisation[HallucinatorOptions]):
    """Stores bases for each class, and hallucinators that make a training image of every one of them.

    First come the images of all bases by the first hallucinator, then those by the second.
    """

    Options = HallucinatorOptions
    decodes_to = "inputs"

    def initial(self, start: InitialImages) -> Mapping[str, Tensor]:
        """Return real images or noise as bases; scale 1, shift 0, and convolutions as PyTorch initialises them."""
        channels, height, width = start.problem.shape
        if min(height, width) < KERNEL:
            raise UsageError(f"hallucinators convolve bases without padding: {height}x{width} is less than 3x3")
        bases = start.inputs(start.ipc)
        if self.options.basis == "grey":
            bases = bases.mean(1, keepdim=True)
        generator, count = start.streams.generator("init", 1), self.options.count
        shapes = tensor_shapes(count, bases.shape[1], start.problem.shape)
        tensors = {"scale": torch.ones(shapes["scale"]), "shift": torch.zeros(shapes["shift"])}
        # PyTorch counts the inputs of a transposed convolution by its outputs, of which there are as many channels.
        for layer, inputs in (("encoder", bases.shape[1]), ("decoder", channels)):
            bound = 1 / math.sqrt(inputs * KERNEL**2)
            for part in ("weight", "bias"):
                name = f"{layer}_{part}"
                tensors[name] = bound * (2 * torch.rand(shapes[name], generator=generator) - 1)
        device = start.problem.device
        return {"images": bases, **{name: tensors[name].to(device) for name in shapes}}

    def decode(self, tensors: Mapping[str, Tensor], labels: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return the images of all bases by each hallucinator in turn."""
        bases, count = tensors["images"], self.options.count
        names = tensor_shapes(count, bases.shape[1], shape)
        images = [hallucinate(bases, *(tensors[name][place] for name in names)) for place in range(count)]
        return torch.cat(images), torch.cat([labels] * count)

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Raise `DataError` if a basis or a tensor of the hallucinators has another shape than the options say."""
        channels = 1 if self.options.basis == "grey" else shape[0]
        wanted = {"images": (channels, *shape[1:]), **tensor_shapes(self.options.count, channels, shape)}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        shapes["images"] = shapes["images"][1:]
        if shapes != wanted:
            raise DataError(f"its bases and hallucinators have the shapes {shapes}, but need {wanted}")


def tensor_shapes(count: int, basis_channels: int, shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the hallucinators' tensors, a row for each, in the order that `hallucinate` takes them."""
    channels, height, width = shape
    between = (count, channels, height - KERNEL + 1, width - KERNEL + 1)
    return {
        "encoder_weight": (count, channels, basis_channels, KERNEL, KERNEL),
        "encoder_bias": (count, channels),
        "scale": between,
        "shift": between,
        "decoder_weight": (count, channels, channels, KERNEL, KERNEL),
        "decoder_bias": (count, channels),
    }


def hallucinate(
    bases: Tensor,
    encoder_weight: Tensor,
    encoder_bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    decoder_weight: Tensor,
    decoder_bias: Tensor,
) -> Tensor:
    """Return what one hallucinator makes of bases (n, c, h, w): images (n, channels, h, w) (HaBa, section 3.2)."""
    hidden = scale * functional.conv2d(bases, encoder_weight, encoder_bias) + shift  # (n, channels, h - 2, w - 2)
    return functional.conv_transpose2d(hidden, decoder_weight, decoder_bias)
