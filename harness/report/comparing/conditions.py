"""Conditions: all that is equal between the arms of a comparison, and which arms stand in each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.comparing.arm_scores import ArmScores
from harness.report.scores import UNKNOWN, Score

FIELDS = (
    "dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture", "protocol", "precision",
)  # fmt: skip
"""What a condition is made of."""
_WITH = {"evaluator": ("protocol",), "architecture": ("protocol",), "dataset": ("protocol",)}
"""What follows from a value of an axis, so that it may differ where the axis does."""
Condition = tuple[Any, ...]
Arms = dict[str, ArmScores]
"""By label."""


@dataclass(frozen=True, eq=False)
class Block:
    """Conditions that differ in the architecture only, each with its arms; ``fields`` names a condition's values."""

    fields: tuple[str, ...]
    arms: dict[Condition, Arms]


def blocks_of(scores: Sequence[Score], by: str) -> list[Block]:
    """The scores by condition, in order; arms are the values of ``by``, which no score may lack."""
    fields = tuple(name for name in FIELDS if name != by and name not in _WITH.get(by, ()))
    arms = _arms(scores, by, fields)
    own = [index for index, name in enumerate(fields) if name not in ("architecture", "protocol")]
    blocks: dict[Condition, dict[Condition, Arms]] = {}
    for condition in sorted(arms, key=_order):
        block = tuple(condition[index] for index in own)
        blocks.setdefault(block, {})[condition] = arms[condition]
    return [Block(fields, conditions) for conditions in blocks.values()]


def _arms(scores: Sequence[Score], by: str, fields: Sequence[str]) -> dict[Condition, Arms]:
    """By condition, its arms. What is not applicable to a method, it shares with every value of that field."""
    groups: dict[tuple[Condition, str], list[Score]] = {}
    for score in scores:
        condition = tuple(_field(score, name) for name in fields)
        groups.setdefault((condition, str(getattr(score, by))), []).append(score)
    whole: dict[Condition, Arms] = {}
    open_: list[tuple[Condition, ArmScores]] = []
    for (condition, label), members in groups.items():
        arm = ArmScores.of(label, members)
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
    """Finds the conditions that one with open fields stands in."""

    def __init__(self, whole: Sequence[Condition]) -> None:
        self._whole = whole
        self._found: dict[tuple[int, ...], dict[Condition, list[Condition]]] = {}

    def of(self, condition: Condition) -> list[Condition]:
        """Every condition that agrees with this one where this one is not None."""
        told = tuple(index for index, value in enumerate(condition) if value is not None)
        if told not in self._found:
            found = self._found[told] = {}
            for other in self._whole:
                found.setdefault(tuple(other[index] for index in told), []).append(other)
        return self._found[told].get(tuple(condition[index] for index in told), [])


def _field(score: Score, name: str) -> Any:  # noqa: ANN401
    value = getattr(score, name)
    return None if name == "precision" and value == UNKNOWN else value


def _order(condition: Condition) -> list[tuple[bool, bool, Any]]:
    return [(value is None, isinstance(value, str), value or 0) for value in condition]
