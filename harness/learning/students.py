"""Students of one architecture, trained side by side and scored."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from harness.learning.compiling import is_compiled, logits_of
from harness.learning.gradients import SLICE, Reduced
from harness.learning.machine import peak_memory, reset_peak_memory
from harness.learning.parallel import side_by_side
from harness.learning.probe import draws_globally
from harness.learning.recipe import Augment, Loss, Recipe, cross_entropy, train_classifier
from harness.types.distilled import DistilledSet
from harness.types.evaluator import StudentRecord
from harness.types.network import Architecture, Network
from harness.types.problem import Problem
from harness.types.seeds import Streams, global_rng_from

COLLAPSED_SHARE = 0.99
"""A student that gives one class to this share of the scored images has collapsed."""
Precision = Literal["fp32", "bf16-scoring", "bf16"]
"""What students compute in: bfloat16 nowhere, when they are scored, or when they are trained as well."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What students learn from: a distilled set, a recipe, and what a step's loss is for each student.

    Attributes:
        role: the role of the streams: students of equal index and role start from the same weights in every arm.
        loss: for a student index, the loss of its steps.
        precision: of training and scoring.
    """

    distilled: DistilledSet
    recipe: Recipe
    streams: Streams
    role: str = "student"
    loss: Callable[[int], Loss] = lambda student: cross_entropy
    augment: Augment | None = None
    precision: Precision = "fp32"


def train_students(
    lesson: Lesson, problem: Problem, architecture: Architecture[Any], students: Sequence[int]
) -> Iterator[StudentRecord]:
    """Train and score students, yielding each as soon as it and those before it are done.

    On a CPU each student has a thread of its own that computes on one core, so that its numbers depend neither on the
    number of cores nor on its neighbours; networks that draw from the global generator (dropout) train one by one.
    """

    def one(student: int) -> StudentRecord:
        started = time.perf_counter()
        reset_peak_memory(problem.device)
        network, losses = train_network(lesson, problem, architecture, student)
        accuracy, share = score(network, problem, lesson.precision)
        collapsed = not math.isfinite(losses[-1]) or share >= COLLAPSED_SHARE
        seconds, peak = time.perf_counter() - started, peak_memory(problem.device)
        return StudentRecord(student, accuracy, losses[-1], len(losses), seconds, peak, collapsed, _tenths(losses))

    yield from side_by_side(one, students, problem.device, _workers(problem, architecture))


def train_network(
    lesson: Lesson, problem: Problem, architecture: Architecture[Any], student: int
) -> tuple[Network, list[float]]:
    """A network of ``architecture`` trained from scratch by the lesson, and its loss at each epoch."""
    streams, role = lesson.streams, lesson.role
    network = architecture.build(problem.shape, len(problem.classes), streams.generator(role, 0, student))
    network.to(problem.device)
    images, labels = (tensor.to(problem.device) for tensor in lesson.distilled.training_data())

    def draw(purpose: str, epoch: int) -> torch.Generator:
        return streams.generator(f"{role}-{purpose}", epoch, student)

    def train() -> list[float]:
        # A student has a core of its own: slices only bring what is compiled.
        return train_classifier(
            network,
            images,
            labels,
            lesson.recipe,
            draw,
            loss=lesson.loss(student),
            augment=lesson.augment,
            sliced=is_compiled(network, images),
            reduced=_context(problem.device, lesson.precision == "bf16"),
        )

    if not draws_globally(network, problem):
        return network, train()
    with global_rng_from(streams.generator(f"{role}-dropout", 0, student)):
        return network, train()


def score(network: nn.Module, problem: Problem, precision: Precision = "fp32") -> tuple[float, float]:
    """Accuracy on the scored images, and the largest share of them that is given one class."""
    network.eval()
    counts = torch.zeros(len(problem.classes), dtype=torch.int64)
    right = 0
    with torch.inference_mode(), _context(problem.device, precision != "fp32")():
        for images, labels in zip(
            torch.split(problem.score.images, SLICE), torch.split(problem.score.labels, SLICE), strict=True
        ):
            inputs = problem.preprocessing.to_inputs(images.to(problem.device))
            predicted = logits_of(network, inputs).argmax(1).cpu()
            right += int((predicted == labels).sum())
            counts += torch.bincount(predicted, minlength=len(counts))
    return right / len(problem.score), int(counts.max()) / len(problem.score)


def _context(device: torch.device, reduced: bool) -> Reduced:
    return functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=reduced)


def _workers(problem: Problem, architecture: Architecture[Any]) -> int | None:
    """One where the global generator is drawn from, which belongs to the process; else as many as there are cores."""
    probe = architecture.build(problem.shape, len(problem.classes), torch.Generator())
    return 1 if draws_globally(probe.to(problem.device), problem) else None


def _tenths(losses: list[float]) -> tuple[float, ...]:
    marks = sorted({math.ceil(len(losses) * tenth / 10) - 1 for tenth in range(1, 11)})
    return tuple(losses[mark] for mark in itertools.filterfalse(lambda mark: mark < 0, marks))
