"""What a plan still needs, as its store stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.planning.artifact_space import Demand, demands
from harness.planning.plan import Plan
from harness.planning.time_estimate import artifact_seconds, estimate_seconds
from harness.store.cell_states import CellStates, CellStatus, states_to_make
from harness.store.store import Store


@dataclass(frozen=True, eq=False)
class Outlook:
    """A plan with the statuses of its cells, by key."""

    plan: Plan
    statuses: Mapping[str, CellStatus]

    @classmethod
    def of(cls, plan: Plan, store: Store) -> "Outlook":
        """As the store stands now."""
        return cls(plan, CellStates(plan, store).statuses())

    @cached_property
    def missing(self) -> frozenset[str]:
        """Keys of the cells that have to be made and can be."""
        to_make = states_to_make(self.plan.rerun_stale)
        return frozenset(key for key, status in self.statuses.items() if status.state in to_make)

    @property
    def cells(self) -> list[dict[str, str]]:
        """Every cell with its state, and the reason if it is lost."""
        return [
            {"key": cell.key, "kind": cell.kind, "state": status.state, "label": cell.label}
            | ({"reason": status.reason} if status.reason else {})
            for cell in self.plan.cells
            for status in [self.statuses[cell.key]]
        ]

    @cached_property
    def seconds(self) -> float | None:
        """What the missing cells will take; None if a component does not tell its work."""
        return estimate_seconds(self.plan, self.missing)

    @cached_property
    def demands(self) -> list[Demand]:
        """The missing artifacts that hold networks."""
        return demands(self.plan, self.missing)

    @property
    def artifact_seconds(self) -> float | None:
        """What the missing artifacts of methods will take; None if one does not tell its work."""
        return artifact_seconds(self.plan, self.missing)
