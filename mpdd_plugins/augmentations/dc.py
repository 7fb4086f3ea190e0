"""DC's augmentation: each image gets one operation of a list, drawn uniformly (DC, utils.py)."""

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

# The values of DC's code: pixels, share of the side, degrees, and standard deviation.
_PAD = 4
_SCALE = 0.2
_ROTATE = 45
_NOISE = 0.001


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def crop(image: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Pad an image (c, h, w) by 4 pixels of ``fill`` (c,), and cut out the size at a uniform offset of each axis.

    Offsets are 0 ... 7: as in DC's code, the last one (8) is never drawn.
    """
    _, height, width = image.shape
    padded = fill.view(-1, 1, 1).expand(-1, height + 2 * _PAD, width + 2 * _PAD).clone()
    padded[:, _PAD : _PAD + height, _PAD : _PAD + width] = image
    row, column = _integer(0, 2 * _PAD, generator), _integer(0, 2 * _PAD, generator)
    return padded[:, row : row + height, column : column + width]


def scale(image: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Resize each axis of an image (c, h, w) by a factor uniform in 0.8 ... 1.2 (nearest pixel), and centre it on 0."""
    _, height, width = image.shape
    factors = 1 - _SCALE + 2 * _SCALE * torch.rand(2, generator=generator, dtype=torch.float64)
    new_height, new_width = int(factors[0] * height), int(factors[1] * width)
    resized = functional.interpolate(image[None], (new_height, new_width), mode="nearest")[0]
    # A canvas that holds both sizes: the image is centred on it, and the centre of the original size is cut out.
    side_h, side_w = max(height, new_height), max(width, new_width)
    canvas = image.new_zeros(image.shape[0], side_h, side_w)
    top, left = (side_h - new_height) // 2, (side_w - new_width) // 2
    canvas[:, top : top + new_height, left : left + new_width] = resized
    top, left = (side_h - height) // 2, (side_w - width) // 2
    return canvas[:, top : top + height, left : left + width]


def rotate(image: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate an image (c, h, w) by whole degrees uniform in -45 ... 44 (cubic splines); the rest is ``fill``'s mean."""
    degrees = _integer(-_ROTATE, _ROTATE, generator)
    # scipy's, as in DC's code: it works on the CPU and has no gradient, which images of a training batch do not need.
    turned = ndimage.rotate(
        image.cpu().numpy(), degrees, axes=(1, 2), reshape=False, mode="constant", cval=float(fill.mean())
    )
    return torch.from_numpy(np.ascontiguousarray(turned)).to(image)


def noise(image: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Add normal noise with standard deviation 0.001 to an image (c, h, w)."""
    return image + _NOISE * torch.randn(image.shape, generator=generator).to(image)


OPERATIONS: dict[str, Callable[[Tensor, Tensor, torch.Generator], Tensor]] = {
    "crop": crop,
    "scale": scale,
    "rotate": rotate,
    "noise": noise,
}
"""Operations by name, each of an image, the mean colour of the batch, and a generator."""


def check_strategy(strategy: str | None) -> str | None:
    """Validate an option that names operations joined by ``+``, or ``none``.

    Returns:
        The option as it is; None stands for the data set's own.

    Raises:
        ValueError: an operation is unknown.
    """
    for name in strategy.split("+") if strategy not in (None, "none") else ():
        if name not in OPERATIONS:
            raise ValueError(f"there is no operation {name!r}: use {', '.join(OPERATIONS)} joined by +, or none")
    return strategy


def dc_augmentation(strategy: str) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return a function that augments a batch (n, c, h, w), each image by one of the operations joined by ``+``."""
    names = strategy.split("+")

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        fill = images.mean(dim=(0, 2, 3))  # (c,): the mean colour of the batch, with which crops are padded
        chosen = torch.randint(len(names), (len(images),), generator=generator).tolist()
        augmented = [OPERATIONS[names[c]](image, fill, generator) for c, image in zip(chosen, images, strict=True)]
        return torch.stack(augmented)

    return augment
