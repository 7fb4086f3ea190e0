"""2x2 pooling, quick on a CPU: torch's own kernels read such images (channels first) value by value there."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class AveragePool(nn.Module):
    """Means of 2x2 pixels; an odd last row or column is left out. Equal to torch's up to rounding."""

    def forward(self, images: Tensor) -> Tensor:
        """From (n, channels, height, width) to (n, channels, height // 2, width // 2)."""
        if images.is_cuda:
            return functional.avg_pool2d(images, 2)
        upper, lower = _rows(images)
        left, right = _columns(upper + lower)
        return (left + right) * 0.25


class MaxPool(nn.Module):
    """Maxima of 2x2 pixels; an odd last row or column is left out. Equal to torch's."""

    def forward(self, images: Tensor) -> Tensor:
        """From (n, channels, height, width) to (n, channels, height // 2, width // 2)."""
        # The gradient of two maxima takes longer than what is saved, and would be shared out among equal pixels.
        if images.is_cuda or (torch.is_grad_enabled() and images.requires_grad):
            return functional.max_pool2d(images, 2)
        return torch.maximum(*_columns(torch.maximum(*_rows(images))))


def _rows(images: Tensor) -> tuple[Tensor, Tensor]:
    even = images[..., : images.shape[-2] // 2 * 2, :]
    return even[..., ::2, :], even[..., 1::2, :]


def _columns(images: Tensor) -> tuple[Tensor, Tensor]:
    even = images[..., : images.shape[-1] // 2 * 2]
    return even[..., ::2], even[..., 1::2]
