"""Where distilled sets come from: trajectories of a method through a pool, or a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from harness.experiment.cells import Cell, key_of
from harness.learning.networks import Resolve, mixture
from harness.plugins.registry import Resolved
from harness.plugins.source import package_digest
from harness.types.distilled import DistilledSet
from harness.types.method import Method
from harness.types.network import Architecture
from harness.types.pool import Pool
from harness.types.problem import Problem


def learning_source() -> dict[str, str]:
    """The source that every number rests on beside its components'."""
    return {"harness.learning": package_digest("harness.learning")}


class Source(Protocol):
    """One way to get distilled sets of a problem."""

    @property
    def problem(self) -> Problem:
        """The real data."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    @property
    def status(self) -> str:
        """The state of a set that the store does not hold."""
        ...

    def describe(self) -> dict[str, Any]:
        """``dataset``, ``ipc``, ``method`` and ``pool`` as they stand in tables."""
        ...

    def set_cell(self, distillation: int, iterations: int | None) -> Cell:
        """The cell of a distilled set."""
        ...


@dataclass(frozen=True, eq=False)
class TrajectorySource:
    """A method on a problem through a pool; each distillation index is a trajectory of its own.

    Attributes:
        pool: None for a method that draws no network.
        total: the last iteration asked for; it decides numbers only where the method says so.
    """

    problem: Problem
    method: Resolved[Method[Any]]
    pool: Resolved[Pool[Any]] | None
    ipc: int
    seed: int
    precision: str
    total: int
    resolve: Resolve

    @property
    def status(self) -> str:
        """A trajectory's set that is not there is missing."""
        return "missing"

    def describe(self) -> dict[str, Any]:
        """What the rows of this source have in common."""
        return {
            "dataset": self.problem.name,
            "ipc": self.ipc,
            "method": str(self.method),
            "pool": str(self.pool) if self.pool else None,
        }

    def trajectory(self, distillation: int) -> dict[str, Any]:
        """All that decides the numbers of a trajectory."""
        return {
            "problem": self.problem.fingerprint,
            "augmentations": dict(self.problem.augmentations),
            "method": self.method.identity(),
            "pool": self.pool.identity() if self.pool else None,
            "ipc": self.ipc,
            "seed": self.seed,
            "distillation": distillation,
            "precision": self.precision,
            "total": self.total if self.method.cls.uses_total else None,
        }

    def trajectory_key(self, distillation: int) -> str:
        """The key of a trajectory, whatever its length."""
        return key_of(self.trajectory(distillation))

    def set_cell(self, distillation: int, iterations: int | None) -> Cell:
        """The cell of the set after exactly ``iterations`` updates."""
        assert iterations is not None, "a trajectory's sets have a place on it"
        drawable = self.architectures_until(iterations)
        identity = {
            "trajectory": self.trajectory(distillation),
            "architectures": [architecture.identity() for architecture in drawable],
            "iterations": iterations,
        }
        through = f" through {self.pool}" if self.pool else ""
        label = (
            f"{self.method}{through} on {self.problem.name}, ipc {self.ipc}, #{distillation}, {iterations} iterations"
        )
        components: list[Resolved[Any]] = [self.method, *([self.pool] if self.pool else []), *drawable]
        sources = dict(component.source for component in components)
        return Cell("distilled", identity, label, {**sources, **learning_source()})

    def architectures_until(self, iterations: int) -> list[Resolved[Architecture[Any]]]:
        """Every architecture that the pool can draw in the first ``iterations`` iterations, in order of appearance."""
        return self._appearances[: self._counts[min(iterations, self.total) - 1]] if iterations and self._counts else []

    def drawable(self) -> list[Resolved[Architecture[Any]]]:
        """Every architecture that may be drawn, those of the first iteration even where there is none."""
        if self.pool is None or self.total:
            return self.architectures_until(self.total)
        return [architecture for architecture, _ in mixture(self.pool.cls(self.pool.options), 0, self.resolve)]

    @cached_property
    def _appearances(self) -> list[Resolved[Architecture[Any]]]:
        return list({str(a): a for drawable in self._drawable for a in drawable}.values())

    @cached_property
    def _counts(self) -> list[int]:
        """For each iteration, how many different architectures could have been drawn by its end."""
        seen: set[str] = set()
        return [len(seen := seen | {str(a) for a in drawable}) for drawable in self._drawable]

    @cached_property
    def _drawable(self) -> list[list[Resolved[Architecture[Any]]]]:
        return list(self._each_iteration()) if self.pool else []

    def _each_iteration(self) -> Iterator[list[Resolved[Architecture[Any]]]]:
        assert self.pool
        pool = self.pool.cls(self.pool.options)
        last: tuple[dict[str, float], list[Resolved[Architecture[Any]]]] = ({}, [])
        for iteration in range(self.total):
            distribution = dict(pool.distribution(iteration))
            if distribution != last[0]:
                last = (distribution, [architecture for architecture, _ in mixture(pool, iteration, self.resolve)])
            yield last[1]


@dataclass(frozen=True, eq=False)
class FileSource:
    """One distilled set that lies in a file."""

    problem: Problem
    distilled: DistilledSet
    digest: str
    name: str
    seed: int

    @property
    def status(self) -> str:
        """What the file says became of the distillation."""
        return self._told("status") or "done"

    def describe(self) -> dict[str, Any]:
        """The file's name in place of a method, unless the set says which method learned it."""
        return {
            "dataset": self.problem.name,
            "ipc": len(self.distilled.images) // len(self.distilled.classes),
            "method": self._told("method") or f"file:{self.name}{self._entry()}",
            "pool": self._told("pool"),
        }

    def _entry(self) -> str:
        """Which set of a file that holds several."""
        told = self.distilled.provenance
        return f"#{told['entry']}" if isinstance(told.get("entries"), int) and told["entries"] > 1 else ""

    def _told(self, key: str) -> str | None:
        value = self.distilled.provenance.get(key)
        return value if isinstance(value, str) else None

    def set_cell(self, distillation: int, iterations: int | None) -> Cell:
        """The cell of this very set: known by its content."""
        return Cell("distilled", {"file": self.digest}, f"{self.name}")
