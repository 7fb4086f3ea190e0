"""Differentiable siamese augmentation: Zhao and Bilen, ICML 2021 (DSA), on Kornia's augmentations.

One operation of a strategy is drawn for each batch. A siamese transform has one set of parameters for all batches that
it is applied to, the real and the synthetic one; in training, every image has its own. All operations
act on normalised images (n, c, h, w).
"""

import math
from collections.abc import Callable, Sequence

import torch
from kornia.augmentation import RandomBrightness, RandomErasing, RandomHorizontalFlip
from torch import Tensor, nn

from harness import Augment, Problem, Shape
from mpdd_plugins.augmentations.kornia_ops import Contrast, Params, Saturation, Warp

Transform = Callable[[Tensor], Tensor]
"""Maps images (n, c, h, w) to images of the same shape, differentiably."""
Stage = tuple[nn.Module, Params]
"""A Kornia module with its parameters, one row for each image, or one row for all."""


def color(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Draw brightness + (-0.5 ... 0.5), then saturation * (0 ... 2), then contrast * (0.5 ... 1.5)."""
    shift, saturation, contrast = (_uniform(count, generator) for _ in range(3))
    return [
        # Kornia adds the factor - 1, so this adds -0.5 ... 0.5; normalised images must not be clipped to [0, 1].
        (RandomBrightness((0.5, 1.5), clip_output=False, p=1.0), {"brightness_factor": shift + 0.5}),
        (Saturation(), {"factor": 2 * saturation}),
        (Contrast(), {"factor": contrast + 0.5}),
    ]


def crop(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Draw a shift by whole pixels, up to an eighth of each side (4 of 32 and of 28); the rest is 0."""
    shifts = []
    for side in shape[1:]:
        bound = int(side * 0.125 + 0.5)  # rounded as in DSA's code
        shifts.append(_integers(-bound, bound, count, generator))
    down, right = shifts
    theta = torch.zeros(count, 2, 3, dtype=torch.float64)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    # affine_grid maps each side to [-1, 1], so a pixel is 2 / side, and it says where to sample: hence the sign.
    theta[:, 0, 2], theta[:, 1, 2] = -2 * right / shape[2], -2 * down / shape[1]
    return [(Warp("nearest"), {"theta": theta})]


def cutout(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Draw a box of half the sides that is set to 0; its centre is anywhere, and the border cuts the box off."""
    starts, sizes = [], []
    for side in shape[1:]:
        size = int(side * 0.5 + 0.5)
        # The range of DSA's code: a box of even size has no middle pixel, so one more centre is possible.
        centre = _integers(0, side - size % 2, count, generator)
        first, last = (centre - size // 2).clamp(min=0), (centre - size // 2 + size).clamp(max=side)
        starts.append(first)
        sizes.append(last - first)
    box = {"ys": starts[0], "xs": starts[1], "heights": sizes[0], "widths": sizes[1]}
    return [(RandomErasing(p=1.0), {**box, "values": torch.zeros(count, dtype=torch.float64)})]


def flip(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Draw whether to mirror left and right, with probability one half."""
    return [(RandomHorizontalFlip(p=0.5), {"batch_prob": _uniform(count, generator) < 0.5})]


def scale(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Draw a factor 1/1.2 ... 1.2 of the sampling coordinates of each axis; above 1, the content shrinks."""
    theta = torch.zeros(count, 2, 3, dtype=torch.float64)
    for axis in range(2):
        theta[:, axis, axis] = 1 / 1.2 + (1.2 - 1 / 1.2) * _uniform(count, generator)
    return [(Warp(), {"theta": theta})]


def rotate(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Draw a rotation by -15 ... 15 degrees in the coordinates of ``affine_grid``."""
    angle = math.radians(15) * (2 * _uniform(count, generator) - 1)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [torch.stack([cos, -sin, zero], dim=1), torch.stack([sin, cos, zero], dim=1)]
    return [(Warp(), {"theta": torch.stack(rows, dim=1)})]


OPERATIONS = {"color": color, "crop": crop, "cutout": cutout, "flip": flip, "scale": scale, "rotate": rotate}
"""Operations by name: each draws its parameters from the shape of an image, a number of rows, and a generator."""
EVERY = "+".join(OPERATIONS)
"""The strategy of all operations."""


def check_strategy(strategy: str | None) -> str | None:
    """Validate an option that names operations joined by ``+`` (or ``_``, as in DSA's code), or ``none``.

    Returns:
        The same operations joined by ``+``; None stands for the data set's own.

    Raises:
        ValueError: an operation is unknown or named twice.
    """
    if strategy is None or strategy == "none":
        return strategy
    names = [name.strip() for name in strategy.replace("_", "+").split("+")]
    for name in names:
        if name not in OPERATIONS:
            raise ValueError(f"there is no operation {name!r}: use {', '.join(OPERATIONS)} joined by +, or none")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is named twice")
    return "+".join(names)


def own_strategy(problem: Problem) -> str:
    """Return the operations that suit the data set; all of them if it names none."""
    return problem.augmentations.get("dsa", EVERY)


def siamese(strategy: str, shape: Shape, generator: torch.Generator) -> Transform:
    """Draw one operation with one set of parameters, the same for all images of all batches.

    Args:
        strategy: operations joined by ``+``, of which one is drawn.
        shape: shape of an image (c, h, w).
        generator: source of all random numbers, which are drawn at once.

    Returns:
        A differentiable function of images (n, c, h, w), which draws nothing when it is called.
    """
    return per_image(strategy, shape, 1, generator)


def per_image(strategy: str, shape: Shape, count: int, generator: torch.Generator) -> Transform:
    """Draw one operation with separate parameters for each image of a batch of ``count``; see `siamese`."""
    names = strategy.split("+")
    chosen = names[int(torch.randint(len(names), (), generator=generator))]
    return as_transform(OPERATIONS[chosen](shape, count, generator))


def dsa_augmentation(strategy: str) -> Augment:
    """Return a function that augments training batches: one operation per batch, separate parameters per image."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        channels, height, width = images.shape[1:]
        return per_image(strategy, (channels, height, width), len(images), generator)(images)

    return augment


def as_transform(stages: Sequence[Stage]) -> Transform:
    """Return a function that applies Kornia modules in turn, with parameters that are drawn already."""

    def transform(images: Tensor) -> Tensor:
        for module, params in stages:
            # One row of parameters serves any number of images: expand repeats it without a copy.
            rows = {name: values.expand(len(images), *values.shape[1:]) for name, values in params.items()}
            images = module(images, params=rows)
        return images

    return transform


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    """Draw float64 numbers (count,) from [0, 1) on the CPU, so that they are the same on every device."""
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _integers(low: int, high: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw whole numbers (count,) from ``low`` to ``high``, both included."""
    return torch.randint(low, high + 1, (count,), generator=generator)
