"""The question of ``ddbench compare``: the axis, the baseline, and which scores are compared."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UsageError, did_you_mean
from harness.planning.request import Request
from harness.report.comparing.statistics import Bootstrap
from harness.report.scores import Score
from harness.types.names import Name, expand
from harness.types.score import ACCURACY

NUMBERS = ("ipc", "iterations")
"""Axes whose values are whole numbers."""
AXES = ("dataset", *NUMBERS, "method", "pool", "evaluator", "architecture", "precision", "store")
"""Axes along which arms can be compared."""
KINDS = ("architecture", "all", "others", "gap")
"""Kinds of rows: an architecture, the mean over all, the mean over all but the main one, the main one minus these."""
FILTERS = ("dataset", *NUMBERS, "method", "pool", "evaluator", "architecture")
"""Axes by which scores can be filtered."""


@dataclass(frozen=True)
class Question:
    """A comparison to make.

    Attributes:
        by: the axis whose values are compared.
        baseline: the value that the others are compared with; None for the default of the axis.
        only: names or numbers that scores are restricted to, by axis; the baseline is never filtered out.
        over: the `KINDS` of rows that are wanted; empty for all.
        score_on: ``test`` or ``validation``.
        level: confidence level of the intervals; tests are at one minus it.
        bootstrap: how to resample for bootstrap intervals; None for t intervals.
        metric: what is compared: the accuracy, or a metric that students report.
        equal_storage: whether only arms are compared whose sets store as much as the baseline's.
    """

    by: str = "pool"
    baseline: str | None = None
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    over: tuple[str, ...] = ()
    score_on: str = "test"
    level: float = 0.95
    bootstrap: Bootstrap | None = None
    metric: str = ACCURACY
    equal_storage: bool = False

    def __post_init__(self) -> None:
        if self.by not in AXES:
            raise UsageError(f"--by {self.by}: {did_you_mean(self.by, AXES)}")
        if not 0 < self.level < 1:
            raise UsageError(f"--level {self.level:g} is not between 0 and 1; write for instance 0.95")

    def choose(self, scores: Sequence[Score]) -> tuple[list[Score], str]:
        """Return the scores to compare, and the baseline's value as the scores have it.

        Raises:
            UsageError: no score has one of the names or numbers, or the axis has no default baseline.
        """
        chosen = [score for score in scores if score.score_on == self.score_on]
        if not chosen:
            raise UsageError(f"there are no scores on {self.score_on}: {self._elsewhere(scores)}")
        for axis in FILTERS:
            if axis != self.by and self.only.get(axis):
                values = selected_values(chosen, axis, self.only[axis])
                chosen = [score for score in chosen if self._keeps(value_of(score, axis), values)]
        # After the other filters, so that a name may be unique among what is left, and before the filter on this axis.
        baseline = self._baseline(chosen)
        if self.only.get(self.by):
            values = selected_values(chosen, self.by, self.only[self.by]) | {baseline}
            chosen = [score for score in chosen if value_of(score, self.by) in values]
        return chosen, baseline

    def _keeps(self, value: str | None, wanted: set[str]) -> bool:
        """Return whether a filter accepts a value; methods without such a value stay if methods are compared."""
        return value in wanted or (value is None and self.by == "method")

    def _elsewhere(self, scores: Sequence[Score]) -> str:
        others = sorted({score.score_on for score in scores})
        return f"use --score-on {others[0]}" if others else "run `ddbench run` first"

    def _baseline(self, scores: Sequence[Score]) -> str:
        values = _values(scores, self.by)
        if not values:
            raise UsageError(f"--by {self.by}: no score has a value; compare by another of {', '.join(AXES)}")
        option = f"--by {self.by} --baseline"
        if self.baseline is None:
            usual = scores[0].store if self.by == "store" else _usual_of(self.by, values, scores)
            if usual is None:
                raise UsageError(f"{option} NAME is required; the values are {', '.join(values)}")
            return usual
        values_meant = values_meant_by(self.baseline, scores, self.by)
        if not values_meant:
            raise UsageError(f"{option} {self.baseline}: {did_you_mean(self.baseline, values)}")
        if len(values_meant) > 1:
            meant = ", ".join(values_meant)
            raise UsageError(f"{option} {self.baseline} is ambiguous: write one of {meant}")
        return values_meant[0]


def value_of(score: Score, axis: str) -> str | None:
    """Return a score's value on an axis as text; None if the axis is not applicable."""
    value = getattr(score, axis)
    return None if value is None else str(value)


def values_meant_by(text: str, scores: Iterable[Score], axis: str) -> list[str]:
    """Return the values that ``text`` stands for: that very value, else all with its name and the options it gives.

    An option counts as given if it stands in the value's name or among the component's options at their defaults.
    """
    examples = {value: score for score in scores if (value := value_of(score, axis))}
    # An exact value wins: single is not ambiguous beside single[main=mlp].
    if text in examples:
        return [text]
    # So does the exact name of which a value is the label.
    if exact := [value for value, score in examples.items() if score.labels.get(axis) == text]:
        return in_natural_order(exact)
    try:
        wanted = expand(text)
    except UsageError:
        return []
    return [
        value for value in in_natural_order(examples) if any(_is_of(name, examples[value], axis) for name in wanted)
    ]


def in_natural_order(values: Iterable[str]) -> list[str]:
    """Return the values without duplicates in natural order: 2 before 10."""
    return sorted(set(values), key=lambda text: [(part.isdecimal(), int(part) if part.isdecimal() else 0, part)
                                                 for part in re.split(r"(\d+)", text)])  # fmt: skip


def _is_of(wanted: Name, score: Score, axis: str) -> bool:
    """Return whether a score's component is the wanted one, with the options that the wanted name gives."""
    name, identity = score.names.get(axis), score.identities.get(axis, "")
    if name is None or name.name != wanted.name:
        return False
    shown = dict(name.options)
    return all(shown.get(key) == value or _has(identity, key, value) for key, value in wanted.options)


def _has(identity: str, key: str, text: str) -> bool:
    """Return whether the option has that value in a component's identity."""
    parsed: Any = json.loads(identity) if identity else None
    component = parsed[0] if isinstance(parsed, list) and parsed else parsed
    options = component.get("options", {}) if isinstance(component, dict) else {}
    if key not in options:
        return False
    value = options[key]
    try:
        # As numbers too: 0.10 and 0.1 are one value.
        return str(value) == text or float(value) == float(text)
    except (TypeError, ValueError):
        return False


def selected_values(scores: Sequence[Score], axis: str, texts: Sequence[str]) -> set[str]:
    """Return the values on an axis that the texts stand for, see `values_meant_by`.

    Raises:
        UsageError: no score has one of them.
    """
    selection: set[str] = set()
    for text in texts:
        values = values_meant_by(text, scores, axis)
        if not values:
            raise UsageError(f"--{axis} {text}: no score has this value: {did_you_mean(text, _values(scores, axis))}")
        selection.update(values)
    return selection


def _values(scores: Iterable[Score], axis: str) -> list[str]:
    return in_natural_order(value for score in scores if (value := value_of(score, axis)) is not None)


def _usual_of(axis: str, values: Sequence[str], scores: Sequence[Score]) -> str | None:
    """Return the default baseline of scores, whose values may be labels."""
    of_label = {str(getattr(score, axis)): score.labels[axis] for score in scores if axis in score.labels}
    value_of_name = {of_label.get(value, value): value for value in values}
    usual = usual_value(axis, list(value_of_name))
    return None if usual is None else value_of_name[usual]


def usual_value(axis: str, values: Sequence[str]) -> str | None:
    """Return the default baseline: the default pool of a run, the smallest number, or the only value; else None."""
    if axis in NUMBERS or len(values) == 1:
        return values[0]
    # The defaults of a run, so that a comparison without options is the obvious one.
    usual = {"pool": Request().pool[0], "precision": Request().precision}.get(axis)
    named = [value for value in values if value == usual or value.startswith(f"{usual}[")]
    return usual if usual in named else named[0] if len(named) == 1 else None
