"""Convolutions as quick as their shapes allow on a CPU: first-order work in float32.

By tiles where a batch has many (`harness.compute.winograd`). A wide layer on few pixels, as at the end of a VGG that
trains on ten images, is a product of two matrices of which the filters are the larger one by far: as such it is quicker
than as torch's convolution, above all its gradients.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from harness.compute import winograd

WIDE, FEW_PIXELS = 2**17, 512
"""Channels in times channels out from which, and pixels of a batch up to which a trained layer is such a product."""

Pair = int | Sequence[int] | str
Way = Callable[[Tensor, Tensor], Tensor]
ONE = (1, (1, 1), [1, 1])


class QuickConvolutions(TorchFunctionMode):
    """Computes each convolution that gains by it another way; what comes out can be differentiated once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func is torch.conv2d and (way := _way(*args, **kwargs)):
            func = functools.partial(_convolution, way)
        return func(*args, **kwargs)


def _way(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Way | None:
    """Another one than torch's for a convolution, given as to `torch.conv2d`."""
    plain = stride in ONE and dilation in ONE and groups == 1 and _keeps_size(input, weight, padding)
    if not plain or not _are_float32(input, weight) or not (bias is None or _goes_with(bias, weight)):
        return None
    return quicker_way(input, weight)


def _convolution(way: Way, input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: Any, **__: Any) -> Tensor:  # noqa: ANN401
    given = way(input, weight)
    return given if bias is None else given + bias[:, None, None]


def quicker_way(images: Tensor, weight: Tensor) -> Way | None:
    """From images and weights to their convolution of equal size; None where torch's own is as quick.

    Decided by shapes, and by whether there will be a gradient.
    """
    if winograd.gains(images, weight):
        return winograd.convolve
    count, channels, height, width = images.shape
    trained = torch.is_grad_enabled() and weight.requires_grad and weight.is_contiguous()
    wide = channels * len(weight) >= WIDE and weight.shape[2:] == (3, 3)
    few = 0 < count < count * height * width <= FEW_PIXELS  # torch is quicker on maps of one pixel
    return of_patches if trained and wide and few else None


def of_patches(images: Tensor, weight: Tensor) -> Tensor:
    """The convolution of ``images`` (n, in, height, width) with ``weight`` (out, in, 3, 3), padded by one zero: one
    product of the weights with the surroundings of all pixels. It lies in memory as the images do.
    """
    count, _, height, width = images.shape
    surroundings = functional.unfold(images, 3, padding=1).transpose(0, 1).flatten(1)
    product = (weight.flatten(1) @ surroundings).view(len(weight), count, height, width)
    return product.transpose(0, 1).contiguous(memory_format=winograd.layout(images))


def _keeps_size(input: Tensor, weight: Tensor, padding: Pair) -> bool:
    if input.dim() != 4 or weight.dim() != 4:
        return False
    height, width = (side // 2 for side in weight.shape[2:])
    odd = all(side % 2 for side in weight.shape[2:])
    return odd and (padding in ("same", (height, width), [height, width]) or padding == height == width)


def _are_float32(input: Tensor, weight: Tensor) -> bool:
    """Whether both are, on a CPU and outside autocast, and go together."""
    if input.dtype != torch.float32 or input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return weight.dtype == input.dtype and weight.shape[1] == input.shape[1]


def _goes_with(bias: Tensor, weight: Tensor) -> bool:
    return bias.dtype == weight.dtype and bias.shape == weight.shape[:1]
