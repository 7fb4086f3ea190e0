"""Plans: arms, and the cells that they need."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from harness.planning.arms import Arm
from harness.planning.set_sources import Source
from harness.planning.trajectory_source import TrajectorySource
from harness.store.cells import Cell


@dataclass(frozen=True, eq=False)
class Plan:
    """Arms, each with students 0 ... students-1 on distillations 0 ... distillations-1.

    Attributes:
        rerun_stale: treat records made by a different version of the code as missing.
        notes: the lines beneath the table, for instance of crossings that mean nothing.
        set_options: the options that were set by component (``NAME.OPTION=VALUE``): records keep them, for whoever
            wants to make a cell again.
        checkpoint_every: seconds between the checkpoints of a trajectory.
        labels: by the name of a component as tables show it, the label that the user gave it.
    """

    arms: list[Arm]
    students: int
    distillations: int
    rerun_stale: bool = False
    notes: tuple[str, ...] = ()
    set_options: tuple[str, ...] = ()
    checkpoint_every: float = 60.0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self.arms[0].source.problem.device

    @cached_property
    def sources(self) -> list[Source]:
        """The sources of the sets, each once."""
        return list(dict.fromkeys(arm.source for arm in self.arms))

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell of the plan, in the order of work, each once."""
        return list({cell.key: cell for cell, _ in self._all}.values())

    @cached_property
    def needs(self) -> Mapping[str, Sequence[Cell]]:
        """The cells that each cell needs, by its key; a set needs those that its trajectory passes before it."""
        return {cell.key: needed for cell, needed in self._all}

    @cached_property
    def _all(self) -> list[tuple[Cell, Sequence[Cell]]]:
        """Each cell of the plan, as often as an arm has it, with the cells that it needs."""
        return list(self._of_arms())

    def _of_arms(self) -> Iterator[tuple[Cell, Sequence[Cell]]]:
        for arm in self.arms:
            for distillation in range(self.distillations):
                sets: list[Cell] = []
                if isinstance(arm.source, TrajectorySource):
                    requests = arm.source.needs(distillation, arm.iterations or 0)
                    artifacts = [arm.source.artifact_cell(request) for request in requests]
                    yield from ((artifact, ()) for artifact in artifacts)
                    sets = [arm.set_cell(distillation)]
                    searched = list(self._search(arm, arm.source.search, distillation))
                    yield from searched
                    needed = [*artifacts, *self._points_before(arm, distillation), *(cell for cell, _ in searched)]
                    yield sets[0], needed
                for student in range(self.students):
                    artifact = arm.artifact_cell(distillation, student)
                    if artifact:
                        # A network on the real data needs no distilled set.
                        yield artifact, () if arm.real_network(student) else sets
                    yield arm.student_cell(distillation, student), [*sets, *([artifact] if artifact else [])]

    def _search(
        self, arm: Arm, search: TrajectorySource | None, distillation: int
    ) -> Iterator[tuple[Cell, Sequence[Cell]]]:
        """Yield the set whose probes found what an arm's set replays, with the sets before it; nothing without one."""
        if search:
            before = [search.set_cell(distillation, point) for point in self._earlier_points(arm)]
            yield search.set_cell(distillation, arm.iterations or 0), before

    def _earlier_points(self, arm: Arm) -> list[int]:
        """Return the iterations of the sets that a trajectory passes on its way to an arm's."""
        return [point for point in self._points[arm.source] if point < (arm.iterations or 0)]

    @cached_property
    def _points(self) -> Mapping[Source, Sequence[int]]:
        """By source, the iterations of all its sets, in order."""
        points: dict[Source, set[int]] = {}
        for arm in self.arms:
            points.setdefault(arm.source, set()).add(arm.iterations or 0)
        return {source: sorted(of_source) for source, of_source in points.items()}

    def _points_before(self, arm: Arm, distillation: int) -> list[Cell]:
        """Return the sets that a trajectory passes on its way to an arm's."""
        return [arm.source.set_cell(distillation, point) for point in self._earlier_points(arm)]
