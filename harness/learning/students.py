"""Students: networks of one architecture, trained side by side on a distilled set and scored."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.compute.compiling import is_compiled, logits_of
from harness.compute.machine import peak_memory, reset_peak_memory
from harness.compute.network_traits import builds_drawing_networks, draws_globally
from harness.compute.parallel import SLICE, side_by_side
from harness.compute.precision import PrecisionContext
from harness.errors import DataError
from harness.learning.networks.measuring import IMAGES_AT_ONCE as SCORED_AT_ONCE
from harness.learning.networks.measuring import measurements
from harness.learning.recipe import Augment, Draw, Loss, Recipe, cross_entropy
from harness.learning.training import train_classifier, train_together
from harness.types.data.schedule import Schedule
from harness.types.distilled import DistilledSet
from harness.types.evaluator import StudentRecord
from harness.types.network import Architecture, Network
from harness.types.problem import Problem
from harness.types.seeds import Streams, global_rng_from

COLLAPSED_SHARE = 0.99
"""Share of the scored images from which on a student that assigns them one class counts as collapsed."""
BLOCK = 20
"""Most students of a block, which a GPU trains at once."""
IMAGES_AT_ONCE = 2560
"""Most images of one step of all students of a block, so that memory does not grow with the batch."""

Precision = Literal["fp32", "bf16-scoring", "bf16"]
"""Where students compute in bfloat16: nowhere, when they are scored, or when they are trained as well."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """Describes what students learn from: a distilled set, a recipe, and the loss of each student's steps.

    Attributes:
        distilled: the set, whose labels may be of any kind that the loss takes.
        recipe: epochs, optimiser and batches.
        streams: random streams of the evaluation.
        role: role of the streams. Students of equal index and role start from the same weights in every arm.
        loss: returns the loss of a student's steps from the student's index.
        augment: applied to each batch of images; None for none.
        precision: precision of training and scoring.
        by_schedule: whether an epoch consists of the steps of the set's schedule, in place of the recipe's batches and
            rates.
        by_stages: whether the whole recipe is repeated for each step of the set's schedule in turn, on the images and
            at the rate of that step, with the weights going on and a new optimiser.

    Raises:
        DataError: it is by a schedule or its stages, and the set has none.
    """

    distilled: DistilledSet
    recipe: Recipe
    streams: Streams
    role: str = "student"
    loss: Callable[[int], Loss] = lambda student: cross_entropy
    augment: Augment | None = None
    precision: Precision = "fp32"
    by_schedule: bool = False
    by_stages: bool = False

    def __post_init__(self) -> None:
        if (self.by_schedule or self.by_stages) and self.distilled.schedule is None:
            raise DataError("students are to train by the set's schedule, which this set does not have")

    @property
    def schedule(self) -> Schedule | None:
        """The steps of an epoch; None for the recipe's batches."""
        return self.distilled.schedule if self.by_schedule else None

    def stages(self, device: torch.device) -> Iterator["Stage"]:
        """Yield what is trained in turn: the stages of the schedule, or the whole set at once."""
        images, labels = (tensor.to(device) for tensor in self.distilled.training_data())
        if not self.by_stages:
            yield Stage(images, labels, self.recipe, 0)
            return
        assert self.distilled.schedule is not None, "checked when the lesson was built"
        for number, step in enumerate(self.distilled.schedule.steps):
            own = torch.tensor(step.images, device=device)
            yield Stage(images[own], labels[own], replace(self.recipe, lr=step.step_size), number * self.recipe.epochs)


@dataclass(frozen=True, eq=False)
class Stage:
    """Holds what one stage of a lesson trains on.

    Attributes:
        images: network inputs (n, c, h, w).
        labels: their labels (n, ...).
        recipe: how long and at which rate.
        first: the epochs before this stage, which number its random streams.
    """

    images: Tensor
    labels: Tensor
    recipe: Recipe
    first: int

    def draw(self, draw: Draw, purpose: str, epoch: int) -> torch.Generator:
        """Return the random stream of an epoch of this stage, from those of all epochs."""
        return draw(purpose, self.first + epoch)


def train_students(
    lesson: Lesson, problem: Problem, architecture: Architecture[Any], students: Sequence[int]
) -> Iterator[StudentRecord]:
    """Train and score students, and yield each record as soon as it and those before it are complete.

    On a CPU each student has a thread of its own that computes on one core, so that its numbers depend neither on the
    number of cores nor on the other students. On a GPU the students of a block train at once. Networks that draw from
    the process-wide generator (dropout) train one by one.

    Args:
        lesson: what the students learn from.
        problem: provides the scored images, the classes and the device.
        architecture: architecture of all students.
        students: indices of the students, ascending; each determines its initial weights and its batches.
    """
    if _in_blocks(problem, architecture):
        for block in blocks(students, block_size(lesson)):
            yield from train_block(lesson, problem, architecture, block)
        return

    def train_and_score(student: int) -> StudentRecord:
        (record,) = train_block(lesson, problem, architecture, [student])
        return record

    yield from side_by_side(train_and_score, students, problem.device, _workers(problem, architecture))


def block_size(lesson: Lesson) -> int:
    """Return the number of students of a block."""
    # It may depend on the lesson alone: which students train together decides the last bits of their numbers, so a
    # larger GPU must not change it.
    images, _ = lesson.distilled.training_data()
    return max(1, min(BLOCK, IMAGES_AT_ONCE // min(lesson.recipe.batch, len(images))))


def blocks(students: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield the requested students block by block: block k holds the indices k * size ... (k + 1) * size - 1."""
    for _, block in itertools.groupby(students, lambda student: student // size):
        yield list(block)


def train_block(
    lesson: Lesson, problem: Problem, architecture: Architecture[Any], block: Sequence[int]
) -> Iterator[StudentRecord]:
    """Train students at once and score them in turn; each record holds an equal share of the training time."""
    reset_peak_memory(problem.device)
    started = time.perf_counter()
    if len(block) == 1:
        trained = [train_network(lesson, problem, architecture, block[0])]
    else:
        trained = train_networks(lesson, problem, architecture, block)
    shared = (time.perf_counter() - started) / len(block)
    for student, (network, losses) in zip(block, trained, strict=True):
        started = time.perf_counter()
        accuracy, share = score(network, problem, lesson.precision)
        collapsed = not math.isfinite(losses[-1]) or share >= COLLAPSED_SHARE
        metrics = measurements(network, problem, lesson.streams)
        seconds, peak = shared + time.perf_counter() - started, peak_memory(problem.device)
        yield StudentRecord(
            student,
            accuracy,
            losses[-1],
            len(losses),
            seconds,
            peak,
            collapsed,
            _tenths(losses),
            len(block),
            metrics=metrics,
        )


def train_networks(
    lesson: Lesson, problem: Problem, architecture: Architecture[Any], students: Sequence[int]
) -> list[tuple[Network, list[float]]]:
    """Return what `train_network` does, for several students at once, whose networks draw no random numbers."""
    networks = [_begin(lesson, problem, architecture, student) for student in students]
    own_draws = [functools.partial(_draw, lesson, student) for student in students]
    losses = [lesson.loss(student) for student in students]
    reduced = _context(problem.device, lesson.precision == "bf16")
    curves: list[list[float]] = [[] for _ in students]
    for stage in lesson.stages(problem.device):
        draws = [functools.partial(stage.draw, draw) for draw in own_draws]
        more = train_together(
            networks, stage.images, stage.labels, stage.recipe, draws, losses, lesson.augment, reduced, lesson.schedule
        )
        curves = [curve + part if _is_finite(curve) else curve for curve, part in zip(curves, more, strict=True)]
    return list(zip(networks, curves, strict=True))


def train_network(
    lesson: Lesson, problem: Problem, architecture: Architecture[Any], student: int
) -> tuple[Network, list[float]]:
    """Train a network of ``architecture`` from scratch by the lesson.

    Args:
        lesson: what the network learns from.
        problem: provides the shape of the images, the classes and the device.
        architecture: builds the network.
        student: index of the student, which determines its initial weights and its batches.

    Returns:
        The trained network, and the mean training loss of each epoch up to the first one that is not finite.
    """
    network, draw = _begin(lesson, problem, architecture, student), functools.partial(_draw, lesson, student)

    def train() -> list[float]:
        losses: list[float] = []
        for stage in lesson.stages(problem.device):
            if not _is_finite(losses):
                break
            # A student has a core of its own, so slices cannot run side by side. They only pay for compiled code, which
            # is made for batches of at most `SLICE` images.
            losses += train_classifier(
                network,
                stage.images,
                stage.labels,
                stage.recipe,
                functools.partial(stage.draw, draw),
                loss=lesson.loss(student),
                augment=lesson.augment,
                sliced=is_compiled(network, stage.images),
                reduced=_context(problem.device, lesson.precision == "bf16"),
                schedule=lesson.schedule,
            )
        return losses

    if not draws_globally(network, problem):
        return network, train()
    # Dropout draws from the process-wide generator, whichever student trained before.
    with global_rng_from(lesson.streams.generator(f"{lesson.role}-dropout", 0, student)):
        return network, train()


def _is_finite(losses: Sequence[float]) -> bool:
    """Return whether a training may go on: its last loss, if any, is finite."""
    return not losses or math.isfinite(losses[-1])


def _begin(lesson: Lesson, problem: Problem, architecture: Architecture[Any], student: int) -> Network:
    generator = lesson.streams.generator(lesson.role, 0, student)
    return architecture.build(problem.shape, len(problem.classes), generator).to(problem.device)


def _draw(lesson: Lesson, student: int, purpose: str, epoch: int) -> torch.Generator:
    return lesson.streams.generator(f"{lesson.role}-{purpose}", epoch, student)


def score(network: nn.Module, problem: Problem, precision: Precision = "fp32") -> tuple[float, float]:
    """Return the accuracy on the scored images, and the largest share of them that is assigned one class.

    Args:
        network: switched to evaluation mode.
        problem: provides the scored images and the device.
        precision: bfloat16 unless ``fp32``.

    Returns:
        Two numbers in [0, 1].
    """
    network.eval()
    here = problem.resident
    compiled = problem.device.type == "cpu" and is_compiled(network, here.score.images)
    slices = torch.split(here.score.images, SLICE if compiled else SCORED_AT_ONCE[problem.device.type])
    with torch.inference_mode(), _context(problem.device, precision != "fp32")():
        inputs = (here.preprocessing.to_inputs(part.to(problem.device)) for part in slices)
        # To the CPU at the end only: each transfer would wait for the GPU before the next part is launched.
        predicted = torch.cat([logits_of(network, part).argmax(1) for part in inputs]).cpu()
    right = int((predicted == problem.score.labels).sum())
    counts = torch.bincount(predicted, minlength=len(problem.classes))
    return right / len(problem.score), int(counts.max()) / len(problem.score)


@functools.cache
def _context(device: torch.device, reduced: bool) -> PrecisionContext:
    return functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=reduced)


def _in_blocks(problem: Problem, architecture: Architecture[Any]) -> bool:
    """Return whether students train at once; on a CPU, one student is work enough for a core."""
    return problem.device.type != "cpu" and not builds_drawing_networks(architecture, problem)


def _workers(problem: Problem, architecture: Architecture[Any]) -> int | None:
    """Return 1 if the network uses the process-wide generator (dropout); otherwise None, one worker per core."""
    return 1 if builds_drawing_networks(architecture, problem) else None


def _tenths(losses: list[float]) -> tuple[float, ...]:
    """Return the losses after each tenth of the epochs, each epoch at most once."""
    marks = sorted({math.ceil(len(losses) * tenth / 10) - 1 for tenth in range(1, 11)})
    return tuple(losses[mark] for mark in itertools.filterfalse(lambda mark: mark < 0, marks))
