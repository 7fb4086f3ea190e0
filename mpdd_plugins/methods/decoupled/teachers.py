"""The teachers of decoupled methods: networks of each architecture that the pool draws, trained on the real data."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from harness import Network, Networks, Options, Problem, RealNetwork, option, trained_network
from mpdd_plugins.methods.real_teacher import EPOCHS, LR, real_teacher


class TeacherOptions(Options):
    """Options of methods that need teachers; by the same values, ``soft-labels`` and ``kd`` share their weights."""

    draws: int = option(
        1, "networks that the pool draws for an iteration, whose losses are averaged", source="G-VBSM; 1: SRe2L, RDED",
        ge=1,
    )  # fmt: skip
    teachers: int = option(
        1, "trained networks of each architecture, of which an iteration takes the next for each draw", source="SRe2L",
        ge=1,
    )  # fmt: skip
    teacher_epochs: int = option(
        EPOCHS, "epochs of their training, with a cosine to zero", source="SRe2L, squeeze of CIFAR",
        alias="teacher-epochs", ge=1,
    )  # fmt: skip
    teacher_lr: float = option(
        LR, "learning rate of their training at the start", source="SRe2L, squeeze of CIFAR", alias="teacher-lr", gt=0
    )


def teacher_requests(options: TeacherOptions, architecture: str) -> list[RealNetwork]:
    """Return the requests for all teachers of an architecture."""
    epochs, lr = options.teacher_epochs, options.teacher_lr
    return [real_teacher(architecture, epochs=epochs, lr=lr, index=index) for index in range(options.teachers)]


def too_few_teachers(options: TeacherOptions, architectures: Sequence[str]) -> str | None:
    """Return why a step cannot draw so many different teachers of a pool's architectures; None if it can."""
    most = options.teachers * len(architectures)
    if options.draws <= most:
        return None
    each = math.ceil(options.draws / len(architectures))
    return (
        f"of draws={options.draws} networks at most {most} can differ, and the others would count again: set "
        f"teachers={each} or draws={most}"
    )


def drawn_teachers(options: TeacherOptions, networks: Networks, problem: Problem, first: int = 0) -> list[Network]:
    """Draw architectures from the pool, and return a teacher of each, in evaluation mode and without gradients.

    Args:
        options: say how many.
        networks: the pool's networks of this iteration.
        problem: the real data.
        first: number of the first teacher; draw k takes the one numbered first + k, round and round.
    """
    teachers = []
    for draw in range(options.draws):
        artifacts: Sequence[Any] = networks.needed(networks.draw())
        teachers.append(trained_network(artifacts[(first + draw) % len(artifacts)], problem))
    return teachers


def mean_cross_entropy(teachers: Sequence[Network], images: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each image (n,), the mean over teachers."""
    losses = [functional.cross_entropy(teacher(images), labels, reduction="none") for teacher in teachers]
    return sum(losses[1:], losses[0]) / len(losses)
