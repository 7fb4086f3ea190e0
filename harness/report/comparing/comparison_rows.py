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
    """

    condition: Mapping[str, Any]
    over: str
    kind: str
    arms: Mapping[str, ArmScores]
    effects: Mapping[str, Effect]


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
    """A summary of the accuracies on several architectures in a row; ``main`` is None for the mean over all."""

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
        fields: dict[str, Any] = {}
        for condition, arms in block.arms.items():
            fields = dict(zip(block.fields, condition, strict=True))
            over = fields.pop("architecture", "")
            yield self._row(fields, over, arms)
            for label, arm in arms.items():
                by_label.setdefault(label, {})[over] = arm
        # Architectures are the arms here: there is nothing to summarise over.
        if self.question.by == "architecture":
            return
        fields.pop("protocol", None)
        summaries = [_Summary("all", "all architectures")]
        if main := self._main(by_label):
            summaries += [_Summary("others", f"all but {main}", main), _Summary("gap", f"{main} minus others", main)]
        for summary in summaries:
            yield from self._summary_rows(fields, summary, by_label)

    def _row(self, condition: Mapping[str, Any], over: str, arms: Mapping[str, ArmScores]) -> ComparisonRow:
        first = arms.get(self.baseline)
        effects = {label: self._effect(first, arm) for label, arm in arms.items() if first and label != self.baseline}
        return ComparisonRow(condition, over, "architecture", arms, effects)

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
                    effect = replace(effect, doubts=(*effect.doubts, doubt))
                effects[label] = effect
        arms = {label: arm for label, own in by_label.items() if (arm := summary.of(own))}
        if arms:
            yield ComparisonRow(condition, summary.over, summary.kind, arms, effects)

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
