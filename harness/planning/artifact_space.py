"""Room on disk for new artifacts of methods: estimated before they are made, and refused above a limit."""

import itertools
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from harness.errors import UsageError
from harness.planning.plan import Plan
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.registry import Resolved
from harness.types.artifact import ArtifactRequest
from harness.types.network import Architecture
from harness.types.problem import Shape

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

    def __str__(self) -> str:
        several = "s" if self.count > 1 else ""
        return f"{self.count} {self.kind}{several} of {self.architecture} ({self.each / 1e6:.1f} MB each)"


def missing_artifacts(plan: Plan, missing: Container[str]) -> Iterator[tuple[TrajectorySource, ArtifactRequest]]:
    """Yield every artifact that methods of the plan ask for and that is among the missing cells, once."""
    seen: set[str] = set()
    for arm, distillation in itertools.product(plan.arms, range(plan.distillations)):
        source = arm.source
        # A set that is there needs its artifacts no more, even if they were removed to save room.
        if not isinstance(source, TrajectorySource) or arm.set_cell(distillation).key not in missing:
            continue
        for request in source.needs(distillation, arm.iterations or 0):
            cell = source.artifact_cell(request)
            if cell.key not in seen:
                seen.add(cell.key)
                if cell.key in missing:
                    yield source, request


def missing_demands(plan: Plan, missing: Container[str]) -> list[Demand]:
    """Return the missing artifacts that hold networks, by kind and architecture."""
    counts: dict[tuple[str, str, int], int] = {}
    for source, request in missing_artifacts(plan, missing):
        if request.architecture:
            architecture, problem = source.resolve(request.architecture), source.problem
            each = _FLOAT * request.copies * weights_of(architecture, problem.shape, len(problem.classes))
            at = (request.kind, str(architecture), each)
            counts[at] = counts.get(at, 0) + 1
    return [Demand(kind, name, count, each) for (kind, name, each), count in counts.items()]


def merge_demands(demands: Iterable[Demand]) -> list[Demand]:
    """Return the demands of plans that share no artifact, equal kinds, architectures and sizes counted together."""
    counts: dict[tuple[str, str, int], int] = {}
    for demand in demands:
        at = (demand.kind, demand.architecture, demand.each)
        counts[at] = counts.get(at, 0) + demand.count
    return [Demand(kind, name, count, each) for (kind, name, each), count in counts.items()]


def total_bytes(demands: Sequence[Demand]) -> int:
    """Return the number of bytes that all demanded artifacts take."""
    return sum(demand.count * demand.each for demand in demands)


def describe_demands(demands: Sequence[Demand]) -> str:
    """Return a line on the artifacts that have to be made first, with the room that they take."""
    phrases = ", ".join(str(demand) for demand in demands)
    return f"to make first: {phrases}; {total_bytes(demands) / GB:.2f} GB in all"


def check_storage(demands: Sequence[Demand], limit: float) -> None:
    """Raise `UsageError` if the artifacts take more than ``limit`` GB."""
    if total_bytes(demands) > limit * GB:
        remedy = "ask for fewer or shorter ones (mtt: experts, train_epochs), or raise --max-storage"
        raise UsageError(f"{describe_demands(demands)}, more than --max-storage {limit:g}: {remedy}")


@cache
def weights_of(architecture: Resolved[Architecture[Any]], shape: Shape, classes: int) -> int:
    """Return the number of values in a network's weights and buffers, counted without memory for them."""
    # On the meta device tensors have shapes and no memory: a large network would take gigabytes only to be counted.
    with torch.device("meta"):
        network = architecture.make().build(shape, classes, torch.Generator("cpu"))
    return sum(tensor.numel() for tensor in network.state_dict().values())
