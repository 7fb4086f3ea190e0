"""A comparison for programs: a tidy table with a row for each arm of each condition, as CSV or JSON."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.comparison import Comparison
from harness.report.comparing.comparison_rows import ComparisonRow
from harness.report.comparing.question import NUMBERS
from harness.report.exports.csv_rows import csv_of
from harness.report.published import published_beside
from harness.types.score import ACCURACY

_CONDITION = ("dataset", "ipc", "iterations", "method", "pool", "evaluator", "precision")


def tidy(comparison: Comparison) -> list[dict[str, Any]]:
    """Return tidy rows: the condition, the value of the axis, its arm, and its effect against the baseline.

    Accuracies and differences are fractions, published ones too; values that do not exist are None.
    """
    return [line for row in comparison.rows for line in _lines(row, comparison)]


def as_csv(comparison: Comparison) -> str:
    """Render the tidy table as CSV with unrounded numbers; None is an empty field."""
    rows = tidy(comparison)
    return csv_of(rows, list(rows[0]) if rows else ())


def as_json(comparison: Comparison) -> str:
    """Render the question, the tidy table, the warnings and the notes as JSON."""
    content = {
        "question": dataclasses.asdict(comparison.question),
        "baseline": comparison.baseline,
        "family": comparison.family,
        "stores": comparison.stores,
        "warnings": comparison.warnings,
        "notes": comparison.notes,
        "rows": tidy(comparison),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _lines(row: ComparisonRow, comparison: Comparison) -> Iterator[dict[str, Any]]:
    by = comparison.question.by
    for label in comparison.labels:
        arm = row.arms.get(label)
        if arm is None:
            continue
        condition = {name: row.condition.get(name) for name in _CONDITION} | {"architecture": row.over}
        # Programs get the whole names, and the labels in a column of their own.
        full = {str(getattr(score, axis)): score.full_name(axis) for score in arm.scores for axis in score.labels
                if axis != "main"}  # fmt: skip
        value = full.get(label) or label
        condition = {name: full.get(str(text)) or text for name, text in condition.items()}
        yield {
            **{name: _axis_value(by, value) if name == by else text for name, text in condition.items()},
            "over": row.kind,
            "protocol": "; ".join(sorted({score.protocol for score in arm.scores})),
            "score_on": comparison.question.score_on,
            "metric": comparison.question.metric,
            "by": by,
            "value": value,
            "label": label if value != label else None,
            "baseline": _full_baseline(comparison),
            "mean": arm.mean,
            "median": arm.median,
            "std_students": arm.std_students,
            "std_distillations": arm.std_distillations,
            "distillations": arm.counts[0],
            "students": arm.counts[1],
            "scores": len(arm.every),
            "collapsed": arm.collapsed,
            "status": arm.status,
            "real_data": arm.real_data,
            "devices": "+".join(sorted(arm.devices)),
            **_training(arm),
            "code_versions": arm.code.number,
            "arm_doubts": "; ".join(arm.doubts),
            **_published(arm, comparison.question.metric),
            **_effect(row, label),
        }


def _full_baseline(comparison: Comparison) -> str:
    """Return the baseline's name without a label."""
    arms = (row.arms.get(comparison.baseline) for row in comparison.rows)
    arm = next((arm for arm in arms if arm), None)
    by = comparison.question.by
    return str(arm.scores[0].full_name(by)) if arm and by in arm.scores[0].labels else comparison.baseline


def _training(arm: ArmScores) -> dict[str, Any]:
    """Return the number of training images and what was held out of them; None if no record holds it."""
    counts = sorted({score.training_images for score in arm.scores if score.training_images is not None})
    splits = sorted({str(score.hold_out) for score in arm.scores if score.hold_out})
    return {
        "training_images": counts[0] if len(counts) == 1 else "+".join(map(str, counts)) or None,
        "hold_out": "; ".join(splits) or None,
    }


def _axis_value(by: str, label: str) -> str | int:
    return int(label) if by in NUMBERS else label


def _published(arm: ArmScores, metric: str) -> dict[str, Any]:
    near = published_beside(arm) if metric == ACCURACY else None  # publications are known by their accuracies alone
    published = near.published if near else None
    return {
        "published": published.accuracy / 100 if published else None,
        "published_std": published.std / 100 if published and published.std is not None else None,
        "published_source": published.source if published else None,
        "published_departures": "; ".join(near.departures) if near else None,
    }


def _effect(row: ComparisonRow, label: str) -> dict[str, Any]:
    effect = row.effects.get(label)
    estimate = effect.estimate if effect else None
    return {
        "difference": estimate.difference if estimate else None,
        "median_difference": estimate.median if estimate else None,
        "low": estimate.low if estimate else None,
        "high": estimate.high if estimate else None,
        "p": estimate.p if estimate else None,
        "p_holm": effect.holm if effect else None,
        "decided": effect.decided if effect else None,
        "design": effect.design if effect else None,
        "units": "+".join(map(str, estimate.units)) if estimate else None,
        "left_out_baseline": effect.left_out[0] if effect else None,
        "left_out": effect.left_out[1] if effect else None,
        "effect_doubts": "; ".join(effect.doubts) if effect else None,
    }
