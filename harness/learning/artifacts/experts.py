"""Expert trajectories: networks trained on the real data, with their weights after each epoch (MTT, section 3.1)."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.compute.network_traits import draws_globally
from harness.errors import DDBenchError
from harness.learning.named_tensors import tensors_under
from harness.learning.recipe import Augment, Draw, Recipe
from harness.learning.training import train_classifier
from harness.types.artifact import Scratch
from harness.types.problem import Problem
from harness.types.seeds import global_rng_from

_LOSS = "loss"


def train_expert(
    network: nn.Module,
    problem: Problem,
    recipe: Recipe,
    draw: Draw,
    scratch: Scratch,
    augment: Augment | None = None,
) -> tuple[dict[str, Tensor], list[float]]:
    """Train ``network`` on the training images and return its weights after each epoch (MTT, section 3.1).

    Each finished epoch goes to ``scratch``, from which an interrupted training continues bit for bit.

    Args:
        network: freshly initialised; trained in place.
        problem: provides the training images, their labels and the device.
        recipe: number of epochs, constant learning rate and batch size; momentum must be 0.
        draw: random streams of an epoch, as for `train_classifier`.
        scratch: holds the epochs that an earlier attempt has finished.
        augment: applied to each batch of images; None for none.

    Returns:
        The weights and buffers after each epoch, on the CPU, as ``"EPOCH.NAME"``, with epoch 0 before any training
        (see `snapshot`), and the mean training loss of each epoch.

    Raises:
        DDBenchError: a loss is not finite.
        ValueError: the recipe has momentum or a schedule, or counts steps or images.
    """
    # The optimiser is new in each epoch, so that weights alone decide how training continues. With momentum or a
    # schedule, a continued training would differ from one that was never interrupted.
    if recipe.momentum or recipe.schedule != "constant" or recipe.warmup:
        raise ValueError(
            "an expert's recipe needs momentum 0 and a constant rate, so that it can continue at any epoch"
        )
    if not recipe.counts_epochs:
        raise ValueError("an expert's recipe counts epochs, after each of which its weights are stored: set epochs")
    images, labels = problem.train_inputs, problem.train.labels.to(problem.device)
    drops = draws_globally(network, problem)
    snapshots, losses = _prefixed(network, 0), list[float]()
    for epoch in range(recipe.epochs):
        trained = scratch.get(f"epoch-{epoch + 1}")
        if trained is None:
            trained = _one_epoch(network, images, labels, recipe, draw, epoch, augment, drops)
            scratch.put(f"epoch-{epoch + 1}", trained)
        losses.append(float(trained.pop(_LOSS)))
        if not math.isfinite(losses[-1]):
            raise DDBenchError(f"an expert's loss is {losses[-1]} in epoch {epoch + 1}: a lower learning rate may help")
        network.load_state_dict(trained)
        snapshots |= {f"{epoch + 1}.{name}": tensor for name, tensor in trained.items()}
    return snapshots, losses


def snapshot(tensors: Mapping[str, Tensor], epoch: int, device: torch.device) -> dict[str, Tensor]:
    """Return an expert's weights and buffers by name after ``epoch`` epochs.

    Args:
        tensors: snapshots as `train_expert` returns them.
        epoch: 0 for the initial weights.
        device: where the returned tensors are.
    """
    return {name: tensor.to(device) for name, tensor in tensors_under(f"{epoch}.", tensors).items()}


def _one_epoch(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    draw: Draw,
    epoch: int,
    augment: Augment | None,
    drops: bool,
) -> dict[str, Tensor]:
    """Train for one epoch, and return weights, buffers and the mean loss."""

    def now(purpose: str, _: int) -> torch.Generator:
        return draw(purpose, epoch)

    # Dropout draws from the global generator, which is seeded here, so that an epoch does not depend on whether those
    # before it ran in this process or were read from the scratch.
    with global_rng_from(draw("dropout", epoch)) if drops else contextlib.nullcontext():
        (loss,) = train_classifier(network, images, labels, replace(recipe, epochs=1), now, augment=augment)
    return {**_copied(network), _LOSS: torch.tensor(loss, dtype=torch.float64)}


def _copied(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of the weights and buffers on the CPU."""
    # copy=True: on a CPU, `to` would return the tensor itself, and training would go on changing the snapshot.
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}


def _prefixed(network: nn.Module, epoch: int) -> dict[str, Tensor]:
    return {f"{epoch}.{name}": tensor for name, tensor in _copied(network).items()}
