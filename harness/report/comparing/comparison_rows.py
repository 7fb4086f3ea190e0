"""Rows of a comparison: each architecture's, and those that sum up over architectures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.report.comparing.ambiguous_names import same_things
from harness.report.comparing.arm_scores import ArmScores, combined, gap_of, mean_of_all
from harness.report.comparing.conditions import Block, blocks_of
from harness.report.comparing.effects import Effect, effect_of
from harness.report.comparing.question import Question
from harness.report.scores import Score


@dataclass(frozen=True, eq=False)
class Row:
    """One condition: all that is equal between its arms.

    Attributes:
        condition: by field; the axis that is compared is not among them.
        over: the architecture, or what the row sums up.
        kind: one of `harness.report.comparing.question.KINDS`.
        arms: by label.
        effects: by label of the other arm.
    """

    condition: Mapping[str, Any]
    over: str
    kind: str
    arms: Mapping[str, ArmScores]
    effects: Mapping[str, Effect]


def rows_of(scores: Sequence[Score], question: Question, baseline: str) -> list[Row]:
    """Every condition that has scores, with the effects of all others against the baseline, not yet corrected.

    Beneath the architectures of a condition stand the mean of all, that of all but the pool's main one, and the main
    one minus the others: the cross-architecture gap.
    """
    maker = _Maker(question, baseline)
    rows = (row for block in blocks_of(scores, question.by) for row in maker.rows(block))
    return [row for row in rows if not question.over or row.kind in question.over]


@dataclass(frozen=True)
class _Summary:
    """What a row makes of several architectures' accuracies; ``main`` is None for the mean of all."""

    kind: str
    over: str
    main: str | None = None

    def of(self, arms: Mapping[str, ArmScores]) -> ArmScores | None:
        """The arm that it makes of those of one label by architecture; None where there are too few."""
        chosen = {name: arm for name, arm in arms.items() if self.kind != "others" or name != self.main}
        if len(chosen) < 2 or (self.kind == "gap" and self.main not in chosen):
            return None
        return combined(chosen, gap_of(self.main) if self.kind == "gap" and self.main else mean_of_all)


@dataclass(frozen=True)
class _Maker:
    question: Question
    baseline: str

    def rows(self, block: Block) -> Iterator[Row]:
        """The rows of conditions that differ in the architecture only."""
        by_label: dict[str, dict[str, ArmScores]] = {}
        told: dict[str, Any] = {}
        for condition, arms in block.arms.items():
            told = dict(zip(block.fields, condition, strict=True))
            over = told.pop("architecture", "")
            yield self._row(told, over, arms)
            for label, arm in arms.items():
                by_label.setdefault(label, {})[over] = arm
        if self.question.by == "architecture":
            return
        told.pop("protocol", None)
        summaries = [_Summary("all", "all architectures")]
        if main := self._main(by_label):
            summaries += [_Summary("others", f"all but {main}", main), _Summary("gap", f"{main} minus others", main)]
        for summary in summaries:
            yield from self._summed_up(told, summary, by_label)

    def _row(self, told: Mapping[str, Any], over: str, arms: Mapping[str, ArmScores]) -> Row:
        first = arms.get(self.baseline)
        effects = {label: self._effect(first, arm) for label, arm in arms.items() if first and label != self.baseline}
        return Row(told, over, "architecture", arms, effects)

    def _summed_up(
        self, told: Mapping[str, Any], summary: _Summary, by_label: Mapping[str, Mapping[str, ArmScores]]
    ) -> Iterator[Row]:
        first = by_label.get(self.baseline, {})
        effects = {}
        for label, found in by_label.items():
            both = [name for name in first if name in found]
            mine, theirs = (summary.of({name: arms[name] for name in both}) for arms in (first, found))
            if label != self.baseline and mine and theirs:
                effect = self._effect(mine, theirs)
                if set(first) != set(found):
                    doubt = f"over the {len(both)} architectures that both have: {', '.join(both)}"
                    effect = replace(effect, doubts=(*effect.doubts, doubt))
                effects[label] = effect
        arms = {label: arm for label, found in by_label.items() if (arm := summary.of(found))}
        if arms:
            yield Row(told, summary.over, summary.kind, arms, effects)

    def _effect(self, baseline: ArmScores, other: ArmScores) -> Effect:
        question = self.question
        return effect_of(baseline, other, question.level, question.bootstrap, _may_pair(baseline, other, question.by))

    def _main(self, by_label: Mapping[str, Mapping[str, ArmScores]]) -> str | None:
        """The main architecture of the pools, the baseline's first, where students have it too."""
        of_baseline, of_all = (
            {score.main for arms in found for arm in arms.values() for score in arm.scores if score.main}
            for found in ([by_label.get(self.baseline, {})], by_label.values())
        )
        mains = of_baseline or of_all
        main = next(iter(mains)) if len(mains) == 1 else None
        return main if any(main in arms for arms in by_label.values()) else None


def _may_pair(baseline: ArmScores, other: ArmScores, by: str) -> bool:
    """Whether equal indices mean equal random numbers on equal images."""
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
