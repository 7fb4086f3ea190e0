"""Conditions: all that the arms of a comparison have in common, and the arms in each condition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.comparing.arm_scores import ArmScores
from harness.report.scores import UNKNOWN, Score

FIELDS = (
    "dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture", "protocol", "precision",
    "real_data",
)  # fmt: skip
"""The fields of a condition. What used real data at evaluation stands in no condition with what did not."""
_WITH = {"evaluator": ("protocol",), "architecture": ("protocol",), "dataset": ("protocol",)}
"""Fields that depend on an axis, so that they may differ between its values."""
Condition = tuple[Any, ...]
Arms = dict[str, ArmScores]
"""By label."""


@dataclass(frozen=True, eq=False)
class Block:
    """Conditions that differ only in the architecture, with their arms; ``fields`` names the values of a condition."""

    fields: tuple[str, ...]
    arms: dict[Condition, Arms]


def blocks_of(scores: Sequence[Score], by: str, metric: str) -> list[Block]:
    """Group scores by condition, in order; the arms are the values of ``by``, which every score must have."""
    fields = tuple(name for name in FIELDS if name != by and name not in _WITH.get(by, ()))
    arms = _arms(scores, by, metric, fields)
    own = [index for index, name in enumerate(fields) if name not in ("architecture", "protocol")]
    blocks: dict[Condition, dict[Condition, Arms]] = {}
    for condition in sorted(arms, key=_order):
        block = tuple(condition[index] for index in own)
        blocks.setdefault(block, {})[condition] = arms[condition]
    return [Block(fields, conditions) for conditions in blocks.values()]


def _arms(scores: Sequence[Score], by: str, metric: str, fields: Sequence[str]) -> dict[Condition, Arms]:
    """Return the arms by condition; a method without a field, such as a pool, stands beside every value of it."""
    groups: dict[tuple[Condition, str], list[Score]] = {}
    for score in scores:
        condition = tuple(_field(score, name) for name in fields)
        groups.setdefault((condition, str(getattr(score, by))), []).append(score)
    whole: dict[Condition, Arms] = {}
    open_: list[tuple[Condition, ArmScores]] = []
    for (condition, label), members in groups.items():
        arm = ArmScores.of(label, members, metric)
        # A method without a pool is compared with methods of every pool.
        if by == "method" and None in condition:
            open_.append((condition, arm))
        else:
            whole.setdefault(condition, {})[label] = arm
    places = _Places(list(whole))
    for condition, arm in open_:
        for place in places.of(condition) or [condition]:
            whole.setdefault(place, {})[arm.label] = arm
    return whole


class _Places:
    """Finds the conditions that agree with one in which some fields are None."""

    def __init__(self, whole: Sequence[Condition]) -> None:
        self._whole = whole
        self._by_fields: dict[tuple[int, ...], dict[Condition, list[Condition]]] = {}

    def of(self, condition: Condition) -> list[Condition]:
        """Return every condition with the values of ``condition`` in the fields that are not None there."""
        known = tuple(index for index, value in enumerate(condition) if value is not None)
        if known not in self._by_fields:
            # One index for each set of known fields: comparing every pair of conditions takes minutes in large stores.
            by_values = self._by_fields[known] = {}
            for other in self._whole:
                by_values.setdefault(tuple(other[index] for index in known), []).append(other)
        return self._by_fields[known].get(tuple(condition[index] for index in known), [])


def _field(score: Score, name: str) -> Any:  # noqa: ANN401
    value = getattr(score, name)
    return None if name == "precision" and value == UNKNOWN else value


def _order(condition: Condition) -> list[tuple[bool, bool, Any]]:
    return [(value is None, isinstance(value, str), value or 0) for value in condition]
