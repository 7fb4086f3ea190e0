"""DSA's operations as Kornia augmentations whose parameters are passed in.

Kornia's samplers draw from the process-wide generator, so its modules are only ever called with parameters. Three of
its operations differ from those of DSA, which act on normalised images of any value: saturation (Kornia converts [0, 1]
to HSV), contrast (Kornia scales about 0), and warps, which DSA defines in the coordinates of ``affine_grid``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from kornia.augmentation import IntensityAugmentationBase2D, RandomAffine
from kornia.geometry.conversions import normal_transform_pixel
from torch import Tensor

Params = Mapping[str, Tensor]
"""Parameters of an operation by name, one row for each image (n, ...)."""


class Saturation(IntensityAugmentationBase2D):
    """Computes (x - m) * factor + m, with m the mean of each pixel over channels; grey images stay the same."""

    def __init__(self) -> None:
        super().__init__(p=1.0)

    def apply_transform(
        self, input: Tensor, params: Params, flags: Mapping[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images (n, c, h, w) with saturation scaled by ``params["factor"]`` (n,)."""
        return _about(input.mean(dim=1, keepdim=True), input, params["factor"])


class Contrast(IntensityAugmentationBase2D):
    """Computes (x - m) * factor + m, with m the mean of each image over channels and pixels."""

    def __init__(self) -> None:
        super().__init__(p=1.0)

    def apply_transform(
        self, input: Tensor, params: Params, flags: Mapping[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the images (n, c, h, w) with contrast scaled by ``params["factor"]`` (n,)."""
        return _about(input.mean(dim=(1, 2, 3), keepdim=True), input, params["factor"])


class Warp(RandomAffine):  # type: ignore[misc]
    """Samples images at ``theta`` (n, 2, 3), in the coordinates of ``torch.nn.functional.affine_grid``.

    Pixels from outside are 0, and corners are not aligned: torch's default since 1.3. DSA's code was written for 1.2,
    which aligned them.

    Args:
        resample: ``bilinear``, or ``nearest`` for shifts by whole pixels.
    """

    def __init__(self, resample: str = "bilinear") -> None:
        super().__init__(0.0, resample=resample, align_corners=False, padding_mode="zeros", p=1.0)

    def compute_transformation(self, input: Tensor, params: Params, flags: Mapping[str, Any]) -> Tensor:
        """Return the matrix (n, 3, 3) in pixels that Kornia converts back into ``theta``."""
        # The conversion there and back would lose bits in float32. It is computed on the parameters' device (the CPU)
        # and then moved, because not every device has float64.
        theta = params["theta"].to(torch.float64)
        last = theta.new_tensor([[[0.0, 0.0, 1.0]]]).expand(len(theta), 1, 3)
        height, width = input.shape[-2:]
        scale = normal_transform_pixel(height, width, device=theta.device, dtype=torch.float64, align_corners=False)
        # Kornia's matrices map source to target pixels, theta maps target to source: hence the inverse.
        matrix: Tensor = torch.linalg.inv(scale) @ torch.linalg.inv(torch.cat([theta, last], dim=1)) @ scale
        return matrix.to(input)


def _about(mean: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return (images - mean) * factor.to(images).view(-1, 1, 1, 1) + mean
