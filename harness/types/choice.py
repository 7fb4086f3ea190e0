"""The record of a choice: which value of an option was taken, from which scores on validation."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.types.hold_out import HoldOut
from harness.types.score import Score

CONDITION = ("dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture")
"""What the candidates of a choice have in common, but for the option."""


@dataclass(frozen=True, eq=False)
class ChoiceRecord:
    """One choice, as its record tells.

    Attributes:
        store: the store's folder as it was given.
        key: of the choice's cell.
        option: what was chosen, say ``kd.temperature``.
        value: the full name of the chosen component.
        curve: by full component name, the mean accuracy on validation, a fraction.
        condition: by field, what the candidates have in common; the component stands without the option. Empty if the
            record does not tell it.
        hold_out: the validation split; None if the record does not tell it.
    """

    store: str
    key: str
    option: str
    value: str
    curve: Mapping[str, float]
    condition: Mapping[str, str | int | None]
    hold_out: HoldOut | None

    def covers(self, score: Score) -> bool:
        """Whether the score is one of the chosen component in the choice's condition."""
        if score.store != self.store or self.value not in (score.method, score.pool, score.evaluator):
            return False
        return all(getattr(score, field) in (value, self.value) for field, value in self.condition.items())
