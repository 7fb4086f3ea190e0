"""2x2 pooling that is fast on a CPU, where torch's kernels read images with channels first value by value."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class AveragePool(nn.Module):
    """Means of 2x2 pixels, equal to torch's up to rounding; an odd last row or column is left out."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, c, h, w) to their means (n, c, h // 2, w // 2)."""
        if images.is_cuda:
            return functional.avg_pool2d(images, 2)
        # `_SpreadMean` defines no forward-mode derivative (jvp), so forward-mode differentiation takes plain
        # operations.
        if torch.autograd.forward_ad._current_level >= 0:
            return _means(images)
        means: Tensor = _SpreadMean.apply(images)
        return means


class _SpreadMean(torch.autograd.Function):
    """Means of 2x2 pixels, with a gradient that is one pass over memory; autograd's own would be five."""

    # torch.func's vmap runs forward and backward on batches of batches, which they allow for: they use the last two
    # dimensions only. Without a rule, gradient matching of several classes at once would fail here.
    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor) -> Tensor:
        return _means(images)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ANN401
        height, width = inputs[0].shape[-2:]
        # Sizes only: the gradient does not depend on the images, so they need not be saved.
        ctx.left_out = (0, width % 2, 0, height % 2)

    @staticmethod
    def backward(ctx: Any, means: Tensor) -> Tensor:  # noqa: ANN401
        """Return a quarter of each gradient at all four pixels.

        It consists of differentiable operations, so that gradient matching can differentiate it again.
        """
        *rest, height, width = means.shape
        spread = (means * 0.25)[..., None, :, None].expand(*rest, height, 2, width, 2)
        gradient = spread.reshape(*rest, 2 * height, 2 * width)
        return functional.pad(gradient, ctx.left_out) if any(ctx.left_out) else gradient


class MaxPool(nn.Module):
    """Maxima of 2x2 pixels, equal to torch's; an odd last row or column is left out."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, c, h, w) to their maxima (n, c, h // 2, w // 2)."""
        # Only without gradients: that of `torch.maximum` costs more than is saved, and it is divided among equal
        # pixels, where torch's pooling gives all of it to the first.
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
