"""Rows of a comparison: one for each architecture, and summaries over architectures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.report.comparing.ambiguous_names import same_things
from harness.report.comparing.arm_scores import ArmScores, combine_arms, gap_of, mean_of_all
from harness.report.comparing.conditions import Block, blocks_of
from harness.report.comparing.effects import Effect, effect_of
from harness.report.comparing.question import Question
from harness.report.scores import Score


@dataclass(frozen=True, eq=False)
class ComparisonRow:
    """A condition, which is all that its arms have in common, with the arms and their effects.

    Attributes:
        condition: values by field, without the axis that is compared.
        over: the architecture, or the architectures that the row summarises.
        kind: one of `harness.report.comparing.question.KINDS`.
        arms: by label.
        effects: by label of the other arm.
        main: the architecture of the pools' main model; None if no student has it or pools differ.
    """

    condition: Mapping[str, Any]
    over: str
    kind: str
    arms: Mapping[str, ArmScores]
    effects: Mapping[str, Effect]
    main: str | None = None


def rows_for_verdict(rows: Sequence[ComparisonRow], label: str) -> list[ComparisonRow]:
    """Return the rows of a condition by which an arm is judged: those of the most preferred kind that has its effect.

    A pool is meant for students other than its main model, so that their mean comes first, or the only one of them.
    Without a main model it is the mean over all students, and if there is only one architecture, that.
    """
    with_effect = [row for row in rows if label in row.effects and row.kind != "gap"]
    first = min(map(_place, with_effect), default=0)
    return [row for row in with_effect if _place(row) == first]


def _place(row: ComparisonRow) -> int:
    """Return the place of a row in the order of preference."""
    if row.kind == "architecture":
        return 1 if row.main and row.over != row.main else 3
    return {"others": 0, "all": 2}[row.kind]


def rows_of(scores: Sequence[Score], question: Question, baseline: str) -> list[ComparisonRow]:
    """Return a row for every condition that has scores, with effects that are not corrected for multiple tests.

    The architectures of a condition are followed by the mean over all, the mean over all but the pool's main one, and
    the cross-architecture gap: the main one minus the others.
    """
    builder = _RowBuilder(question, baseline)
    rows = (row for block in blocks_of(scores, question.by, question.metric) for row in builder.rows(block))
    return [row for row in rows if not question.over or row.kind in question.over]


@dataclass(frozen=True)
class _Summary:
    """A summary of the accuracies on several architectures in a row; ``main`` is None if there is no main one."""

    kind: str
    over: str
    main: str | None = None

    def of(self, arms: Mapping[str, ArmScores]) -> ArmScores | None:
        """Combine the arms of a label by architecture; None if there are too few."""
        chosen = {name: arm for name, arm in arms.items() if self.kind != "others" or name != self.main}
        if len(chosen) < 2 or (self.kind == "gap" and self.main not in chosen):
            return None
        return combine_arms(chosen, gap_of(self.main) if self.kind == "gap" and self.main else mean_of_all)


@dataclass(frozen=True)
class _RowBuilder:
    question: Question
    baseline: str

    def rows(self, block: Block) -> Iterator[ComparisonRow]:
        """Build the rows of conditions that differ in the architecture only."""
        by_label: dict[str, dict[str, ArmScores]] = {}
        of_architectures: list[tuple[dict[str, Any], str, Mapping[str, ArmScores]]] = []
        for condition, arms in block.arms.items():
            fields = dict(zip(block.fields, condition, strict=True))
            over = fields.pop("architecture", "")
            of_architectures.append((fields, over, arms))
            for label, arm in arms.items():
                by_label.setdefault(label, {})[over] = arm
        main = self._main(by_label)
        yield from (self._row(*of_architecture, main) for of_architecture in of_architectures)
        # Architectures are the arms here: there is nothing to summarise over.
        if self.question.by == "architecture":
            return
        shared = {name: value for name, value in of_architectures[-1][0].items() if name != "protocol"}
        summaries = [_Summary("all", "all architectures", main)]
        if main:
            summaries += [_Summary("others", f"all but {main}", main), _Summary("gap", f"{main} minus others", main)]
        for summary in summaries:
            yield from self._summary_rows(shared, summary, by_label)

    def _row(
        self, condition: Mapping[str, Any], over: str, arms: Mapping[str, ArmScores], main: str | None
    ) -> ComparisonRow:
        first = arms.get(self.baseline)
        effects = {label: self._effect(first, arm) for label, arm in arms.items() if first and label != self.baseline}
        return ComparisonRow(condition, over, "architecture", arms, effects, main)

    def _summary_rows(
        self, condition: Mapping[str, Any], summary: _Summary, by_label: Mapping[str, Mapping[str, ArmScores]]
    ) -> Iterator[ComparisonRow]:
        first = by_label.get(self.baseline, {})
        effects = {}
        for label, own in by_label.items():
            # The mean over different architectures would compare these, not the arms.
            both = [name for name in first if name in own]
            mine, theirs = (summary.of({name: arms[name] for name in both}) for arms in (first, own))
            if label != self.baseline and mine and theirs:
                effect = self._effect(mine, theirs)
                if set(first) != set(own):
                    doubt = f"over the {len(both)} architectures that both have: {', '.join(both)}"
                    effect = replace(effect, doubts=(*effect.doubts, doubt), of_some_architectures=True)
                effects[label] = effect
        arms = {label: arm for label, own in by_label.items() if (arm := summary.of(own))}
        if arms:
            yield ComparisonRow(condition, summary.over, summary.kind, arms, effects, summary.main)

    def _effect(self, baseline: ArmScores, other: ArmScores) -> Effect:
        question = self.question
        return effect_of(baseline, other, question.level, question.bootstrap, _may_pair(baseline, other, question.by))

    def _main(self, by_label: Mapping[str, Mapping[str, ArmScores]]) -> str | None:
        """Return the pools' main architecture, preferring the baseline's; None if no student has it or pools differ."""
        of_baseline, of_all = (
            {score.main for arms in several for arm in arms.values() for score in arm.scores if score.main}
            for several in ([by_label.get(self.baseline, {})], by_label.values())
        )
        mains = of_baseline or of_all
        # Pools with different main models have no common gap.
        main = next(iter(mains)) if len(mains) == 1 else None
        return main if any(main in arms for arms in by_label.values()) else None


def _may_pair(baseline: ArmScores, other: ArmScores, by: str) -> bool:
    """Return whether equal indices of distillations mean equal random numbers on equal images."""
    # Equal seeds draw unrelated images from different data sets.
    if by == "dataset":
        return False
    if by != "store":
        return True
    theirs = {(score.architecture, score.iterations): score for score in other.scores}
    return all(
        same_things(score, theirs[at])
        for score in baseline.scores
        if (at := (score.architecture, score.iterations)) in theirs
    )
