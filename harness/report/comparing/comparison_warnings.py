"""Warnings about numbers that reports put side by side although they are not comparable."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.code_versions import CodeVersions, mixed_code_warning
from harness.report.comparing.comparison_rows import ComparisonRow
from harness.report.comparing.confounders import Contender, SideBySide, confounder_warning
from harness.report.comparing.equal_storage import storage_of
from harness.report.scores import UNKNOWN
from harness.report.tables.wording import describe_value
from harness.types.score import Score

AXES = ("dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture", "precision", "store")
"""Fields of a score that an arm has values for."""


def warnings_of(rows: Iterable[ComparisonRow], by: str) -> tuple[str, ...]:
    """Return warnings about arms of a comparison that differ in more than what is compared.

    Args:
        rows: of the comparison.
        by: the axis along which it compares.
    """
    # Summaries repeat the arms of the architectures.
    conditions = [row for row in rows if row.kind == "architecture"]
    fields = {name: None for row in conditions for name in row.condition}
    # It follows from evaluator and architecture, and would only make names longer.
    fields.pop("protocol", None)
    varying = [name for name in fields if len({row.condition.get(name) for row in conditions}) > 1]
    code = [{_cell(row, label, varying): arm.code for label, arm in row.arms.items()} for row in conditions]
    return lines_of([((by,), list(row.arms.values())) for row in conditions], code)


def _cell(row: ComparisonRow, label: str, varying: Iterable[str]) -> str:
    """Name a number of the table by everything that distinguishes it from the others."""
    values = {name: row.condition.get(name) for name in varying}
    parts = (describe_value(name, value) for name, value in values.items() if value is not None)
    return ", ".join((label, *parts, *([row.over] if row.over else [])))


def lines_of(
    side_by_side: Iterable[tuple[tuple[str, ...], Sequence[ArmScores]]], code: Sequence[Mapping[str, CodeVersions]]
) -> tuple[str, ...]:
    """Return warnings about arms that stand side by side.

    Args:
        side_by_side: axes, and the arms that are compared along them.
        code: by name, the versions of the code of numbers that stand side by side.
    """
    comparisons = [SideBySide(axes, [_contender(arm) for arm in arms]) for axes, arms in side_by_side if len(arms) > 1]
    return tuple(line for line in (confounder_warning(comparisons), mixed_code_warning(code)) if line)


def _contender(arm: ArmScores) -> Contender:
    """Describe an arm by its scores, which all have the same qualified names."""
    first = arm.scores[0]
    names = {axis: None if (value := getattr(first, axis)) is None else str(value) for axis in AXES}
    return Contender(
        names={**names, "precision": None if first.precision == UNKNOWN else first.precision},
        components=first.names,
        main_model=next((score.main_name for score in arm.scores if score.main_name), None),
        training_images=_fingerprint(first),
        storage=storage_of(arm),
        iterations=first.iterations,
        epochs=max((score.epochs for score in arm.scores if score.epochs), default=None),
        method=_component_options(first, "method"),
        evaluator=_component_options(first, "evaluator"),
        set_options=first.set_options,
    )


def _fingerprint(score: Score) -> str | None:
    """Return the fingerprint of the images that the set was distilled from; None for a set from a file."""
    identity = json.loads(score.identities.get("dataset", "null"))
    return str(identity[0]) if isinstance(identity, list) and identity else None


def _component_options(score: Score, part: str) -> Mapping[str, Any]:
    """Return all options of a component from its identity; none for the method of a set from a file."""
    identity = json.loads(score.identities.get(part, "null"))
    component = identity[0] if isinstance(identity, list) and identity else identity
    options = component.get("options") if isinstance(component, dict) else None
    return options if isinstance(options, dict) else {}
