"""Training a classifier on a small set that fits in memory."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.learning.gradients import SLICE, GradientOfLoss, Reduced, as_a_whole, in_slices, trainable
from harness.learning.probe import couples_images, draws_from_global

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
        return torch.optim.SGD(network.parameters(), rate, momentum=self.momentum, weight_decay=decay, fused=True)


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
    sliced: bool = True,
    reduced: Reduced = contextlib.nullcontext,
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
        sliced: on a CPU, let slices of a batch pass through the network side by side, one core each, where no layer
            couples images.
        reduced: the context in which the network runs, such as autocast.

    Returns:
        Mean training loss of each epoch. Training stops after the first one that is not finite.
    """
    network.train()
    gradient = in_slices if sliced and _can_be_sliced(network, images) else as_a_whole
    losses: list[float] = []
    optimizer = recipe.new_optimizer(network, 0)
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch)
        order = torch.randperm(len(images), generator=draw("order", epoch)).to(images.device)
        noise = draw("augment", epoch) if augment else None
        total = images.new_zeros(())
        for index in torch.split(order, recipe.batch):
            batch = augment(images[index], noise) if augment and noise else images[index]
            value = _set_gradient(network, batch, index, labels[index], loss, gradient, reduced)
            optimizer.step()
            total += value * len(index)
        losses.append(float(total) / len(images))
        if not math.isfinite(losses[-1]):
            break
        if recipe.drops_after(epoch):
            optimizer = recipe.new_optimizer(network, epoch + 1)
    return losses


def _set_gradient(
    network: nn.Module,
    images: Tensor,
    index: Tensor,
    labels: Tensor,
    loss: Loss,
    gradient: GradientOfLoss,
    reduced: Reduced,
) -> Tensor:
    """Give every trainable parameter the gradient of one step, and return its loss."""

    def of_logits(logits: Tensor) -> Tensor:
        return loss(Batch(index, images, labels, logits))

    value, gradients = gradient(network, images, of_logits, reduced)
    for parameter, given in zip(trainable(network), gradients, strict=True):
        parameter.grad = given
    return value


def _can_be_sliced(network: nn.Module, images: Tensor) -> bool:
    if images.device.type != "cpu" or len(images) <= SLICE:
        return False
    return not (couples_images(network, images.shape[1:], images.device) or draws_from_global(network, images[:2]))
