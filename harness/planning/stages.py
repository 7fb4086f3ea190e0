"""The two stages of a run that chooses an option: all its values on validation, then the chosen ones on test."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from harness.planning.artifact_space import total_bytes
from harness.planning.choose_option import Choice, Group, SweptOption, nothing_swept, probed_note, swept_option
from harness.planning.plan import Plan
from harness.planning.remaining_work import RemainingWork
from harness.planning.run import Run
from harness.plugins.registry import Registry
from harness.store.store import Store


@dataclass(frozen=True, eq=False)
class Stage:
    """A run and the part of its plan that is executed."""

    run: Run
    plan: Plan

    def only(self, indices: list[int]) -> "Stage":
        """Return the stage with only these arms, by their indices in the request's whole plan."""
        return Stage(
            replace(self.run, arms=tuple(indices)), replace(self.plan, arms=[self.plan.arms[i] for i in indices])
        )


@dataclass(frozen=True, eq=False)
class Stages:
    """Both stages of a run that chooses, planned before any work, so that the second is checked before the first.

    Attributes:
        option: what is chosen.
        first: the option's values, distilled without the validation split and scored on it.
        second: every arm of the request, as it is scored on test.
    """

    option: SweptOption
    first: Stage
    second: Stage

    @classmethod
    def planned(cls, run: Run, registry: Registry) -> "Stages":
        """Plan a run that chooses.

        Raises:
            UsageError, DataError, PluginError: a name or an option is wrong, or a combination cannot work.
        """
        option = swept_option(run.request, registry)
        request = replace(run.request, score_on="validation", choose=None, keep_hold_out=False)
        exploring = replace(run, request=request)
        first, second = Stage(exploring, exploring.plan(registry)), Stage(run, run.plan(registry))
        concerned = [index for index, arm in enumerate(first.plan.arms) if option.concerns(arm)]
        stages = cls(option, first.only(concerned), second)
        if all(len(candidates) < 2 for candidates in stages._candidates.values()):
            raise nothing_swept(run.request.choose)
        return stages

    @property
    def validation(self) -> str:
        """The validation split for people, of each data set if there are several."""
        problems = dict.fromkeys(arm.source.problem for arm in self.first.plan.arms)
        if len(problems) == 1:
            return str(next(iter(problems)).hold_out)
        return "; ".join(f"{problem.name}: {problem.hold_out}" for problem in problems)

    @property
    def notes(self) -> list[str]:
        """A line if values are probed on the split by which they are chosen; none otherwise."""
        return probed_note(self.option, [arm for arm in self.first.plan.arms if self.option.concerns(arm)])

    @property
    def outcome(self) -> str:
        """A phrase on what is done with the chosen values, for people."""
        if self.second.run.file:
            return "the chosen ones are scored on test"
        if self.second.run.request.keep_hold_out:
            return "the chosen ones are scored on test, distilled without the validation split (--keep-hold-out)"
        return "the chosen ones are distilled on the whole training set and scored on test"

    def chosen(self, choice: Choice) -> Stage:
        """Return the second stage of a choice."""
        arms = self.second.plan.arms
        return self.second.only([index for index, arm in enumerate(arms) if choice.takes(arm)])

    def slowest(self, store: Store) -> RemainingWork:
        """Return the work of the second stage if in each group the slowest value is chosen."""
        return self._costliest(lambda work: work.seconds, store)

    def largest(self, store: Store) -> RemainingWork:
        """Return the work of the second stage if in each group the value is chosen that takes most room on disk."""
        return self._costliest(lambda work: total_bytes(work.demands), store)

    def _costliest(self, cost: Callable[[RemainingWork], float | None], store: Store) -> RemainingWork:
        """Return the work of the choice that costs most; an unknown cost (None) counts as the most."""

        def most(indices: list[int]) -> float:
            # Each candidate alone, and not every combination of them, whose number grows with the power of the groups.
            spent = cost(RemainingWork.of(self.second.only(indices).plan, store))
            return float("inf") if spent is None else spent

        arms = self.second.plan.arms
        costliest = [index for index, arm in enumerate(arms) if not self.option.concerns(arm)]
        costliest += [index for values in self._candidates.values() for index in max(values.values(), key=most)]
        return RemainingWork.of(self.second.only(sorted(costliest)).plan, store)

    @property
    def _candidates(self) -> Mapping[Group, Mapping[str, list[int]]]:
        """The indices of arms in the second stage's whole plan, by group and full component name."""
        grouped: dict[Group, dict[str, list[int]]] = {}
        for index, arm in enumerate(self.second.plan.arms):
            if self.option.concerns(arm):
                name = str(arm.names[self.option.kind])
                grouped.setdefault(self.option.group(arm), {}).setdefault(name, []).append(index)
        return grouped
