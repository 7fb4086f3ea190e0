"""What a plan still needs, as its store stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.planning.artifact_space import Demand, demands
from harness.planning.plan import Plan
from harness.planning.time_estimate import artifact_seconds, estimate_seconds
from harness.store.cell_states import Standing
from harness.store.store import Store


@dataclass(frozen=True, eq=False)
class RemainingWork:
    """A plan with the standings of its cells."""

    plan: Plan
    standings: Mapping[str, Standing]

    @classmethod
    def of(cls, plan: Plan, store: Store) -> "RemainingWork":
        """As the store stands now."""
        return cls(plan, plan.standings(store))

    @cached_property
    def missing(self) -> frozenset[str]:
        """Keys of the cells that have to be made and can be."""
        return self.plan.missing(self.standings)

    @property
    def cells(self) -> list[dict[str, str]]:
        """Every cell with its state, and the reason if it is lost."""
        return [
            {"key": cell.key, "kind": cell.kind, "state": standing.state, "label": cell.label}
            | ({"reason": standing.reason} if standing.reason else {})
            for cell in self.plan.cells
            for standing in [self.standings[cell.key]]
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
