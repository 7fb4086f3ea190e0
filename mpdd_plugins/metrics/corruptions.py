"""Corruptions of images at five severities: Hendrycks and Dietterich, ICLR 2019, with the constants of CIFAR-10-C.

Their published script for images of 32x32 (ImageNet-C/create_c/make_cifar_c.py) has the constants; sizes of other
images take the same ones. All work on stored pixels (n, channels, height, width), uint8, and round to the nearest pixel
value, where the script rounds down.
"""

import io
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

SEVERITIES = (1, 2, 3, 4, 5)
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
"""Standard deviations of Gaussian noise, of images in [0, 1]."""
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
"""Standard deviations of a Gaussian kernel, in pixels."""
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
"""Factors of the distance from a channel's mean over the image."""
PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)
"""Shares of the side to which an image is shrunk before it is enlarged again."""
JPEG = (80, 65, 58, 50, 40)
"""Qualities of JPEG compression."""
_TRUNCATE = 4.0
"""Standard deviations at which the kernel ends (scikit-image)."""


def noise(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise to each value."""
    added = torch.randn(pixels.shape, generator=generator) * (255 * NOISE[severity - 1])
    return _rounded(pixels.float() + added)


def blur(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Blur with a Gaussian kernel; beyond an edge, the outermost pixel goes on."""
    sigma = BLUR[severity - 1]
    radius = int(_TRUNCATE * sigma + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    weights = weights / weights.sum()
    channels = pixels.shape[1]
    padded = functional.pad(pixels.float(), (radius, radius, radius, radius), mode="replicate")
    rows = functional.conv2d(padded, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return _rounded(functional.conv2d(rows, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels))


def contrast(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Bring each channel of an image nearer to its mean."""
    images = pixels.float()
    means = images.mean((2, 3), keepdim=True)
    return _rounded((images - means) * CONTRAST[severity - 1] + means)


def pixelate(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Shrink an image by averaging, and enlarge it again by repetition."""
    height, width = pixels.shape[2:]
    share = PIXELATE[severity - 1]
    small = (max(1, math.floor(height * share)), max(1, math.floor(width * share)))
    return _each(
        pixels,
        lambda image: image.resize(small[::-1], Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX),
    )


def jpeg(pixels: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Compress and decode an image as JPEG, with Pillow's usual subsampling of colours."""

    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=JPEG[severity - 1])
        return Image.open(file)

    return _each(pixels, compressed)


CORRUPTIONS: Mapping[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "pixelate": pixelate,
    "jpeg": jpeg,
}
"""By kind, the function from pixels, a severity and a generator to corrupted pixels of the same shape and type."""
THROUGH_PILLOW = ("pixelate", "jpeg")
"""Kinds for grey and colour images alone."""


def _each(pixels: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Change each image through Pillow; those of one channel are grey, those of three RGB."""
    changed = []
    for image in pixels.numpy():
        grey = len(image) == 1
        own = np.asarray(change(Image.fromarray(image[0] if grey else image.transpose(1, 2, 0))))
        changed.append(torch.from_numpy((own[None] if grey else own.transpose(2, 0, 1)).copy()))
    return torch.stack(changed)


def _rounded(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
