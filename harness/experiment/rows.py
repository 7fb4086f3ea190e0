"""Rows of a table, made from the store alone."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from harness.experiment.arms import Arm
from harness.experiment.plan import Plan
from harness.experiment.sources import hold_out_of
from harness.experiment.spread import pooled_std, std
from harness.experiment.store import Store

Row = dict[str, Any]


def rows_of(plan: Plan, store: Store) -> list[Row]:
    """One row an arm, in the plan's order.

    Accuracies are fractions. ``std_students`` is the spread between students of one set (pooled over distillations),
    ``std_distillations`` that between the means of distillations; both with ddof 1, None where there is only one.
    ``draws`` counts, over all distillations, how often the pool gave each architecture.
    """
    return [_row(arm, plan, store) for arm in plan.arms]


def _row(arm: Arm, plan: Plan, store: Store) -> Row:
    scores: list[list[Mapping[str, Any]]] = []
    states: list[str] = []
    devices: set[str] = set()
    draws: dict[str, int] = {}
    for distillation in range(plan.distillations):
        found = store.sound(arm.set_cell(distillation).key)
        states.append(found["result"]["status"] if found else arm.source.status)
        for name, count in (found["result"].get("draws") or {}).items() if found else ():
            draws[name] = draws.get(name, 0) + count
        keys = [arm.student_cell(distillation, student).key for student in range(plan.students)]
        records = [record for key in keys if (record := store.sound(key))]
        scores.append([record["result"] for record in records])
        devices |= {record["provenance"]["compute"]["device"] for record in records}
    groups = [[score["accuracy"] for score in group] for group in scores if group]
    every = [accuracy for group in groups for accuracy in group]
    count = max((len(group) for group in groups), default=0)
    whole = len(groups) == plan.distillations and all(len(group) == plan.students for group in groups)
    return {
        **arm.describe(),
        "mean": statistics.fmean(every) if every else None,
        "median": statistics.median(every) if every else None,
        "std_students": pooled_std(groups),
        "std_distillations": std([statistics.fmean(group) for group in groups]),
        "students": count,
        "distillations": len(groups),
        "collapsed": sum(score["collapsed"] for group in scores for score in group),
        "status": _status(states, bool(every), whole),
        "draws": draws,
        "protocol": arm.protocol,
        "seed": arm.source.seed,
        "device": "+".join(sorted(devices)) or None,
        "score_on": arm.source.problem.score_on,
        "like": arm.source.problem.like,
        "preprocessing": arm.source.problem.preprocessing.name,
        "hold_out": hold_out_of(arm.source),
    }


def _status(states: Sequence[str], some: bool, whole: bool) -> str:
    """The worst of the sets' states; ``failed`` where nothing was scored, ``incomplete`` where not all was."""
    if not some:
        return "failed"
    if not whole:
        return "incomplete"
    return next((state for state in ("diverged", "blown up") if state in states), "done")
