"""The plan of a study: its arms, the cells that they need, and what the store already holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from harness.experiment.arms import Arm
from harness.experiment.cells import Cell
from harness.experiment.sources import Source
from harness.experiment.store import Store
from harness.experiment.trajectories import TrajectorySource


@dataclass(frozen=True, eq=False)
class Plan:
    """Arms, each with students 0 ... students-1 on distillations 0 ... distillations-1.

    Attributes:
        rerun_stale: treat records that other source made as missing.
        notes: what has to be said beneath the table, such as crossings that mean nothing.
        given: the options that were set by component (``NAME.OPTION=VALUE``): records keep them, for whoever wants to
            make a cell again.
        checkpoint_every: seconds between the checkpoints of a trajectory.
    """

    arms: list[Arm]
    students: int
    distillations: int
    rerun_stale: bool = False
    notes: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    checkpoint_every: float = 60.0

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return self.arms[0].source.problem.device

    @cached_property
    def sources(self) -> list[Source]:
        """Where the sets come from, each once."""
        return list(dict.fromkeys(arm.source for arm in self.arms))

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell, in the order of work, each once."""
        return list({cell.key: cell for cell in self._all()}.values())

    def _all(self) -> Iterator[Cell]:
        for arm in self.arms:
            for distillation in range(self.distillations):
                if isinstance(arm.source, TrajectorySource):
                    requests = arm.source.needs(distillation, arm.iterations or 0)
                    yield from (arm.source.artifact_cell(request) for request in requests)
                    yield arm.set_cell(distillation)
                for student in range(self.students):
                    artifact = arm.artifact_cell(distillation, student)
                    if artifact:
                        yield artifact
                    yield arm.student_cell(distillation, student)

    def state(self, cell: Cell, store: Store) -> str:
        """``missing``, ``done``, or ``stale`` where other source made the record."""
        record = store.record(cell.key)
        if record is None:
            return "failed" if store.failures.get(cell.key) else "missing"
        return "stale" if cell.is_stale(record) else "done"

    def is_missing(self, cell: Cell, store: Store) -> bool:
        """Whether the cell has to be made."""
        wanted = ("missing", "stale") if self.rerun_stale else ("missing",)
        return self.state(cell, store) in wanted
