"""The effect of an arm against the baseline: paired if the design allows it, and with its doubts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.report.comparing.arm_scores import ArmScores, Unit, Values
from harness.report.comparing.code_versions import CodeVersions
from harness.report.comparing.statistics import Bootstrap, Estimate, holm, paired, welch
from harness.types.plurals import counted

Design = Literal["distillations", "students", "unpaired"]
ONE_SET = (
    "1 distillation in each arm: over its students, so the variance between sets is unknown, and nothing is decided "
    "about other sets"
)
UNPAIRED = "not paired: no distillation in common, so Welch's test"
"""Doubts about effects of these designs."""


@dataclass(frozen=True, eq=False)
class Effect:
    """The difference between an arm and the baseline.

    Attributes:
        baseline, other: the arms.
        estimate: the difference.
        design: paired over ``distillations``, paired over the ``students`` of one set, or ``unpaired``.
        distillations: number of distillations that both have.
        left_out: numbers of values of the baseline and of the other arm that have no partner.
        doubts: reservations about it, a phrase each.
        holm: its p value, adjusted for all effects of the question; None if it was not tested.
        decided: whether that is below one minus the level, and the effect is not of the students of one set.
        of_some_architectures: whether it summarises only those architectures that both arms have, and one has others.
    """

    baseline: ArmScores
    other: ArmScores
    estimate: Estimate
    design: Design
    distillations: int
    left_out: tuple[int, int]
    doubts: tuple[str, ...]
    holm: float | None = None
    decided: bool = False
    of_some_architectures: bool = False

    def adjusted(self, holm: float, level: float) -> "Effect":
        """Return a copy with the adjusted p value."""
        return replace(self, holm=holm, decided=holm < 1 - level and not self.of_one_set)

    @property
    def mixes_code(self) -> bool:
        """Whether the same part of both arms was made by different versions of the code."""
        return CodeVersions.together([self.baseline.code, self.other.code]).is_mixed

    @property
    def is_nil(self) -> bool:
        """Whether all paired differences are zero, which leaves no spread to test by."""
        estimate = self.estimate
        untested = estimate.low is None and self.design != "unpaired"
        return untested and estimate.difference == 0 and self.distillations > 1

    @property
    def of_one_set(self) -> bool:
        """Whether each arm contributes the students of one set only."""
        alone = len(self.baseline.values) == len(self.other.values) == 1
        return self.design == "students" or (self.design == "unpaired" and alone)


def effect_of(
    baseline: ArmScores, other: ArmScores, level: float, bootstrap: Bootstrap | None = None, may_pair: bool = True
) -> Effect:
    """Estimate the difference of two arms with its interval, by the design that their scores allow.

    The units are the distillations that both arms have, each the mean over the students that both have; if there is
    only one, its students are the units. If there is none, or if they may not be paired, the arms' means of sets are
    compared as independent values, or the students if each arm has one set.
    """
    common = _common(baseline.values, other.values) if may_pair else {}
    pairs = sum(map(len, common.values()))
    design: Design
    # Distillations are the units because students of one set share its luck.
    if len(common) > 1:
        design = "distillations"
        estimate = paired([sum(own) / len(own) for own in common.values()], level, bootstrap)
    elif common:
        design = "students"
        estimate = paired(next(iter(common.values())), level, bootstrap)
    else:
        design, estimate = "unpaired", _independent(baseline, other, level, bootstrap)
        pairs = 0
    # Without pairs all values are used, so nothing is left out.
    left_out = (len(baseline.every) - pairs, len(other.every) - pairs) if common else (0, 0)
    effect = Effect(baseline, other, estimate, design, len(common), left_out, ())
    return replace(effect, doubts=tuple(_doubts(effect, may_pair, bootstrap)))


def correct_for_many_tests(effects: Sequence[Effect], level: float) -> list[Effect]:
    """Return the effects in their order, with p values adjusted by Holm's method; untested effects stay as they are."""
    tested = [effect.estimate.p for effect in effects if effect.estimate.p is not None]
    adjusted = iter(holm(tested))
    return [effect if effect.estimate.p is None else effect.adjusted(next(adjusted), level) for effect in effects]


def _common(baseline: Values, other: Values) -> dict[Unit, list[float]]:
    """Return, by distillation, the differences of the students that both arms have."""
    by_unit: dict[Unit, list[float]] = {}
    for unit, students in baseline.items():
        theirs = other.get(unit, {})
        differences = [theirs[student] - value for student, value in students.items() if student in theirs]
        if differences:
            by_unit[unit] = differences
    return by_unit


def _independent(baseline: ArmScores, other: ArmScores, level: float, bootstrap: Bootstrap | None) -> Estimate:
    # One set each: its students are all that there is, see ONE_SET.
    if len(baseline.values) == len(other.values) == 1:
        return welch(baseline.every, other.every, level, bootstrap)
    return welch(baseline.set_means, other.set_means, level, bootstrap)


def _doubts(effect: Effect, may_pair: bool, bootstrap: Bootstrap | None) -> Iterator[str]:
    baseline, other, estimate = effect.baseline, effect.other, effect.estimate
    if not may_pair:
        yield "not paired: other images or versions under the same names, so Welch's test"
    elif effect.design == "unpaired":
        yield UNPAIRED
    if effect.of_one_set:
        yield ONE_SET
    if estimate.reason:
        yield estimate.reason
    if any(effect.left_out):
        ours, theirs = effect.left_out
        both = f"{counted(ours, 'score')} of {baseline.label} and {theirs} of {other.label}"
        yield f"unequal repeats: {both} left out of the pairs"
    if baseline.devices != other.devices or len(baseline.devices) > 1:
        devices = ", ".join(sorted(baseline.devices | other.devices))
        yield f"the arms were made on different devices: {devices}"
    if effect.mixes_code:
        yield "the arms were made by different versions of the code"
    if bootstrap and estimate.p is not None and not estimate.resampled:
        yield "t interval: too few units for a bootstrap"
