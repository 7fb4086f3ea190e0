"""Expert trajectories: a network trained on the real data, with its weights after each epoch (MTT, section 3.1)."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from harness.compute.network_traits import draws_globally
from harness.errors import DDBenchError
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
    """Train ``network`` on the training images, epoch by epoch, each kept in ``scratch`` when it is done.

    Every epoch starts the optimiser afresh, so that weights alone decide the rest: it has no momentum to lose.

    Args:
        network: as it was initialised; trained in place.
        problem: gives images and labels.
        recipe: its ``epochs`` are trained at its constant rate; momentum must be 0.
        draw: the streams of an epoch, as `train_classifier` asks for them.
        scratch: holds the epochs that an earlier try has done.
        augment: applied to each batch of images.

    Returns:
        The weights and buffers after each epoch, on the CPU, as ``"EPOCH.NAME"``, epoch 0 before any training (see
        `snapshot`), and the mean training loss of each epoch.

    Raises:
        DDBenchError: the loss is not finite.
    """
    if recipe.momentum or recipe.schedule != "constant":
        raise ValueError("an expert's recipe has no momentum and a constant rate, so that it can go on at any epoch")
    images, labels = problem.train_inputs, problem.train.labels.to(problem.device)
    drops = draws_globally(network, problem)
    snapshots, losses = _prefixed(network, 0), list[float]()
    for epoch in range(recipe.epochs):
        done = scratch.get(f"epoch-{epoch + 1}")
        if done is None:
            done = _one_epoch(network, images, labels, recipe, draw, epoch, augment, drops)
            scratch.put(f"epoch-{epoch + 1}", done)
        losses.append(float(done.pop(_LOSS)))
        if not math.isfinite(losses[-1]):
            raise DDBenchError(f"an expert's loss is {losses[-1]} in epoch {epoch + 1}: a lower learning rate may help")
        network.load_state_dict(done)
        snapshots |= {f"{epoch + 1}.{name}": tensor for name, tensor in done.items()}
    return snapshots, losses


def snapshot(tensors: Mapping[str, Tensor], epoch: int, device: torch.device) -> dict[str, Tensor]:
    """Weights and buffers by name after ``epoch`` epochs, from what `train_expert` gave."""
    prefix = f"{epoch}."
    return {name.removeprefix(prefix): tensors[name].to(device) for name in tensors if name.startswith(prefix)}


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
    """Train for one epoch; weights, buffers and the loss."""

    def now(purpose: str, _: int) -> torch.Generator:
        return draw(purpose, epoch)

    # Dropout draws from the global generator: seeded anew, an epoch is the same whichever came before in this process.
    with global_rng_from(draw("dropout", epoch)) if drops else contextlib.nullcontext():
        (loss,) = train_classifier(network, images, labels, replace(recipe, epochs=1), now, augment=augment)
    return {**_copied(network), _LOSS: torch.tensor(loss, dtype=torch.float64)}


def _copied(network: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers as they are now: copies, because a CPU tensor moved to the CPU stays the same tensor."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}


def _prefixed(network: nn.Module, epoch: int) -> dict[str, Tensor]:
    return {f"{epoch}.{name}": tensor for name, tensor in _copied(network).items()}
