"""Recipes: epochs, optimiser, schedule, batches and loss of a classifier's training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Maps images (n, c, h, w) and a generator of its random numbers to augmented images of the same shape."""
Draw = Callable[[str, int], torch.Generator]
"""Returns the random stream of a role (``order``, ``augment``) at an epoch."""


@dataclass(frozen=True)
class Recipe:
    """Describes how a network is trained; the defaults are DC's evaluation (utils.py) on 32x32 images.

    Attributes:
        epochs: number of passes over the set.
        lr: initial learning rate.
        optimizer: ``sgd`` uses ``momentum``; all use ``weight_decay``.
        schedule: ``step`` multiplies the rate by 0.1 after the epoch with index (epochs - 1) // 2 + 1 and resets the
            optimiser, momentum included (DC, utils.py); ``cosine`` anneals to zero; ``constant`` does nothing.
        momentum: of ``sgd``.
        weight_decay: factor of the weights in each step.
        batch: images per step; the order is shuffled in each epoch.
    """

    epochs: int = 301
    lr: float = 0.01
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    schedule: Literal["step", "cosine", "constant"] = "step"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256

    def drops_after(self, epoch: int) -> bool:
        """Return whether the step schedule lowers the rate after the epoch with this index."""
        return self.schedule == "step" and epoch == (self.epochs - 1) // 2 + 1

    def rate(self, epoch: int) -> float:
        """Return the learning rate of the epoch with this index."""
        if self.schedule == "step":
            return self.lr * (0.1 if epoch > (self.epochs - 1) // 2 + 1 else 1.0)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.lr

    def new_optimizer(self, parameters: Sequence[nn.Parameter], *, recorded: bool = False) -> torch.optim.Optimizer:
        """Return a new optimiser of ``parameters``.

        Args:
            parameters: all on one device.
            recorded: whether its steps are going to be recorded as a CUDA graph.
        """
        # A CUDA graph repeats the numbers it was captured with. Only a rate that lies in a tensor on the device can be
        # changed between replays; Adam's step counter has to lie there too (capturable).
        rate = torch.tensor(self.lr, device=parameters[0].device) if recorded else self.lr
        if self.optimizer == "sgd":
            momentum, decay = self.momentum, self.weight_decay
            return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay, fused=True)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, rate, weight_decay=self.weight_decay, capturable=recorded)


@dataclass(frozen=True, eq=False)
class Batch:
    """Holds the data of one training step.

    Attributes:
        index: positions of the images in the set (n,).
        images: the images as augmented (n, c, h, w).
        labels: class indices (n,) or class weights (n, classes).
        logits: the network's answer (n, classes), with its graph.
    """

    index: Tensor
    images: Tensor
    labels: Tensor
    logits: Tensor


Loss = Callable[[Batch], Tensor]
"""Maps a step's data to its loss, a scalar. A GPU may record it and repeat what it did at the first step, so it may
depend only on the batch and on tensors that never change, and may not draw random numbers."""


def cross_entropy(batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a step, with class indices or class weights."""
    return functional.cross_entropy(batch.logits, batch.labels)
