"""Students of one architecture, trained side by side and scored."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.learning.machine import peak_memory, reset_peak_memory
from harness.learning.parallel import draws_globally, side_by_side
from harness.learning.recipe import Augment, Loss, Recipe, cross_entropy, train_classifier
from harness.types.distilled import DistilledSet
from harness.types.evaluator import StudentRecord
from harness.types.network import Architecture, Network
from harness.types.problem import Problem
from harness.types.seeds import Streams, global_rng_from

COLLAPSED_SHARE = 0.99
"""A student that gives one class to this share of the scored images has collapsed."""
_SCORING_SLICE = 32
"""Small enough for the activations of a slice to stay in the cache: on a CPU twice as fast as slices of 256."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What students learn from: a distilled set, a recipe, and what a step's loss is for each student.

    Attributes:
        role: the role of the streams: students of equal index and role start from the same weights in every arm.
        loss: for a student index, the loss of its steps.
    """

    distilled: DistilledSet
    recipe: Recipe
    streams: Streams
    role: str = "student"
    loss: Callable[[int], Loss] = lambda student: cross_entropy
    augment: Augment | None = None


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
        accuracy, share = score(network, problem)
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
        return train_classifier(
            network, images, labels, lesson.recipe, draw, loss=lesson.loss(student), augment=lesson.augment
        )

    if not draws_globally(network, problem):
        return network, train()
    with global_rng_from(streams.generator(f"{role}-dropout", 0, student)):
        return network, train()


def score(network: nn.Module, problem: Problem) -> tuple[float, float]:
    """Accuracy on the scored images, and the largest share of them that is given one class."""
    network.eval()
    network.to(memory_format=torch.channels_last)
    counts = torch.zeros(len(problem.classes), dtype=torch.int64)
    right = 0
    with torch.inference_mode():
        for images, labels in zip(
            torch.split(problem.score.images, _SCORING_SLICE),
            torch.split(problem.score.labels, _SCORING_SLICE),
            strict=True,
        ):
            inputs = problem.preprocessing.to_inputs(images.to(problem.device))
            predicted = network(inputs.contiguous(memory_format=torch.channels_last)).argmax(1).cpu()
            right += int((predicted == labels).sum())
            counts += torch.bincount(predicted, minlength=len(counts))
    return right / len(problem.score), int(counts.max()) / len(problem.score)


def _workers(problem: Problem, architecture: Architecture[Any]) -> int | None:
    """One where the global generator is drawn from, which belongs to the process; else as many as there are cores."""
    probe = architecture.build(problem.shape, len(problem.classes), torch.Generator())
    return 1 if draws_globally(probe.to(problem.device), problem) else None


def _tenths(losses: list[float]) -> tuple[float, ...]:
    marks = sorted({math.ceil(len(losses) * tenth / 10) - 1 for tenth in range(1, 11)})
    return tuple(losses[mark] for mark in itertools.filterfalse(lambda mark: mark < 0, marks))
