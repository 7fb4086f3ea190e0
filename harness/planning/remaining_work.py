"""The work that a plan still needs, as its store stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.planning.artifact_space import (
    Demand,
    check_storage,
    describe_demands,
    likely_artifacts,
    merge_demands,
    missing_demands,
)
from harness.planning.plan import Plan
from harness.planning.time_estimate import artifact_seconds, estimate_seconds, format_estimate, total_seconds
from harness.store.cell_states import CellStates, CellStatus, state_in_store, states_to_make
from harness.store.store import Store
from harness.types.plurals import counted, plural


@dataclass(frozen=True, eq=False)
class RemainingWork:
    """A plan with the states of its cells."""

    plan: Plan
    statuses: Mapping[str, CellStatus]
    store: Store | None = None
    """Where artifacts are looked up that pools which adapt ask for: they are no cells of the plan."""

    @classmethod
    def of(cls, plan: Plan, store: Store) -> "RemainingWork":
        """Return the work that is left as the store stands now."""
        return cls(plan, CellStates(plan, store).statuses(), store)

    @cached_property
    def missing(self) -> frozenset[str]:
        """Keys of the cells that have to be made and can be."""
        to_make = states_to_make(self.plan.rerun_stale)
        return frozenset(key for key, status in self.statuses.items() if status.state in to_make)

    @cached_property
    def _with_likely(self) -> frozenset[str]:
        """Keys of the cells that are missing, and of the artifacts that will probably be asked for on the way."""
        if self.store is None:
            return self.missing
        to_make, store = states_to_make(self.plan.rerun_stale), self.store
        asked = {cell.key: cell for *_, cell in likely_artifacts(self.plan, self.missing)}
        return self.missing | {key for key, cell in asked.items() if state_in_store(cell, store).state in to_make}

    def metric_notes(self, store: Store) -> list[str]:
        """Return a line on students that are there, but without a metric that is asked for."""
        again = [
            cell for cell in self.plan.cells if cell.metrics and cell.key in self.missing and store.holds(cell.key)
        ]
        if not again:
            return []
        names, count = ", ".join(again[0].metrics), len(again)
        there = f"{counted(count, 'student')} {plural(count, 'is', 'are')} there without {names}"
        return [f"{there}: trained again, with the same key and numbers, to be measured"]

    @property
    def cells(self) -> list[dict[str, str]]:
        """Every cell with its state, and the reason if it is lost."""
        return [
            {"key": cell.key, "kind": cell.kind, "state": status.state, "label": cell.label}
            | ({"reason": status.reason} if status.reason else {})
            for cell in self.plan.cells
            for status in [self.statuses[cell.key]]
        ]

    @property
    def summary(self) -> str:
        """A line with the number of missing cells, and the time that they take if there are any."""
        missing, cells = len(self.missing), len(self.plan.cells)
        count = f"{missing} of {counted(cells, 'cell')} {plural(missing, 'is', 'are')} missing"
        return f"{count}, {format_estimate(self.seconds)} on {self.plan.device}" if missing else count

    @cached_property
    def seconds(self) -> float | None:
        """Seconds that the missing cells will take; None if a component does not estimate its work."""
        return estimate_seconds(self.plan, self._with_likely)

    @cached_property
    def demands(self) -> list[Demand]:
        """The missing artifacts that come before the sets and hold networks."""
        return missing_demands(self.plan, self._with_likely)

    @property
    def artifact_seconds(self) -> float | None:
        """Seconds that the missing artifacts before the sets will take; None if one of them has no estimate."""
        return artifact_seconds(self.plan, self._with_likely)


def artifact_notes(parts: Sequence[RemainingWork], max_storage: float) -> list[str]:
    """Describe what has to be made before any set, with its room on disk and its time.

    Args:
        parts: the work of plans that share no artifact.
        max_storage: GB that new artifacts may take.

    Returns:
        One line; none if nothing of the kind is missing.

    Raises:
        UsageError: the artifacts would take more room than they may.
    """
    demands = merge_demands(demand for work in parts for demand in work.demands)
    if not demands:
        return []
    check_storage(demands, max_storage)
    seconds = total_seconds(work.artifact_seconds for work in parts)
    return [f"{describe_demands(demands)}, {format_estimate(seconds)}"]
