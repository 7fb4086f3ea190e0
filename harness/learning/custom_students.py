"""Students that an evaluator trains by a function of its own, where `train_students` cannot describe how."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from harness.compute.machine import peak_memory, reset_peak_memory
from harness.compute.network_traits import draws_globally
from harness.compute.parallel import side_by_side
from harness.errors import PluginError
from harness.learning.networks.measuring import measurements
from harness.learning.recipe import Loss
from harness.learning.students import COLLAPSED_SHARE, Lesson, _tenths, score
from harness.learning.training import train_classifier
from harness.learning.training_step import OptimizerState
from harness.types.evaluator import StudentRecord
from harness.types.network import Network
from harness.types.problem import Problem
from harness.types.seeds import Streams, global_rng_from

Training = Callable[[int], tuple[nn.Module, list[float]]]
"""Maps the index of a student to its trained network and the mean loss of each epoch up to the first not finite."""


def train_each(
    train: Training,
    problem: Problem,
    students: Sequence[int],
    *,
    alone: bool = False,
    streams: Streams | None = None,
) -> Iterator[StudentRecord]:
    """Train and score students, and yield each record as soon as it and those before it are complete.

    On a CPU each student has a thread of its own that computes on one core, so that its numbers depend neither on the
    number of cores nor on the other students.

    Args:
        train: trains a student, in any thread; what it draws may depend on the student's index alone.
        problem: provides the scored images and the device.
        students: indices of the students, ascending.
        alone: whether students train one after the other, because their networks draw from the process-wide generator.
        streams: of the evaluation, for the metrics that a run asks for (``--metric``); None if none are measured.

    Raises:
        PluginError: metrics are to be measured, and ``train`` returned something else than a `Network`.
    """

    def record(student: int) -> StudentRecord:
        reset_peak_memory(problem.device)
        started = time.perf_counter()
        network, losses = train(student)
        accuracy, share = score(network, problem)
        collapsed = not math.isfinite(losses[-1]) or share >= COLLAPSED_SHARE
        metrics = _measured(network, problem, streams) if streams is not None and problem.metrics else {}
        seconds, peak = time.perf_counter() - started, peak_memory(problem.device)
        return StudentRecord(
            student, accuracy, losses[-1], len(losses), seconds, peak, collapsed, _tenths(losses), metrics=metrics
        )

    yield from side_by_side(record, students, problem.device, 1 if alone else None)


def _measured(network: nn.Module, problem: Problem, streams: Streams) -> dict[str, float]:
    """Return what the metrics of a run measure of a student.

    Raises:
        PluginError: it is no `Network`, whose features a metric may ask for.
    """
    if not isinstance(network, Network):
        remedy = "return a subclass of harness.Network from the function given to harness.train_each"
        raise PluginError(f"metrics cannot be measured of a {type(network).__name__}: {remedy}, or leave out --metric")
    return measurements(network, problem, streams)


class Phase(NamedTuple):
    """Epochs of a training, and what is done to the network before them."""

    epochs: range
    prepare: Callable[[], None] = lambda: None


def train_in_phases(
    network: nn.Module,
    lesson: Lesson,
    problem: Problem,
    student: int,
    phases: Sequence[Phase] = (),
    loss: Loss | None = None,
) -> list[float]:
    """Train a network that was built for a student as `train_students` would, and change it between phases.

    Args:
        network: on the problem's device; left in training mode.
        lesson: what it learns from: one recipe, which counts epochs, on the whole set in float32.
        problem: provides the device.
        student: index of the student, which determines its batches and draws.
        phases: adjacent, from the first epoch to the last; empty for a single one.
        loss: of each step; None for the lesson's.

    Returns:
        The mean training loss of each epoch up to the first one that is not finite.
    """

    def draw(purpose: str, epoch: int) -> torch.Generator:
        return lesson.streams.generator(f"{lesson.role}-{purpose}", epoch, student)

    images, labels = (tensor.to(problem.device) for tensor in lesson.distilled.training_data())
    drops, state, losses = draws_globally(network, problem), OptimizerState(), list[float]()
    with global_rng_from(draw("dropout", 0)) if drops else contextlib.nullcontext():
        for phase in phases or [Phase(range(lesson.recipe.epochs))]:
            phase.prepare()
            losses += train_classifier(
                network,
                images,
                labels,
                lesson.recipe,
                draw,
                loss=loss or lesson.loss(student),
                augment=lesson.augment,
                sliced=False,
                state=state,
                span=phase.epochs,
            )
            if not math.isfinite(losses[-1]):
                break
    return losses
