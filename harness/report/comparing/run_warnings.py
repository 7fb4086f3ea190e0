"""Warnings about numbers in the table of a run that are not comparable."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.errors import few
from harness.planning.arms import Arm
from harness.planning.plan import Plan
from harness.planning.trajectory_source import TrajectorySource
from harness.report.comparing.code_versions import CodeVersions, mixed_code_warning
from harness.report.comparing.confounders import Contender, SideBySide, confounder_warning
from harness.report.tables.run_rows import RunRow, Table
from harness.types.plurals import counted

_POINTS = ("dataset", "ipc", "iterations")
_LEARNING = ("method", "pool")
_SCORING = ("evaluator", "architecture")


def warnings_of(plan: Plan, table: Table | None = None) -> tuple[str, ...]:
    """Return warnings about arms of the plan that differ in more than their names say.

    Args:
        plan: the plan, whose arms stand in one table.
        table: that table; None before it exists.
    """
    confounded = confounder_warning(_side_by_side(_contenders(plan, table.rows if table else ())))
    mixed = mixed_code_warning([_code_by_cell(table)]) if table else None
    return tuple(line for line in (confounded, mixed) if line)


def notes_of(table: Table) -> list[str]:
    """Return a note on the records that the table leaves out because they cannot be used, if there are any."""
    count = len(table.left_out)
    if not count:
        return []
    return [f"{counted(count, 'record')} that cannot be used left out: {few(table.left_out, '; ')}"]


def _contenders(plan: Plan, rows: Sequence[RunRow]) -> list[Contender]:
    # Before a run there are no rows: only what the plan knows can be compared.
    measured: Sequence[RunRow | None] = rows if rows else [None] * len(plan.arms)
    return [_contender(arm, row, plan.set_options) for arm, row in zip(plan.arms, measured, strict=True)]


def _contender(arm: Arm, row: RunRow | None, set_options: tuple[str, ...]) -> Contender:
    source, learned = arm.source, isinstance(arm.source, TrajectorySource)
    names = {name: None if value is None else str(value) for name, value in arm.describe().items()}
    return Contender(
        names={**names, "precision": source.precision},
        components=arm.names,
        main_model=source.main,
        training_images=source.problem.fingerprint if learned else None,
        storage=(row["storage_floats"] if row else None) or source.storage_floats,
        pixels=(source.storage_floats if learned else None) or source.images * math.prod(source.problem.shape),
        iterations=arm.describe()["iterations"],
        epochs=row["epochs"] if row else None,
        method=source.method.options.as_json() if isinstance(source, TrajectorySource) else {},
        evaluator=arm.evaluator.options.as_json(),
        set_options=set_options,
    )


def _side_by_side(contenders: Sequence[Contender]) -> Iterator[SideBySide]:
    """Yield the comparisons that a table invites: of methods and pools, and of evaluators on the same sets.

    A method without iterations, pool or size is compared with all methods that have them.
    """
    yield from _by(_LEARNING, _first_scored(contenders), _POINTS)
    yield from _by(("evaluator",), contenders, (*_POINTS, *_LEARNING, "architecture"))


def _first_scored(contenders: Sequence[Contender]) -> list[Contender]:
    """Return one contender for each set, because properties of sets do not depend on who scores them."""
    first: dict[tuple[str | None, ...], Contender] = {}
    for contender in contenders:
        first.setdefault(tuple(contender.names[name] for name in (*_POINTS, *_LEARNING)), contender)
    return list(first.values())


def _by(axes: tuple[str, ...], contenders: Sequence[Contender], equal: Sequence[str]) -> Iterator[SideBySide]:
    places: dict[tuple[str | None, ...], list[Contender]] = {}
    for contender in contenders:
        places.setdefault(tuple(contender.names[name] for name in equal), []).append(contender)
    # A place is open if it lacks a value, as that of a method without a pool does.
    is_open = {place: "method" in axes and None in place for place in places}
    full = [place for place in places if not is_open[place]] or list(places)
    for place in full:
        beside = [other for other in places if is_open[other] and other != place and _agree(other, place)]
        yield SideBySide(axes, [contender for at in (place, *beside) for contender in places[at]])


def _agree(open_place: Sequence[str | None], place: Sequence[str | None]) -> bool:
    return all(own in (None, other) for own, other in zip(open_place, place, strict=True))


def _code_by_cell(table: Table) -> dict[str, CodeVersions]:
    rows: Sequence[Mapping[str, Any]] = table.rows
    names = ("dataset", "ipc", "iterations", *_LEARNING, *_SCORING)
    varying = [name for name in names if name in _SCORING or len({row[name] for row in rows}) > 1]
    return {
        ", ".join(str(row[name]) for name in varying if row[name] is not None): code
        for row, code in zip(rows, table.code, strict=True)
    }
