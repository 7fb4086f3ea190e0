"""How a classifier is trained on a small set that fits in memory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Augment = Callable[[Tensor, torch.Generator], Tensor]
Draw = Callable[[str, int], torch.Generator]
"""Gives the stream of a role (``order``, ``augment``) at an epoch."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: exactly this many passes over the set.
        lr: learning rate at the start.
        optimizer: ``sgd`` uses ``momentum``; all use ``weight_decay``.
        schedule: ``step`` multiplies the rate by 0.1 after the epoch with index (epochs - 1) // 2 + 1 and starts the
            optimiser afresh, momentum included (DC, utils.py); ``cosine`` anneals to zero; ``constant`` does nothing.
        batch: images a step; the order is shuffled at each epoch.
    """

    epochs: int = 301
    lr: float = 0.01
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    schedule: Literal["step", "cosine", "constant"] = "step"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256

    def drops_after(self, epoch: int) -> bool:
        """Whether the step schedule lowers the rate after the epoch with this index."""
        return self.schedule == "step" and epoch == (self.epochs - 1) // 2 + 1

    def rate(self, epoch: int) -> float:
        """Learning rate at the epoch with this index."""
        if self.schedule == "step":
            return self.lr * (0.1 if epoch > (self.epochs - 1) // 2 + 1 else 1.0)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.lr

    def new_optimizer(self, parameters: Sequence[nn.Parameter], *, recorded: bool = False) -> torch.optim.Optimizer:
        """An optimiser with no history; where its steps are recorded by a GPU, with the rate in a tensor."""
        rate = torch.tensor(self.lr, device=parameters[0].device) if recorded else self.lr
        if self.optimizer == "sgd":
            momentum, decay = self.momentum, self.weight_decay
            return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay, fused=True)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, rate, weight_decay=self.weight_decay, capturable=recorded)


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's data: ``index`` says which images of the set these are, ``images`` are as augmented."""

    index: Tensor
    images: Tensor
    labels: Tensor
    logits: Tensor


Loss = Callable[[Batch], Tensor]
"""A step's loss. A GPU may record it and repeat what it did at the first step: so it depends on the batch and tensors
that stay the same, and draws nothing."""


def cross_entropy(batch: Batch) -> Tensor:
    """Mean cross-entropy with class indices or class weights."""
    return functional.cross_entropy(batch.logits, batch.labels)
