"""Comparison at equal storage: which scores are of sets that store as much as the baseline's."""

from collections.abc import Sequence

from harness.errors import few
from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.conditions import blocks_of
from harness.report.scores import Score


def of_equal_storage(scores: Sequence[Score], by: str, baseline: str, metric: str) -> tuple[list[Score], list[str]]:
    """Return the scores of arms whose sets store as much as the baseline's in the same condition, and notes.

    Conditions without the baseline are left out: there is nothing that their arms could be equal to.
    """
    equal: set[int] = set()
    unequal: dict[str, None] = {}
    for block in blocks_of(scores, by, metric):
        for arms in block.arms.values():
            wanted = storage_of(arms[baseline]) if baseline in arms else None
            for label, arm in arms.items():
                storage = storage_of(arm)
                if storage is not None and storage == wanted:
                    # By identity: a method without a pool stands in several conditions, and is equal in some.
                    equal.update(map(id, arm.scores))
                elif wanted is not None:
                    unequal[f"{label} ({_numbers(storage)}, not {_numbers(wanted)})"] = None
    notes = [f"left out by --equal-storage: {few(list(unequal))}"] if unequal else []
    return [score for score in scores if id(score) in equal], notes


def storage_of(arm: ArmScores) -> int | None:
    """Return the storage of an arm's largest set, in values of 32 bits; None if no record says."""
    return max((score.storage for score in arm.scores if score.storage), default=None)


def _numbers(storage: int | None) -> str:
    return "unknown storage" if storage is None else f"{storage:,} numbers"
