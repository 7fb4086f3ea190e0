"""Room on disk for the artifacts that sets need: estimated, and refused above a limit."""

import itertools
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from harness.errors import UsageError
from harness.learning.artifacts.real_networks import RealNetwork
from harness.learning.networks.lottery import Resolve
from harness.planning.plan import Plan
from harness.planning.set_sources import Source
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.registry import Resolved
from harness.store.cells import Cell
from harness.types.artifact import ArtifactRequest
from harness.types.network import Architecture
from harness.types.problem import Problem, Shape

GB = 1e9
_FLOAT = 4


@dataclass(frozen=True)
class Demand:
    """Artifacts of one kind that are missing, of networks of one architecture."""

    kind: str
    architecture: str
    count: int
    each: int
    """Bytes."""
    is_guess: bool = False
    """Whether a pool that adapts will ask for them, so that the number is not known ahead."""

    def __str__(self) -> str:
        several, about = "s" if self.count > 1 else "", "about " if self.is_guess else ""
        return f"{about}{self.count} {self.kind}{several} of {self.architecture} ({self.each / 1e6:.1f} MB each)"


@dataclass(frozen=True, eq=False)
class MissingArtifact:
    """An artifact that has to be made for distilled sets, with what it takes to estimate it."""

    request: ArtifactRequest
    architecture: Resolved[Architecture[Any]] | None
    problem: Problem
    is_guess: bool
    """Whether a pool that adapts will probably ask for it."""

    @property
    def work(self) -> float | None:
        """Number of forward passes of one image while it is made; None if unknown."""
        return self.request.passes(self.problem) if isinstance(self.request, RealNetwork) else self.request.work


def missing_artifacts(plan: Plan, missing: Container[str]) -> Iterator[MissingArtifact]:
    """Yield every artifact that is missing and comes before the sets or on their way, once.

    These are the artifacts of methods, and the networks on the real data that pools and evaluators ask for.
    """
    seen: set[str] = set()
    known = itertools.chain(_of_methods(plan, missing), _of_evaluators(plan, missing))
    for is_guess, several in ((False, known), (True, likely_artifacts(plan, missing))):
        for source, resolve, request, cell in several:
            if cell.key not in seen:
                seen.add(cell.key)
                if cell.key in missing:
                    architecture = resolve(request.architecture) if request.architecture else None
                    yield MissingArtifact(request, architecture, source.problem, is_guess)


_Asked = tuple[Source, Resolve, ArtifactRequest, Cell]


def _of_methods(plan: Plan, missing: Container[str]) -> Iterator[_Asked]:
    """Yield the artifacts that are known to be needed for the sets that are missing."""
    for arm, distillation in itertools.product(plan.arms, range(plan.distillations)):
        source = arm.source
        # A set that is there needs its artifacts no more, even if they were removed to save room.
        if isinstance(source, TrajectorySource) and arm.set_cell(distillation).key in missing:
            for request in source.needs(distillation, arm.iterations or 0):
                yield source, source.resolve, request, source.artifact_cell(request)


def likely_artifacts(plan: Plan, missing: Container[str]) -> Iterator[_Asked]:
    """Yield the artifacts that pools which adapt will probably ask for on the way to sets that are missing.

    They are no cells of the plan: whether they are missing has to be looked up in the store.
    """
    for arm, distillation in itertools.product(plan.arms, range(plan.distillations)):
        if isinstance(arm.source, TrajectorySource) and arm.source.adapts:
            # The search is on fewer images, and so are its artifacts.
            for source in filter(None, (arm.source.search, arm.source)):
                if source.set_cell(distillation, arm.iterations).key in missing:
                    for request in source.likely_needs(distillation, arm.iterations or 0):
                        yield source, source.resolve, request, source.artifact_cell(request)


def _of_evaluators(plan: Plan, missing: Container[str]) -> Iterator[_Asked]:
    """Yield the networks on the real data that evaluators need for the students that are missing."""
    for arm in plan.arms:
        if not arm.real_networks(plan.students):
            continue
        for distillation, student in itertools.product(range(plan.distillations), range(plan.students)):
            request, cell = arm.real_network(student), arm.artifact_cell(distillation, student)
            if request and cell and arm.student_cell(distillation, student).key in missing:
                yield arm.source, arm.resolve, request, cell


def missing_demands(plan: Plan, missing: Container[str]) -> list[Demand]:
    """Return the missing artifacts that hold networks, by kind and architecture."""
    demands = []
    for asked in missing_artifacts(plan, missing):
        if asked.architecture:
            problem = asked.problem
            each = _FLOAT * asked.request.copies * weights_of(asked.architecture, problem.shape, len(problem.classes))
            demands.append(Demand(asked.request.kind, str(asked.architecture), 1, each, asked.is_guess))
    return merge_demands(demands)


def merge_demands(demands: Iterable[Demand]) -> list[Demand]:
    """Return demands that share no artifact, equal kinds, architectures and sizes counted together."""
    merged: dict[Demand, int] = {}
    for demand in demands:
        alike = replace(demand, count=0)
        merged[alike] = merged.get(alike, 0) + demand.count
    return [replace(demand, count=count) for demand, count in merged.items()]


def total_bytes(demands: Sequence[Demand]) -> int:
    """Return the number of bytes that all demanded artifacts take."""
    return sum(demand.count * demand.each for demand in demands)


def describe_demands(demands: Sequence[Demand]) -> str:
    """Return a line on the artifacts that have to be made first, with the room that they take."""
    phrases = ", ".join(str(demand) for demand in demands)
    # Where the pool adapts, they are made when they are asked for.
    when = "to make first or on the way" if any(demand.is_guess for demand in demands) else "to make first"
    return f"{when}: {phrases}; {total_bytes(demands) / GB:.2f} GB in all"


def check_storage(demands: Sequence[Demand], limit: float) -> None:
    """Raise `UsageError` if the artifacts take more than ``limit`` GB."""
    if total_bytes(demands) > limit * GB:
        remedy = "ask for fewer experts, epochs or snapshots (mtt: experts, train_epochs), or raise --max-storage"
        raise UsageError(f"{describe_demands(demands)}, more than --max-storage {limit:g}: {remedy}")


@cache
def weights_of(architecture: Resolved[Architecture[Any]], shape: Shape, classes: int) -> int:
    """Return the number of values in a network's weights and buffers, counted without memory for them."""
    # On the meta device tensors have shapes and no memory: a large network would take gigabytes only to be counted.
    with torch.device("meta"):
        network = architecture.make().build(shape, classes, torch.Generator("cpu"))
    return sum(tensor.numel() for tensor in network.state_dict().values())
