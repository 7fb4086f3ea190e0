"""2x2 pooling, quick on a CPU: torch's own kernels read such images (channels first) value by value there."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class AveragePool(nn.Module):
    """Means of 2x2 pixels; an odd last row or column is left out. Equal to torch's up to rounding."""

    def forward(self, images: Tensor) -> Tensor:
        """From (n, channels, height, width) to (n, channels, height // 2, width // 2)."""
        if images.is_cuda:
            return functional.avg_pool2d(images, 2)
        if torch.autograd.forward_ad._current_level >= 0:  # a function of our own has no forward-mode derivative
            return _means(images)
        means: Tensor = _SpreadMean.apply(images)
        return means


class _SpreadMean(torch.autograd.Function):
    """Means of 2x2 pixels. Their gradient is one pass over memory, where that of the sums would be five."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor) -> Tensor:
        return _means(images)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ANN401
        height, width = inputs[0].shape[-2:]
        ctx.left_out = (0, width % 2, 0, height % 2)

    @staticmethod
    def backward(ctx: Any, means: Tensor) -> Tensor:  # noqa: ANN401
        """A quarter of each at all four pixels: itself differentiable."""
        *rest, height, width = means.shape
        spread = (means * 0.25)[..., None, :, None].expand(*rest, height, 2, width, 2)
        gradient = spread.reshape(*rest, 2 * height, 2 * width)
        return functional.pad(gradient, ctx.left_out) if any(ctx.left_out) else gradient


class MaxPool(nn.Module):
    """Maxima of 2x2 pixels; an odd last row or column is left out. Equal to torch's."""

    def forward(self, images: Tensor) -> Tensor:
        """From (n, channels, height, width) to (n, channels, height // 2, width // 2)."""
        # The gradient of two maxima takes longer than what is saved, and would be shared out among equal pixels.
        if images.is_cuda or (torch.is_grad_enabled() and images.requires_grad):
            return functional.max_pool2d(images, 2)
        return torch.maximum(*_columns(torch.maximum(*_rows(images))))


def _means(images: Tensor) -> Tensor:
    upper, lower = _rows(images)
    left, right = _columns(upper + lower)
    return (left + right) * 0.25


def _rows(images: Tensor) -> tuple[Tensor, Tensor]:
    even = images[..., : images.shape[-2] // 2 * 2, :]
    return even[..., ::2, :], even[..., 1::2, :]


def _columns(images: Tensor) -> tuple[Tensor, Tensor]:
    even = images[..., : images.shape[-1] // 2 * 2]
    return even[..., ::2], even[..., 1::2]
