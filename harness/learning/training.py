"""Training of classifiers on a set that fits in memory."""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.compute.cuda_graphs import SharedNetwork, is_recorded, torch_modes
from harness.compute.lru_cache import LruCache
from harness.compute.network_structure import structure_of
from harness.compute.network_traits import draws_from_global, is_worth_slicing
from harness.compute.parallel import on_streams
from harness.compute.precision import PrecisionContext
from harness.errors import DataError
from harness.learning.gradients import GradientOfLoss, Parts, as_a_whole, in_slices, trainable
from harness.learning.recipe import Augment, Batch, Draw, Loss, Recipe, cross_entropy
from harness.learning.training_step import Stepper
from harness.types.seeds import send

_recorded_steps: LruCache[tuple[SharedNetwork, Stepper] | None] = LruCache()
"""Stages with recorded steps, by structure of the network and optimiser. It belongs to the process, because recordings
hold memory of the device, and the networks of a run come from many places."""


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
    reduced: PrecisionContext = contextlib.nullcontext,
) -> list[float]:
    """Train ``network`` in place by ``recipe``.

    The call waits for a GPU once, after the last epoch.

    Args:
        network: left in training mode.
        images: network inputs (n, c, h, w).
        labels: class indices (n,) or class weights (n, classes).
        recipe: epochs, optimiser, schedule and batch size.
        draw: random streams: ``draw("order", epoch)`` shuffles, ``draw("augment", epoch)`` augments.
        loss: loss of one step.
        augment: applied to each batch of images; None for none.
        sliced: on a CPU, let slices of a batch pass through the network side by side, one core each, if no layer
            couples images.
        reduced: context in which the network runs, such as autocast.

    Returns:
        Mean training loss of each epoch, up to the first one that is not finite. On a CPU training stops there; a GPU,
        whose losses are read at the end only, finishes the epochs, from which such weights cannot recover.

    Raises:
        DataError: batch norm meets a batch of one image whose features are a single pixel.
    """
    network.train()
    gradient = in_slices if sliced and is_worth_slicing(network, images) else as_a_whole
    with _steps(network, images, recipe, loss, gradient, reduced) as step:
        sizes = batch_sizes(len(images), recipe.batch, join_last=_has_batch_norm(network))
        (losses,) = _train(step, images, labels, sizes, recipe, [draw], augment)
    return losses


def train_together(
    networks: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    draws: Sequence[Draw],
    losses: Sequence[Loss],
    augment: Augment | None = None,
    reduced: PrecisionContext = contextlib.nullcontext,
) -> list[list[float]]:
    """Train each network in place as `train_classifier` would, side by side on a GPU.

    A step of one small network leaves most of a GPU idle, so each network has a CUDA stream of its own.

    Args:
        networks: all on one device; none may draw random numbers.
        images: network inputs (n, c, h, w), the same for all networks.
        labels: class indices (n,) or class weights (n, classes).
        recipe: epochs, optimiser, schedule and batch size.
        draws: random streams of each network.
        losses: loss of a step of each network.
        augment: applied to each network's batches separately; None for none.
        reduced: context in which the networks run, such as autocast.

    Returns:
        Each network's mean training loss of each epoch, up to the first one that is not finite.
    """
    for network in networks:
        network.train()
    step = _stepper(networks, recipe, losses, as_a_whole, reduced)
    sizes = batch_sizes(len(images), recipe.batch, join_last=any(map(_has_batch_norm, networks)))
    return _train(step, images, labels, sizes, recipe, draws, augment)


def _train(
    step: Stepper,
    images: Tensor,
    labels: Tensor,
    sizes: list[int],
    recipe: Recipe,
    draws: Sequence[Draw],
    augment: Augment | None,
) -> list[list[float]]:
    totals: list[Tensor] = []  # of each epoch (networks,); they stay on the device, since reading one waits for it
    for epoch in range(recipe.epochs):
        step.set_rate(recipe.rate(epoch))
        orders = torch.stack([torch.randperm(len(images), generator=draw("order", epoch)) for draw in draws])
        noises = [draw("augment", epoch) for draw in draws] if augment else []
        total = images.new_zeros(len(draws))
        for index in torch.split(send(orders, images.device), sizes, dim=1):
            batch = images[index]  # index (networks, n), so (networks, n, c, h, w)
            if augment:
                batch = torch.stack([augment(own, noise) for own, noise in zip(batch, noises, strict=True)])
            with _explain_batch_norm_error():
                total += step(index, batch, labels[index]) * index.shape[1]
        totals.append(total)
        # On a GPU the question alone would make the host wait for all of the epoch's steps.
        if images.device.type == "cpu" and not total.isfinite().any():
            break
        if recipe.drops_after(epoch):
            step.forget()
    step.release()
    curves = torch.stack(totals).T.tolist() if totals else [[] for _ in draws]
    return [_up_to_the_first_lost([total / len(images) for total in curve]) for curve in curves]


def _has_batch_norm(network: nn.Module) -> bool:
    """Return whether a step on a single image may fail, because batch norm needs two values for a variance."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


@contextlib.contextmanager
def _explain_batch_norm_error() -> Iterator[None]:
    """Turn torch's error about the variance of a single value into one that names the remedy."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        remedy = "use a larger batch or a larger set, or another norm"
        raise DataError(f"batch norm cannot train on one image whose features are one pixel: {remedy}") from error


def batch_sizes(images: int, batch: int, *, join_last: bool) -> list[int]:
    """Return the sizes of an epoch's batches: ``batch`` images each, and then the rest.

    Args:
        images: number of images of the set.
        batch: number of images of a batch.
        join_last: whether a rest of a single image joins the batch before it.
    """
    full, rest = divmod(images, batch)
    sizes = [batch] * full + [rest] * (rest > 0)
    return [*sizes[:-2], batch + 1] if join_last and rest == 1 and full else sizes


def _up_to_the_first_lost(losses: list[float]) -> list[float]:
    lost = next((epoch for epoch, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    return losses[: lost + 1]


@contextlib.contextmanager
def _steps(
    network: nn.Module, images: Tensor, recipe: Recipe, loss: Loss, gradient: GradientOfLoss, reduced: PrecisionContext
) -> Iterator[Stepper]:
    """Provide the steps of a network; recordings of them are reused for the next network of the same structure."""

    def staged() -> tuple[SharedNetwork, Stepper] | None:
        if draws_from_global(network, images[:2]):
            return None
        stage = SharedNetwork(network)
        return stage, _stepper([stage.network], recipe, [loss], gradient, reduced)

    recorded = is_recorded(images.device)
    structure = structure_of(network) if recorded else None
    # A custom loss may hold tensors that change from one training to the next (a teacher's logits), which a recording
    # would not notice: its steps are recorded anew in each training.
    if structure is None or loss is not cross_entropy:
        record = recorded and not draws_from_global(network, images[:2])
        yield _stepper([network], recipe, [loss], gradient, reduced, record=record)
        return
    optimizer = recipe.optimizer, recipe.momentum, recipe.weight_decay
    staged_steps = _recorded_steps.fetch((structure, optimizer, torch_modes(images.device, reduced)), staged)
    if staged_steps is None:
        yield _stepper([network], recipe, [loss], gradient, reduced, record=False)
        return
    stage, steps = staged_steps
    # A recording reads and writes fixed addresses, those of the stage: the weights go there for the training and back.
    stage.load_from(network)
    steps.forget()
    yield steps
    stage.store_to(network)


def _stepper(
    networks: Sequence[nn.Module],
    recipe: Recipe,
    losses: Sequence[Loss],
    gradient: GradientOfLoss,
    reduced: PrecisionContext,
    *,
    record: bool = True,
) -> Stepper:
    """Return the steps of several networks; the tensors of a batch hold one row for each network."""

    def gradient_of_network(which: int, *batch: Tensor) -> tuple[Tensor, Parts]:
        index, images, labels = (tensor[which] for tensor in batch)
        return gradient(
            networks[which], images, lambda logits: losses[which](Batch(index, images, labels, logits)), reduced
        )

    def all_of(*batch: Tensor) -> tuple[Tensor, Parts]:
        works = [functools.partial(gradient_of_network, which, *batch) for which in range(len(networks))]
        results = on_streams(works, batch[1].device)
        return torch.stack([loss for loss, _ in results]), [part for _, parts in results for part in parts]

    parameters = [parameter for network in networks for parameter in trainable(network)]
    buffers = [buffer for network in networks for buffer in network.buffers()]
    return Stepper(parameters, buffers, recipe, all_of, record=record)
