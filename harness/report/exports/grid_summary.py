"""A grid's results for leaderboards: one JSON document by the schema ``grid_summary.schema.json``."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.comparing.arm_scores import ArmScores
from harness.report.exports.student_rows import ARM
from harness.types.score import ACCURACY, Score

SCHEMA_VERSION = 1
_CONDITION = (*ARM, "architecture", "protocol", "precision", "score_on", "like", "preprocessing", "real_data")
"""What the students of an entry have in common."""


def grid_summary(scores: Sequence[Score], stores: Sequence[str]) -> dict[str, Any]:
    """Return a document with an entry for each arm and architecture; accuracies and metrics are fractions.

    Students that may not be compared, because of their protocol for instance, are in different entries.

    Args:
        scores: each student once.
        stores: the stores as they were typed.
    """
    arms: dict[tuple[Any, ...], list[Score]] = {}
    for score in scores:
        # Equal names may stand for different things, which qualifiers tell apart.
        qualifiers = tuple(sorted(score.qualifiers.items()))
        arms.setdefault((*(getattr(score, name) for name in _CONDITION), qualifiers), []).append(score)
    order = sorted(arms, key=lambda place: [str(part) for part in place])
    return {
        "schema_version": SCHEMA_VERSION,
        "stores": list(stores),
        "entries": [_entry(arms[place]) for place in order],
    }


def summary_json(scores: Sequence[Score], stores: Sequence[str]) -> str:
    """Render the document of `grid_summary` as JSON."""
    return json.dumps(grid_summary(scores, stores), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _entry(members: Sequence[Score]) -> dict[str, Any]:
    arm = ArmScores.of("", members)
    distillations, students = arm.counts
    return {
        **{name: getattr(members[0], name) for name in _CONDITION},
        "accuracy": _moments(arm),
        "metrics": _metrics(members),
        "distillations": distillations,
        "students": students,
        "collapsed": arm.collapsed,
        "status": arm.status,
        "storage": _common({score.storage for score in members}),
        # Older records do not say how many there were.
        "training_images": _common({score.training_images for score in members} - {None}),
        "code_versions": arm.code.number,
        "doubts": list(arm.doubts),
        "keys": sorted(score.key for score in members),
    }


def _common(values: set[int | None]) -> int | None:
    return values.pop() if len(values) == 1 else None


def _metrics(members: Sequence[Score]) -> Mapping[str, Any]:
    """Return the moments of each metric over the students that have it."""
    names = sorted({name for score in members for name in score.metrics} - {ACCURACY})
    having = {name: [score for score in members if score.value(name) is not None] for name in names}
    return {name: _moments(ArmScores.of("", those, name)) for name, those in having.items() if those}


def _moments(arm: ArmScores) -> dict[str, Any]:
    return {
        "mean": arm.mean,
        "median": arm.median,
        "std_students": arm.std_students,
        "std_distillations": arm.std_distillations,
    }
