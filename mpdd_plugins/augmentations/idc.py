"""IDC's augmentation (Kim et al., ICML 2022, augment.py): flip, colour, one of three warps, cutout, and CutMix.

The operations are DSA's; IDC applies several of them: flip and colour always if the strategy names them, then one of
its crop, scale and rotate, drawn for the whole batch, and then cutout. For matching, a siamese transform has one set of
parameters for all images; in training, every image has its own. All operations act on normalised images (n, c, h, w).
CutMix follows in training, on half of the batches with a uniform share.
"""

import torch
from torch import Tensor

from harness import Augment, Composed, CutMix, Problem, Shape
from mpdd_plugins.augmentations import dsa
from mpdd_plugins.augmentations.dsa import Stage, Transform, as_transform

WARPS = ("crop", "scale", "rotate")
"""Operations of which one is drawn for each batch."""
OPERATIONS = ("flip", "color", *WARPS, "cutout", "cutmix")
"""Operations in the order in which they are applied."""
MIXED = 0.5
"""Share of the batches that CutMix changes."""


def check_strategy(strategy: str | None) -> str | None:
    """Validate an option that names operations joined by ``+`` (or ``_``, as in IDC's code), or ``none``.

    Returns:
        The same operations in the order in which they are applied, joined by ``+``; None stands for the data set's own.

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
    return "+".join(sorted(names, key=OPERATIONS.index))


def check_matched(strategy: str | None) -> str | None:
    """Validate an option as `check_strategy` does, for images that are matched: without CutMix."""
    checked = check_strategy(strategy)
    if "cutmix" in (checked or "").split("+"):
        raise ValueError("cutmix changes labels, so that it is for augment_net only")
    return checked


def own_strategy(problem: Problem) -> str:
    """Return the operations of students' training that suit the data set: DSA's for it without cutout, and CutMix.

    Grey images that are not mirrored get no CutMix, as MNIST gets none in IDC's evaluation.
    """
    if "idc" in problem.augmentations:
        return problem.augmentations["idc"]
    suited = dsa.own_strategy(problem).split("+")
    if suited == ["none"]:
        return "none"
    mixed = is_mixed(problem)
    return "+".join(
        name for name in OPERATIONS if (name == "cutmix" and mixed) or (name in suited and name != "cutout")
    )


def is_mixed(problem: Problem) -> bool:
    """Return whether CutMix suits the data set: not if its images are grey and never mirrored, as MNIST's."""
    return "flip" in dsa.own_strategy(problem).split("+") or problem.shape[0] > 1


def siamese(strategy: str, shape: Shape, generator: torch.Generator) -> Transform:
    """Draw one set of parameters, the same for all images of all batches.

    Args:
        strategy: operations joined by ``+``, without CutMix.
        shape: shape of an image (c, h, w).
        generator: source of all random numbers, which are drawn at once.

    Returns:
        A differentiable function of images (n, c, h, w), which draws nothing when it is called.

    Raises:
        ValueError: the strategy has CutMix, which changes labels.
    """
    return per_image(strategy, shape, 1, generator)


def per_image(strategy: str, shape: Shape, count: int, generator: torch.Generator) -> Transform:
    """Draw separate parameters for each image of a batch of ``count``, and one warp for the batch; see `siamese`."""
    names = strategy.split("+")
    if "cutmix" in names:
        raise ValueError("cutmix changes labels too: use it in training only")
    warps = [name for name in WARPS if name in names]
    chosen = warps[int(torch.randint(len(warps), (), generator=generator))] if warps else None
    stages: list[Stage] = []
    for name in OPERATIONS:
        if name in names and (name not in WARPS or name == chosen):
            stages += dsa.OPERATIONS[name](shape, count, generator)
    return as_transform(stages)


def idc_augmentation(strategy: str, classes: int) -> Augment:
    """Return a function that augments training batches, each image with parameters of its own.

    Args:
        strategy: operations joined by ``+``; with CutMix, the result sees labels and returns class weights.
        classes: number of classes.
    """
    names = strategy.split("+")
    of_images = "+".join(name for name in names if name != "cutmix")

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        channels, height, width = images.shape[1:]
        return per_image(of_images, (channels, height, width), len(images), generator)(images)

    return Composed(augment, CutMix(classes, MIXED)) if "cutmix" in names else augment
