"""Differentiable siamese augmentation: Zhao and Bilen, ICML 2021 (DSA), on Kornia's augmentations.

One operation of a strategy is drawn for a batch. A siamese transform has one set of parameters for batches of any size,
the real and the synthetic one; in training, every image has its own. All act on normalised images.
"""

import math
from collections.abc import Callable, Sequence

import torch
from kornia.augmentation import RandomBrightness, RandomErasing, RandomHorizontalFlip
from torch import Tensor, nn

from harness import Augment, Problem, Shape
from mpdd_plugins.augmentations.kornia_ops import Contrast, Params, Saturation, Warp

Transform = Callable[[Tensor], Tensor]
Stage = tuple[nn.Module, Params]
"""A Kornia module with its parameters, one row for each image, or one row for all."""


def color(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Brightness + (-0.5 ... 0.5), then saturation * (0 ... 2), then contrast * (0.5 ... 1.5)."""
    shift, saturation, contrast = (_uniform(count, generator) for _ in range(3))
    return [
        (RandomBrightness((0.5, 1.5), clip_output=False, p=1.0), {"brightness_factor": shift + 0.5}),
        (Saturation(), {"factor": 2 * saturation}),
        (Contrast(), {"factor": contrast + 0.5}),
    ]


def crop(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Shift by whole pixels, up to an eighth of each side (4 of 32 and of 28); what is left is 0."""
    shifts = []
    for side in shape[1:]:
        bound = int(side * 0.125 + 0.5)
        shifts.append(_integers(-bound, bound, count, generator))
    down, right = shifts
    theta = torch.zeros(count, 2, 3, dtype=torch.float64)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, 0, 2], theta[:, 1, 2] = -2 * right / shape[2], -2 * down / shape[1]
    return [(Warp("nearest"), {"theta": theta})]


def cutout(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """A box of half the sides set to 0; its centre lies anywhere, and the border cuts off what is outside."""
    starts, sizes = [], []
    for side in shape[1:]:
        size = int(side * 0.5 + 0.5)
        centre = _integers(0, side - size % 2, count, generator)
        first, last = (centre - size // 2).clamp(min=0), (centre - size // 2 + size).clamp(max=side)
        starts.append(first)
        sizes.append(last - first)
    box = {"ys": starts[0], "xs": starts[1], "heights": sizes[0], "widths": sizes[1]}
    return [(RandomErasing(p=1.0), {**box, "values": torch.zeros(count, dtype=torch.float64)})]


def flip(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Mirror left and right, half of the time."""
    return [(RandomHorizontalFlip(p=0.5), {"batch_prob": _uniform(count, generator) < 0.5})]


def scale(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Sample at 1/1.2 ... 1.2 of the coordinates, each axis on its own: above 1 the content shrinks."""
    theta = torch.zeros(count, 2, 3, dtype=torch.float64)
    for axis in range(2):
        theta[:, axis, axis] = 1 / 1.2 + (1.2 - 1 / 1.2) * _uniform(count, generator)
    return [(Warp(), {"theta": theta})]


def rotate(shape: Shape, count: int, generator: torch.Generator) -> list[Stage]:
    """Rotate by -15 ... 15 degrees in the coordinates of ``affine_grid``."""
    angle = math.radians(15) * (2 * _uniform(count, generator) - 1)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [torch.stack([cos, -sin, zero], dim=1), torch.stack([sin, cos, zero], dim=1)]
    return [(Warp(), {"theta": torch.stack(rows, dim=1)})]


OPERATIONS = {"color": color, "crop": crop, "cutout": cutout, "flip": flip, "scale": scale, "rotate": rotate}
EVERY = "+".join(OPERATIONS)


def check_strategy(strategy: str | None) -> str | None:
    """A validator of an option that names operations joined by ``+`` (or ``_``, as the reference has it), or ``none``.

    Returns:
        The same, joined by ``+``.

    Raises:
        ValueError: an unknown operation, or one that is named twice.
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
    """The operations that suit the data set; all where it does not tell."""
    return problem.augmentations.get("dsa", EVERY)


def siamese(strategy: str, shape: Shape, generator: torch.Generator) -> Transform:
    """One operation with one set of parameters: the same for every image of every batch that it is applied to.

    Args:
        strategy: operations joined by ``+``, of which one is drawn.
        shape: channels, height, width.
        generator: gives all that is random, at once.

    Returns:
        A differentiable function of images (n, channels, height, width).
    """
    return per_image(strategy, shape, 1, generator)


def per_image(strategy: str, shape: Shape, count: int, generator: torch.Generator) -> Transform:
    """The same with parameters of its own for each image of a batch of ``count``."""
    names = strategy.split("+")
    chosen = names[int(torch.randint(len(names), (), generator=generator))]
    return _applied(OPERATIONS[chosen](shape, count, generator))


def dsa_augmentation(strategy: str) -> Augment:
    """The augmentation of training batches: one operation a batch, with parameters of its own for each image."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        channels, height, width = images.shape[1:]
        return per_image(strategy, (channels, height, width), len(images), generator)(images)

    return augment


def _applied(stages: Sequence[Stage]) -> Transform:
    def transform(images: Tensor) -> Tensor:
        for module, params in stages:
            rows = {name: values.expand(len(images), *values.shape[1:]) for name, values in params.items()}
            images = module(images, params=rows)
        return images

    return transform


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _integers(low: int, high: int, count: int, generator: torch.Generator) -> Tensor:
    """Whole numbers from ``low`` to ``high``, both included."""
    return torch.randint(low, high + 1, (count,), generator=generator)
