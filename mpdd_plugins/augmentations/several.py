"""Several of DSA's operations on a batch, drawn without replacement (Zhong and Liu, 2023, take two)."""

import torch
from torch import Tensor

from harness import Augment
from mpdd_plugins.augmentations import dsa
from mpdd_plugins.augmentations.dsa import as_transform


def several_augmentation(strategy: str, number: int) -> Augment:
    """Return a function that augments training batches by ``number`` operations each, every image by its own draw.

    A single operation is DSA's own augmentation, draw for draw; the operations of a batch are applied in the order of
    the strategy.

    Args:
        strategy: operations joined by ``+``.
        number: of these for a batch, from 1 on; all if there are fewer.
    """
    if number == 1:
        return dsa.dsa_augmentation(strategy)
    names = strategy.split("+")

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        channels, height, width = images.shape[1:]
        drawn = sorted(torch.randperm(len(names), generator=generator)[:number].tolist())
        stages = [
            stage
            for place in drawn
            for stage in dsa.OPERATIONS[names[place]]((channels, height, width), len(images), generator)
        ]
        return as_transform(stages)(images)

    return augment
