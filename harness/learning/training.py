"""Training of classifiers on a set that fits in memory."""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
from harness.learning.gradients import GradientOfLoss, Parts, as_a_whole, flat, in_slices, trainable
from harness.learning.recipe import (
    Augment,
    Batch,
    Draw,
    DrawingLoss,
    Loss,
    Recipe,
    augmented,
    cross_entropy,
    squared_error,
)
from harness.learning.training_step import OptimizerState, Stepper
from harness.types.data.schedule import Schedule
from harness.types.seeds import send

_recorded_steps: LruCache[tuple[SharedNetwork, Stepper] | None] = LruCache()
"""Stages with recorded steps, by structure of the network and optimiser. It belongs to the process, because recordings
hold memory of the device, and the networks of a run come from many places."""

STEPS_WORTH_RECORDING = 10
"""Fewest steps of a call that are recorded if no later call can use the recording, which costs about three steps."""


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
    state: OptimizerState | None = None,
    span: range | None = None,
    schedule: Schedule | None = None,
) -> list[float]:
    """Train ``network`` in place by ``recipe``.

    The call waits for a GPU once, after the last epoch. A training can be divided among calls: with one ``state`` and
    adjacent spans, they do what a single call would.

    Args:
        network: left in training mode.
        images: network inputs (n, c, h, w).
        labels: class indices (n,), class weights (n, classes) or real values (n, outputs), as the loss takes them.
        recipe: length, optimiser, schedule and batch size.
        draw: random streams: ``draw("order", epoch)`` shuffles, ``draw("augment", epoch)`` augments, and
            ``draw("loss", epoch)`` is the loss's if it draws; `Draw` says what they are of a recipe that counts steps.
        loss: loss of one step.
        augment: applied to each batch of images; None for none.
        sliced: on a CPU, let slices of a batch pass through the network side by side, one core each, if no layer
            couples images.
        reduced: context in which the network runs, such as autocast.
        state: what the optimiser remembers from an earlier call, replaced by what it remembers at the end; None for a
            new optimiser that is forgotten.
        span: the epochs of the recipe that this call trains, or the steps if it counts these or images; None for all.
        schedule: the steps of an epoch in their order, each on its own images and at its own rate, in place of the
            recipe's batches and rates; None for the recipe's.

    Returns:
        Mean training loss of each epoch, of which the first and the last may be parts if the recipe counts steps or
        images, up to the first one that is not finite. On a CPU training stops there; a GPU,
        whose losses are read at the end only, finishes the epochs, from which such weights cannot recover.

    Raises:
        DataError: batch norm meets a batch of one image whose features are a single pixel.
        ValueError: the state belongs to another network or optimiser, or the span is not within the recipe.
    """
    network.train()
    gradient = in_slices if sliced and is_worth_slicing(network, images) else as_a_whole
    brief = span is not None and not recipe.counts_epochs and len(span) < STEPS_WORTH_RECORDING
    with _steps(network, images, recipe, loss, gradient, reduced, brief=brief) as step:
        sizes = _sizes(len(images), recipe, schedule, join_last=_has_batch_norm(network))
        if state is not None:
            step.load(state)
        (losses,) = _train(_Course(step, images, labels, sizes, recipe, [draw], [loss], augment, schedule), span)
        if state is not None:
            state.tensors = step.save().tensors
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
    schedule: Schedule | None = None,
) -> list[list[float]]:
    """Train each network in place as `train_classifier` would, side by side on a GPU.

    A step of one small network leaves most of a GPU idle, so each network has a CUDA stream of its own.

    Args:
        networks: all on one device; none may draw random numbers.
        images: network inputs (n, c, h, w), the same for all networks.
        labels: class indices (n,), class weights (n, classes) or real values (n, outputs), as the losses take them.
        recipe: epochs, optimiser, schedule and batch size.
        draws: random streams of each network.
        losses: loss of a step of each network.
        augment: applied to each network's batches separately; None for none.
        reduced: context in which the networks run, such as autocast.
        schedule: the steps of an epoch, as `train_classifier` takes them.

    Returns:
        Each network's mean training loss of each epoch, up to the first one that is not finite.
    """
    for network in networks:
        network.train()
    step = _stepper(networks, recipe, losses, as_a_whole, reduced)
    sizes = _sizes(len(images), recipe, schedule, join_last=any(map(_has_batch_norm, networks)))
    return _train(_Course(step, images, labels, sizes, recipe, draws, losses, augment, schedule))


_Streams = tuple[Sequence[torch.Generator], Sequence[torch.Generator]]
"""Random streams of augmentations and of losses, one for each network; none if there is nothing to draw."""


@dataclass(frozen=True, eq=False)
class _Course:
    """Holds what the steps of a training share.

    Attributes:
        step: takes a step of all networks.
        images: network inputs (n, c, h, w).
        labels: labels of the images, n rows.
        sizes: numbers of images of an epoch's batches.
        recipe: length and schedule.
        draws: random streams of each network.
        losses: loss of each network.
        augment: applied to each network's batches; None for none.
        schedule: the steps of an epoch; None if batches are drawn.
    """

    step: Stepper
    images: Tensor
    labels: Tensor
    sizes: Sequence[int]
    recipe: Recipe
    draws: Sequence[Draw]
    losses: Sequence[Loss]
    augment: Augment | None
    schedule: Schedule | None

    def batches(self, epoch: int) -> Sequence[Tensor]:
        """Return the indices (networks, n) of the images of each step of an epoch: the schedule's, or random ones."""
        device = self.images.device
        if self.schedule is not None:
            owned = (torch.tensor([step.images] * len(self.draws)) for step in self.schedule.steps)
            return [send(index, device) for index in owned]
        orders = [torch.randperm(len(self.images), generator=draw("order", epoch)) for draw in self.draws]
        return torch.split(send(torch.stack(orders), device), list(self.sizes), dim=1)

    def begin(self, unit: int, length: int) -> _Streams:
        """Set the rate of an epoch (or step) of so many, and return its random streams."""
        self.step.set_rate(self.recipe.rate(unit, length))
        noises = [draw("augment", unit) for draw in self.draws] if self.augment else []
        return noises, [draw("loss", unit) for draw in self.draws] if _all_draw(self.losses) else []

    def end(self, unit: int, length: int) -> None:
        """Reset the optimiser if the schedule does so after this epoch (or step) of so many."""
        if self.recipe.drops_after(unit, length):
            self.step.forget()

    def take(self, index: Tensor, streams: _Streams) -> Tensor:
        """Take a step on the images at ``index`` (networks, n), and return the sums of losses (networks,)."""
        noises, chances = streams
        images, labels = self.images[index], self.labels[index]  # (networks, n, c, h, w) and (networks, n, ...)
        if self.augment:
            rows = zip(images, labels, noises, strict=True)
            images, labels = map(torch.stack, zip(*(augmented(self.augment, *row) for row in rows), strict=True))
        numbers = [
            loss.draw(index.shape[1], chance)
            for loss, chance in zip(self.losses, chances, strict=False)  # no streams if no loss draws
            if isinstance(loss, DrawingLoss)
        ]
        batch = [index, images, labels]
        if numbers:
            batch.append(send(torch.stack(numbers), images.device))
        with _explain_batch_norm_error():
            return self.step(*batch) * index.shape[1]


def _train(course: _Course, span: range | None = None) -> list[list[float]]:
    """Train all networks, and return each one's mean loss of each epoch up to the first one that is not finite."""
    recipe, device, by_epoch = course.recipe, course.images.device, course.recipe.counts_epochs
    length = recipe.units(course.sizes)
    totals: list[Tensor] = []  # of each epoch (networks,); they stay on the device, since reading one waits for it
    counts: list[int] = []
    for epoch, places in _epochs(_checked(span, length), len(course.sizes), by_epoch=by_epoch):
        batches = course.batches(epoch)
        total, count = course.images.new_zeros(len(course.draws)), 0
        if by_epoch:
            streams = course.begin(epoch, length)
        for place in places:
            step = epoch * len(batches) + place
            # Streams of each step: a training that continues within an epoch draws what an undivided one would.
            if not by_epoch:
                streams = course.begin(step, length)
            if course.schedule is not None:
                course.step.set_rate(course.schedule.steps[place].step_size)
            total += course.take(batches[place], streams)
            count += batches[place].shape[1]
            if not by_epoch:
                course.end(step, length)
        totals.append(total)
        counts.append(count)
        # On a GPU the question alone would make the host wait for all of the epoch's steps.
        if device.type == "cpu" and not total.isfinite().any():
            break
        if by_epoch:
            course.end(epoch, length)
    course.step.release()
    curves = torch.stack(totals).T.tolist() if totals else [[] for _ in course.draws]
    means = [[total / count for total, count in zip(curve, counts, strict=True)] for curve in curves]
    return [_up_to_the_first_lost(curve) for curve in means]


def _checked(span: range | None, length: int) -> range:
    """Return the epochs (or steps) to train.

    Raises:
        ValueError: the recipe does not have them all.
    """
    if span is None:
        return range(length)
    if span.step != 1 or span.start < 0 or span.stop > length:
        raise ValueError(f"{span} is not a span of the recipe's {length} epochs or steps")
    return span


def _epochs(units: range, steps: int, *, by_epoch: bool) -> Iterator[tuple[int, range]]:
    """Yield the index of each epoch, and the places in it of the batches to train on.

    Args:
        units: epochs or steps, by their indices.
        steps: number of steps of an epoch.
        by_epoch: whether the units are epochs.
    """
    if by_epoch:
        yield from ((epoch, range(steps)) for epoch in units)
        return
    for epoch in range(units.start // steps, math.ceil(units.stop / steps)) if units else ():
        first = epoch * steps
        yield epoch, range(max(units.start - first, 0), min(units.stop - first, steps))


def _all_draw(losses: Sequence[Loss]) -> bool:
    """Return whether the losses draw random numbers.

    Raises:
        ValueError: some do and some do not.
    """
    drawing = {isinstance(loss, DrawingLoss) for loss in losses}
    if len(drawing) > 1:
        raise ValueError("networks that train together need losses that all draw random numbers, or none that does")
    return drawing == {True}


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


def _sizes(images: int, recipe: Recipe, schedule: Schedule | None, *, join_last: bool) -> list[int]:
    """Return the numbers of images of the steps of an epoch."""
    if schedule is None:
        return batch_sizes(images, recipe.batch, join_last=join_last)
    schedule.check(images)
    return [len(step.images) for step in schedule.steps]


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
    network: nn.Module,
    images: Tensor,
    recipe: Recipe,
    loss: Loss,
    gradient: GradientOfLoss,
    reduced: PrecisionContext,
    *,
    brief: bool,
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
    if structure is None or loss not in (cross_entropy, squared_error):
        record = recorded and not brief and not draws_from_global(network, images[:2])
        yield _stepper([network], recipe, [loss], gradient, reduced, record=record)
        return
    optimizer = recipe.optimizer, recipe.momentum, recipe.weight_decay, recipe.flat_radius, recipe.flat_gap
    staged_steps = _recorded_steps.fetch((structure, loss, optimizer, torch_modes(images.device, reduced)), staged)
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
    if recipe.flat_radius:
        gradient = flat(gradient, recipe.flat_radius, recipe.flat_gap)

    def gradient_of_network(which: int, *batch: Tensor) -> tuple[Tensor, Parts]:
        index, images, labels, *numbers = (tensor[which] for tensor in batch)
        return gradient(
            networks[which],
            images,
            lambda logits: losses[which](Batch(index, images, labels, logits, *numbers)),
            reduced,
        )

    def all_of(*batch: Tensor) -> tuple[Tensor, Parts]:
        works = [functools.partial(gradient_of_network, which, *batch) for which in range(len(networks))]
        results = on_streams(works, batch[1].device)
        return torch.stack([loss for loss, _ in results]), [part for _, parts in results for part in parts]

    parameters = [parameter for network in networks for parameter in trainable(network)]
    buffers = [buffer for network in networks for buffer in network.buffers()]
    return Stepper(parameters, buffers, recipe, all_of, record=record)
