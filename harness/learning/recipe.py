"""Training a classifier on a small set that fits in memory."""

import math
from collections.abc import Callable
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

    def new_optimizer(self, network: nn.Module, epoch: int) -> torch.optim.Optimizer:
        """An optimiser with no history, at the rate of this epoch."""
        rate, decay = self.rate(epoch), self.weight_decay
        if self.optimizer == "adam":
            return torch.optim.Adam(network.parameters(), rate, weight_decay=decay)
        if self.optimizer == "adamw":
            return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
        return torch.optim.SGD(network.parameters(), rate, momentum=self.momentum, weight_decay=decay)


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's data: ``index`` says which images of the set these are, ``images`` are as augmented."""

    index: Tensor
    images: Tensor
    labels: Tensor
    logits: Tensor


Loss = Callable[[Batch], Tensor]


def cross_entropy(batch: Batch) -> Tensor:
    """Mean cross-entropy with class indices or class weights."""
    return functional.cross_entropy(batch.logits, batch.labels)


def train_classifier(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    draw: Draw,
    *,
    loss: Loss = cross_entropy,
    augment: Augment | None = None,
) -> list[float]:
    """Train ``network`` in place by ``recipe``.

    Args:
        network: left in training mode.
        images: (n, channels, height, width).
        labels: class indices (n,) or class weights (n, classes).
        recipe: how.
        draw: the streams: ``draw("order", epoch)`` shuffles, ``draw("augment", epoch)`` augments.
        loss: of one step.
        augment: applied to each batch of images.

    Returns:
        Mean training loss of each epoch. Training stops after the first one that is not finite.
    """
    network.train()
    losses: list[float] = []
    optimizer = recipe.new_optimizer(network, 0)
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch)
        order = torch.randperm(len(images), generator=draw("order", epoch)).to(images.device)
        noise = draw("augment", epoch) if augment else None
        total = images.new_zeros(())
        for index in torch.split(order, recipe.batch):
            batch_images = augment(images[index], noise) if augment and noise else images[index]
            value = loss(Batch(index, batch_images, labels[index], network(batch_images)))
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += value.detach() * len(index)
        losses.append(float(total) / len(images))
        if not math.isfinite(losses[-1]):
            break
        if recipe.drops_after(epoch):
            optimizer = recipe.new_optimizer(network, epoch + 1)
    return losses
