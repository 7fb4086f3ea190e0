"""A problem so small that a step takes milliseconds, and what a component receives beside it."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.learning.artifacts.real_networks import RealNetwork, train_real_network
from harness.learning.networks.lottery import Resolve
from harness.learning.networks.pool_networks import Supply
from harness.types.artifact import Artifact, ArtifactRequest
from harness.types.data.labels import LabelKind
from harness.types.data.preprocessing import Normalize
from harness.types.data.schedule import Schedule, ScheduleStep
from harness.types.distilled import DistilledSet
from harness.types.method import Method
from harness.types.problem import Problem, Shape, Split
from harness.types.seeds import Streams


def small_split(per_class: int, *, classes: int, shape: Shape, seed: int) -> Split:
    """Return noisy images, each class with a bright band of rows of its own."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    images = torch.randint(0, 90, (len(labels), channels, height, width), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        # A band that any network can see: after a step or two, losses are neither trivial nor hopeless.
        image[:, label * height // classes : (label + 1) * height // classes] += 120
    return Split(images.to(torch.uint8), labels)


def small_problem(
    *,
    classes: int = 3,
    shape: Shape = (1, 16, 16),
    train: int = 12,
    test: int = 6,
    seed: int = 0,
    **attributes: Any,  # noqa: ANN401
) -> Problem:
    """Return a problem that any network can learn.

    Args:
        classes: at most ten.
        shape: channels, height and width of the images.
        train: number of training images of each class.
        test: number of scored images of each class.
        seed: seed of the images.
        **attributes: attributes of the problem that replace the default ones.
    """
    how: dict[str, Any] = {
        "name": "small",
        "train": small_split(train, classes=classes, shape=shape, seed=2 * seed),
        "score": small_split(test, classes=classes, shape=shape, seed=2 * seed + 1),
        "score_on": "test",
        "classes": tuple("abcdefghij"[:classes]),
        "preprocessing": Normalize("small", torch.full(shape[:1], 0.4), torch.full(shape[:1], 0.25)),
    }
    return Problem(**(how | attributes))


def small_set(
    problem: Problem,
    per_class: int = 1,
    *,
    soft: bool = False,
    step_size: float | None = None,
    kind: LabelKind | None = None,
    scheduled: bool = False,
) -> DistilledSet:
    """Return the first training images of each class as a set.

    Args:
        problem: provides the images.
        per_class: number of images of each class.
        soft: whether every class has a weight in each label, as with the kind ``soft``.
        step_size: the learning rate for students.
        kind: the kind of the labels; those of regression are centred one-hot vectors, as FRePo's and KIP's at first.
        scheduled: whether it has a schedule: one step on the first half of the images, and one on all of them.
    """
    kind = kind or ("soft" if soft else "hard")
    index = torch.cat([members[:per_class] for members in problem.of_class])
    images = problem.preprocessing.to_inputs(problem.train.images[index])
    labels = problem.train.labels[index]
    if kind == "regression":
        labels = nn.functional.one_hot(labels, len(problem.classes)).float() - 1 / len(problem.classes)
    if kind == "soft":
        # Weights 0.8 and 0.1, not one-hot: labels that were rounded back to classes would go unnoticed.
        labels = nn.functional.one_hot(labels, len(problem.classes)).float() * 0.7 + 0.1
    whole = tuple(range(len(images)))
    halves = ScheduleStep(0.02, whole[: (len(whole) + 1) // 2]), ScheduleStep(0.01, whole)
    schedule = Schedule(halves) if scheduled else None
    return DistilledSet(
        images, labels, problem.classes, problem.preprocessing, step_size, label_kind=kind, schedule=schedule
    )


class MemoryScratch(dict[str, dict[str, Tensor]]):
    """A scratch that stores the parts of an artifact in memory."""

    def put(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Store a copy of a part."""
        self[part] = {name: tensor.clone() for name, tensor in tensors.items()}


ArtifactCache = dict[tuple[str, int, str | None, str, Shape], Artifact]
"""Artifacts by kind, index, architecture, identity and the shape of the problem's images."""


def supply(
    method: Method[Any], problem: Problem, resolve: Resolve, seed: int = 0, artifacts: ArtifactCache | None = None
) -> Supply:
    """Return a supply of a method's artifacts, each made once on demand; ``artifacts`` holds those made before."""
    artifacts = {} if artifacts is None else artifacts

    def artifact_for(request: ArtifactRequest) -> Artifact:
        # As in a run, the identities of a method's own requests are not compared.
        identity = repr(request.identity) if isinstance(request, RealNetwork) else ""
        key = (request.kind, request.index, request.architecture, identity, problem.shape)
        # Made once, as in a run: two makings of one artifact would hide a method that changes it.
        if key not in artifacts:
            if isinstance(request, RealNetwork):
                artifacts[key] = real_network(request, problem, resolve, seed)
            else:
                built = resolve(request.architecture).make() if request.architecture else None
                artifact = method.make_artifact(request, problem, built, Streams(seed), MemoryScratch())
                artifacts[key] = replace(artifact, architecture=built)
        return artifacts[key]

    return lambda iteration, architecture: [artifact_for(request) for request in method.needs(iteration, architecture)]


def real_network(request: RealNetwork, problem: Problem, resolve: Resolve, seed: int = 0) -> Artifact:
    """Return the network on the real data that a component asks for, trained as in a run."""
    built = resolve(request.architecture).make()
    artifact = train_real_network(request, problem, built, Streams(seed), MemoryScratch())
    return replace(artifact, architecture=built)


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python, and restore them afterwards.

    Checks use it to show that no number depends on them.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
