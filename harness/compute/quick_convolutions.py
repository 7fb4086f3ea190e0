"""Faster convolutions on a CPU, chosen by their shapes: values and first derivatives in float32.

A batch with many tiles takes Winograd's (`harness.compute.winograd`). A wide layer on few pixels, as at the end of a
VGG that trains on ten images, is a product of two matrices of which the filters are by far the larger one: computed as
such it is faster than torch's convolution, above all in its gradients.
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
"""A trained layer is such a product from this many input times output channels, up to this many pixels of a batch."""

Sides = int | Sequence[int] | str
"""One value for both sides or one for each, or the name of a padding, as `torch.conv2d` takes them."""
Convolution = Callable[[Tensor, Tensor], Tensor]
"""Maps images (n, in, h, w) and a weight (out, in, k, k) to their convolution (n, out, h, w)."""
NO_CHANGE = (1, (1, 1), [1, 1])
"""The values of stride and dilation that change nothing."""


class QuickConvolutions(TorchFunctionMode):
    """Context in which convolutions are computed in a faster way if there is one, with first derivatives only."""

    # A function mode sees the calls of `torch.conv2d` of any network, before autograd does: no layer has to be
    # replaced.

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func is torch.conv2d and (convolution := _quick_convolution_for(*args, **kwargs)):
            func = functools.partial(_convolve, convolution)
        return func(*args, **kwargs)


def _quick_convolution_for(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sides = 1,
    padding: Sides = 0,
    dilation: Sides = 1,
    groups: int = 1,
) -> Convolution | None:
    """Return a faster function for a call of `torch.conv2d` with these arguments; None if there is none."""
    plain = stride in NO_CHANGE and dilation in NO_CHANGE and groups == 1 and _keeps_size(input, weight, padding)
    if not plain or not _are_float32(input, weight) or not (bias is None or _bias_fits(bias, weight)):
        return None
    return quick_convolution(input, weight)


def _convolve(
    convolution: Convolution,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *_: Any,  # noqa: ANN401
    **__: Any,  # noqa: ANN401
) -> Tensor:
    output = convolution(input, weight)
    return output if bias is None else output + bias[:, None, None]


def quick_convolution(images: Tensor, weight: Tensor) -> Convolution | None:
    """Return a convolution of images (n, in, h, w) with a weight (out, in, k, k); None if torch's own is as fast.

    The choice depends on shapes, and on whether gradients are recorded, but never on values or on a measurement, so
    that a run is repeatable.
    """
    if winograd.is_faster(images, weight):
        return winograd.convolve
    count, channels, height, width = images.shape
    trained = torch.is_grad_enabled() and weight.requires_grad and weight.is_contiguous()
    wide = channels * len(weight) >= WIDE and weight.shape[2:] == (3, 3)
    few = 0 < count < count * height * width <= FEW_PIXELS  # torch is faster on maps of one pixel
    return convolve_as_product if trained and wide and few else None


def convolve_as_product(images: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of ``images`` (n, in, h, w) with ``weight`` (out, in, 3, 3), padded by one zero.

    It is one product of the weight with the 3x3 surroundings of all pixels. Its memory layout is that of the images.
    """
    # unfold gives (n, in * 9, h * w). All images side by side make one wide product, (out, in * 9) @ (in * 9, n * h *
    # w), which reads the filters once and not once for each image.
    count, _, height, width = images.shape
    surroundings = functional.unfold(images, 3, padding=1).transpose(0, 1).flatten(1)
    product = (weight.flatten(1) @ surroundings).view(len(weight), count, height, width)
    return product.transpose(0, 1).contiguous(memory_format=winograd.layout(images))


def _keeps_size(input: Tensor, weight: Tensor, padding: Sides) -> bool:
    if input.dim() != 4 or weight.dim() != 4:
        return False
    height, width = (side // 2 for side in weight.shape[2:])
    odd = all(side % 2 for side in weight.shape[2:])
    return odd and (padding in ("same", (height, width), [height, width]) or padding == height == width)


def _are_float32(input: Tensor, weight: Tensor) -> bool:
    """Return whether images and weight are float32 on a CPU outside of autocast, with matching channels."""
    # Under autocast, torch's own convolution would compute in bfloat16: so it has to be left alone.
    if input.dtype != torch.float32 or input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return weight.dtype == input.dtype and weight.shape[1] == input.shape[1]


def _bias_fits(bias: Tensor, weight: Tensor) -> bool:
    return bias.dtype == weight.dtype and bias.shape == weight.shape[:1]
