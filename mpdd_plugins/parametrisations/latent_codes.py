"""Latent codes and decoders that all classes share, like KFS: Lee, Choi, Hwang, 2022 (arXiv 2208.10494).

This is *KFS-like*, and no reproduction: there is no published code. Published is that the condensed data are codes in a
latent space together with small decoders that all classes share, that any code may pass any decoder, so that a set has
codes x decoders images, and that distribution matching learns both at once: ``dm[as=latent-codes]``.

Our reading is the rest. A code is smaller than an image by 2^``stages`` a side, and a stored image holds ``codes`` of
them. A decoder doubles the size in each stage by a transposed convolution (kernel 4, stride 2) and a ReLU, and ends
with a convolution (kernel 3); what exceeds the size of an image is cut off. At the start codes are shrunken real
images, and decoders enlarge bilinearly, up to the outermost pixels and a random part that distinguishes them. Both
are learned by the method's SGD at one rate, lower than that of plain images, because a decoder's gradient is the sum
over all classes. Storage counts both. Without stages a code is an image, and there is nothing to learn beside it.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from harness import DataError, InitialImages, Options, Parametrisation, Shape, UsageError, option

TENT = (0.25, 0.75, 0.75, 0.25)
"""The kernel of bilinear enlargement by two, in each direction."""


class LatentCodeOptions(Options):
    """Options of `LatentCodes`."""

    codes: int = option(4, "codes that a stored image holds", source="own choice: as many values as an image", ge=1)
    decoders: int = option(2, "decoders, by each of which every code is decoded", source="own choice", ge=1)
    stages: int = option(1, "how often a decoder doubles the size of a code", source="own choice", ge=0, le=4)
    channels: int | None = option(
        None, "channels of a code; auto: those of an image. Others than these start at zero", source="own choice", ge=1
    )
    hidden: int = option(
        8, "channels between the layers of a decoder, at least two for each of an image", source="own choice", ge=2
    )
    spread: float = option(
        0.3, "factor of the random part of a decoder at its start, beside PyTorch's own initialisation",
        source="own choice", ge=0,
    )  # fmt: skip


class LatentCodes(Parametrisation[LatentCodeOptions]):
    """Stores ``codes`` codes in each stored image, and decoders that make a training image of every code.

    First come the images of all codes by the first decoder, a stored image's codes side by side, then by the second.
    """

    Options = LatentCodeOptions
    decodes_to = "inputs"

    def initial(self, start: InitialImages) -> Mapping[str, Tensor]:
        """Return shrunken real images or noise as codes, and decoders that enlarge them."""
        options, shape = self.options, start.problem.shape
        extra = self._code_channels(shape) - shape[0]
        if extra < 0 or (options.stages and options.hidden < 2 * shape[0]):
            fault = f"images of {shape[0]} channels need codes of as many, and hidden={2 * shape[0]} or more"
            raise UsageError(f"latent-codes: {fault}")
        per_class, preprocessing = start.ipc * options.codes, start.problem.resident.preprocessing
        # By pixels, which repeat the images of a class that has fewer.
        is_real = start.kind == "real"
        images = preprocessing.apply(start.pixels(per_class)) if is_real else start.inputs(per_class)
        small = functional.interpolate(images, size=self._size(shape), mode="area") if options.stages else images
        codes = functional.pad(small, (0, 0, 0, 0, 0, extra))
        rows = len(start.problem.classes) * start.ipc
        generator, tensors = start.streams.generator("init", 1), {}
        for name, wanted in self._shapes(shape).items():
            base = enlarging(wanted, shape[0], first=name == "weight_0") if name.startswith("weight") else 0.0
            bound = options.spread / math.sqrt(self._fan_in(name, shape))
            noise = bound * (2 * torch.rand(wanted, generator=generator) - 1)
            tensors[name] = (base + noise).to(start.problem.device)
        return {"images": codes.reshape(rows, options.codes, *codes.shape[1:]), **tensors}

    def decode(self, tensors: Mapping[str, Tensor], labels: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return the images of all codes by each decoder in turn."""
        options, codes = self.options, tensors["images"].flatten(0, 1)  # (n * codes, channels, h / 2^s, w / 2^s)
        labels = labels.repeat_interleave(options.codes, dim=0)
        if not options.stages:
            return torch.cat([codes] * options.decoders), torch.cat([labels] * options.decoders)
        images = [self._decoded(codes, tensors, place) for place in range(options.decoders)]
        whole = torch.cat(images)[..., : shape[1], : shape[2]]
        return whole, torch.cat([labels] * options.decoders)

    def _decoded(self, codes: Tensor, tensors: Mapping[str, Tensor], place: int) -> Tensor:
        """Return what one decoder makes of codes."""
        stages = self.options.stages
        for stage in range(stages):
            weight, bias = tensors[f"weight_{stage}"][place], tensors[f"bias_{stage}"][place]
            codes = functional.conv_transpose2d(codes, weight, bias, stride=2, padding=1).relu()
        return functional.conv2d(codes, tensors[f"weight_{stages}"][place], tensors[f"bias_{stages}"][place], padding=1)

    def check(self, tensors: Mapping[str, Tensor], shape: Shape) -> None:
        """Raise `DataError` if codes or a tensor of the decoders have another shape than the options say."""
        code = (self.options.codes, self._code_channels(shape), *self._size(shape))
        wanted = {"images": code, **self._shapes(shape)}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        shapes["images"] = shapes["images"][1:]
        if shapes != wanted:
            raise DataError(f"its codes and decoders have the shapes {shapes}, but need {wanted}")

    def _code_channels(self, shape: Shape) -> int:
        return shape[0] if self.options.channels is None else self.options.channels

    def _size(self, shape: Shape) -> tuple[int, int]:
        factor = 2**self.options.stages
        return -(-shape[1] // factor), -(-shape[2] // factor)

    def _shapes(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the decoders' tensors, a row for each decoder."""
        options, shapes = self.options, dict[str, tuple[int, ...]]()
        for stage in range(options.stages):
            inputs = options.hidden if stage else self._code_channels(shape)
            shapes[f"weight_{stage}"] = (options.decoders, inputs, options.hidden, 4, 4)
            shapes[f"bias_{stage}"] = (options.decoders, options.hidden)
        if options.stages:
            shapes[f"weight_{options.stages}"] = (options.decoders, shape[0], options.hidden, 3, 3)
            shapes[f"bias_{options.stages}"] = (options.decoders, shape[0])
        return shapes

    def _fan_in(self, name: str, shape: Shape) -> int:
        """Return how many values one output value of a layer is the sum of."""
        stage, options = int(name.rpartition("_")[2]), self.options
        inputs = options.hidden if stage else self._code_channels(shape)
        # A pixel meets a fourth of the 4 x 4 taps of a transposed convolution of stride 2.
        return inputs * (4 if stage < options.stages else 9)


def enlarging(shape: tuple[int, ...], channels: int, *, first: bool) -> Tensor:
    """Return weights by which a decoder enlarges its code bilinearly.

    Channel c of the code passes ReLUs as the channels 2c, where it is positive, and 2c + 1, where it is negative.

    Args:
        shape: (decoders, in, out, 4, 4) of a transposed convolution; (decoders, out, in, 3, 3) of the last layer.
        channels: channels of an image.
        first: whether the layer reads the code itself.
    """
    weight = torch.zeros(shape)
    if shape[-1] == 3:
        for channel in range(channels):
            weight[:, channel, 2 * channel, 1, 1], weight[:, channel, 2 * channel + 1, 1, 1] = 1, -1
        return weight
    kernel = torch.outer(torch.tensor(TENT), torch.tensor(TENT))
    for channel in range(channels):
        sources = [(channel, 1)] if first else [(2 * channel, 1), (2 * channel + 1, -1)]
        for source, sign in sources:
            weight[:, source, 2 * channel], weight[:, source, 2 * channel + 1] = sign * kernel, -sign * kernel
    return weight
