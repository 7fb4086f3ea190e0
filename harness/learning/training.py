"""Training classifiers on a small set that fits in memory."""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.compute.cuda_graphs import Stage, conditions, is_recorded
from harness.compute.lru_cache import Kept
from harness.compute.network_structure import structure_of
from harness.compute.network_traits import can_be_sliced, draws_from_global
from harness.compute.parallel import on_streams
from harness.compute.precision import Reduced
from harness.errors import DataError
from harness.learning.gradients import SLICE, GradientOfLoss, Parts, as_a_whole, in_slices, trainable
from harness.learning.recipe import Augment, Batch, Draw, Loss, Recipe, cross_entropy
from harness.learning.training_step import Stepper
from harness.types.seeds import send

_kept: Kept[tuple[Stage, Stepper] | None] = Kept()


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
    """Train ``network`` in place by ``recipe``. A GPU is waited for once, after the last epoch.

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
        Mean training loss of each epoch, to the first one that is not finite. On a CPU training stops there; a GPU,
        which is not waited for, goes on with what cannot recover.
    """
    network.train()
    gradient = in_slices if sliced and _can_be_sliced(network, images) else as_a_whole
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
    reduced: Reduced = contextlib.nullcontext,
) -> list[list[float]]:
    """Train each network in place as `train_classifier` would, with its own streams and loss, side by side on a GPU.

    A step of one small network leaves most of such a device idle, so each has a CUDA stream of its own.

    Args:
        networks: on one device; none may draw random numbers.
        images: (n, channels, height, width), the same for all.
        labels: class indices (n,) or class weights (n, classes).
        recipe: how.
        draws: the streams of each.
        losses: of a step of each.
        augment: applied to each network's batches by themselves.
        reduced: the context in which the networks run, such as autocast.

    Returns:
        Each network's mean training loss of each epoch, to the first one that is not finite.
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
    totals: list[Tensor] = []
    for epoch in range(recipe.epochs):
        step.set_rate(recipe.rate(epoch))
        orders = torch.stack([torch.randperm(len(images), generator=draw("order", epoch)) for draw in draws])
        noises = [draw("augment", epoch) for draw in draws] if augment else []
        total = images.new_zeros(len(draws))
        for index in torch.split(send(orders, images.device), sizes, dim=1):
            batch = images[index]
            if augment:
                batch = torch.stack([augment(own, noise) for own, noise in zip(batch, noises, strict=True)])
            with _one_image_is_named():
                total += step(index, batch, labels[index]) * index.shape[1]
        totals.append(total)
        if images.device.type == "cpu" and not total.isfinite().any():
            break
        if recipe.drops_after(epoch):
            step.forget()
    step.release()
    curves = torch.stack(totals).T.tolist() if totals else [[] for _ in draws]
    return [_up_to_the_first_lost([total / len(images) for total in curve]) for curve in curves]


def _has_batch_norm(network: nn.Module) -> bool:
    """Whether a step on one image may fail: batch norm has no variance of features that have come down to one pixel."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


@contextlib.contextmanager
def _one_image_is_named() -> Iterator[None]:
    """Say what to do when batch norm is asked for the variance of a single value."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        remedy = "use a larger batch or a larger set, or another norm"
        raise DataError(f"batch norm cannot train on one image whose features are one pixel: {remedy}") from error


def batch_sizes(images: int, batch: int, *, join_last: bool) -> list[int]:
    """Sizes of an epoch's batches: ``batch`` images each, and then the rest.

    Args:
        images: size of the set.
        batch: size of a batch.
        join_last: a rest of a single image joins the batch before it.
    """
    full, rest = divmod(images, batch)
    sizes = [batch] * full + [rest] * (rest > 0)
    return [*sizes[:-2], batch + 1] if join_last and rest == 1 and full else sizes


def _up_to_the_first_lost(losses: list[float]) -> list[float]:
    lost = next((epoch for epoch, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    return losses[: lost + 1]


@contextlib.contextmanager
def _steps(
    network: nn.Module, images: Tensor, recipe: Recipe, loss: Loss, gradient: GradientOfLoss, reduced: Reduced
) -> Iterator[Stepper]:
    """Steps of the network; what a GPU has recorded of them is there for the next network of this structure.

    A loss of somebody's own may hold what changes from one training to the next: it is recorded each time.
    """

    def staged() -> tuple[Stage, Stepper] | None:
        if draws_from_global(network, images[:2]):
            return None
        stage = Stage(network)
        return stage, _stepper([stage.network], recipe, [loss], gradient, reduced)

    recorded = is_recorded(images.device)
    structure = structure_of(network) if recorded else None
    if structure is None or loss is not cross_entropy:
        record = recorded and not draws_from_global(network, images[:2])
        yield _stepper([network], recipe, [loss], gradient, reduced, record=record)
        return
    optimizer = recipe.optimizer, recipe.momentum, recipe.weight_decay
    kept = _kept.fetch((structure, optimizer, conditions(images.device, reduced)), staged)
    if kept is None:
        yield _stepper([network], recipe, [loss], gradient, reduced, record=False)
        return
    stage, steps = kept
    stage.take(network)
    steps.forget()
    yield steps
    stage.give(network)


def _stepper(
    networks: Sequence[nn.Module],
    recipe: Recipe,
    losses: Sequence[Loss],
    gradient: GradientOfLoss,
    reduced: Reduced,
    *,
    record: bool = True,
) -> Stepper:
    """Steps of several networks: each batch holds a row for each."""

    def one(which: int, *batch: Tensor) -> tuple[Tensor, Parts]:
        index, images, labels = (tensor[which] for tensor in batch)
        return gradient(
            networks[which], images, lambda logits: losses[which](Batch(index, images, labels, logits)), reduced
        )

    def all_of(*batch: Tensor) -> tuple[Tensor, Parts]:
        works = [functools.partial(one, which, *batch) for which in range(len(networks))]
        told = on_streams(works, batch[1].device)
        return torch.stack([loss for loss, _ in told]), [part for _, parts in told for part in parts]

    parameters = [parameter for network in networks for parameter in trainable(network)]
    buffers = [buffer for network in networks for buffer in network.buffers()]
    return Stepper(parameters, buffers, recipe, all_of, record=record)


def _can_be_sliced(network: nn.Module, images: Tensor) -> bool:
    if images.device.type != "cpu" or len(images) <= SLICE:
        return False
    return can_be_sliced(network, images)
