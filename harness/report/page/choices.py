"""The section of choices: what was chosen on validation, from which scores."""

from collections.abc import Sequence

from harness.report.page.view import Column, Entry, Group, Part, Row, Section, Table
from harness.types.report import Results
from harness.types.score import ChoiceRecord

_COLUMNS = ("chosen", "accuracy on validation, %", "validation", "row")
_INTRO = (
    "Where an option was swept with --choose, its value was taken by the scores on a validation split, a part of the "
    "training images; test images were never asked. The chosen value was then distilled on the whole training set, "
    "unless the data set's name says that the split was held out there, too."
)


def choices_section(results: Results) -> Section | None:
    """Each choice with its curve, and the size and seed of the validation split."""
    if not results.choices:
        return None
    by_option: dict[str, list[ChoiceRecord]] = {}
    for choice in results.choices:
        by_option.setdefault(choice.option, []).append(choice)
    groups = [Group(option, [_row(choice) for choice in choices]) for option, choices in sorted(by_option.items())]
    columns = [Column("option"), *(Column(text) for text in _COLUMNS)]
    table = Table("choices-table", "What was chosen on validation", columns, groups)
    return Section("choices", "Choices", [_INTRO], [Part(tables=[table])])


def _row(choice: ChoiceRecord) -> Row:
    curve = ", ".join(f"{name} {100 * mean:.1f}" for name, mean in choice.curve.items())
    split = str(choice.hold_out) if choice.hold_out else "not recorded"
    cells: Sequence[str] = (choice.value, curve, split, _condition(choice))
    return Row(choice.option, [Entry(text, number=False) for text in cells])


def _condition(choice: ChoiceRecord) -> str:
    values = {field: value for field, value in choice.condition.items() if value is not None}
    words = {"ipc": "ipc {}", "iterations": "{} iterations"}
    return ", ".join(words.get(field, "{}").format(value) for field, value in values.items()) or "not recorded"
