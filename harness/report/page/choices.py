"""The section of choices: what was chosen on validation, among which values."""

import math
from collections.abc import Mapping, Sequence

from harness.errors import UsageError
from harness.report.page.drawing.curves import Curve, draw_curves
from harness.report.page.drawing.pictures import COLOURS, Key, Picture
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.tables.wording import describe_value, optimism, percent
from harness.types.names import parse_name
from harness.types.score import ChoiceRecord

MOST_PICTURES = 12
"""Maximum number of curves; the table has all of them."""
_COLUMNS = ("chosen", "accuracy on validation, %", "validation", "row")
_INTRO = (
    "The value of an option that was swept with --choose was chosen by the scores on a validation split, a part of the "
    "training images, never on test images. The chosen value was then distilled on the whole training set, unless the "
    "data set's name says that the split was held out there too."
)


def choices_section(choices: Sequence[ChoiceRecord]) -> Section | None:
    """Return the choices with their curves and validation splits; None if there are none.

    The values of an option that are numbers are drawn as a curve of the accuracy on validation.
    """
    if not choices:
        return None
    by_option: dict[str, list[ChoiceRecord]] = {}
    for choice in choices:
        by_option.setdefault(choice.option, []).append(choice)
    groups = [Group(option, [_row(choice) for choice in chosen]) for option, chosen in sorted(by_option.items())]
    columns = [Column("option"), *(Column(text) for text in _COLUMNS)]
    table = Table("choices-table", "What was chosen on validation", columns, groups)
    drawn = [picture for _, chosen in sorted(by_option.items()) for choice in chosen if (picture := _curve(choice))]
    return Section("choices", "Choices", [_INTRO], [Part(tables=[table], pictures=drawn[:MOST_PICTURES])])


def numeric_values(choice: ChoiceRecord) -> dict[float, float]:
    """Return the accuracy on validation, a fraction, by the option's value, in ascending order.

    A value is a number, or ends in one behind a colon, as ``convnet:0.9``. Empty if fewer than two values are numbers,
    or two names have the same one.
    """
    option = choice.option.rpartition(".")[2]
    pairs = [(_number(name, option), mean) for name, mean in choice.curve.items()]
    numbers = [(value, mean) for value, mean in pairs if value is not None]
    if len(dict(numbers)) < max(2, len(numbers)):
        return {}
    return dict(sorted(numbers))


def _number(name: str, option: str) -> float | None:
    """Return the number that a component's name has as the value of an option; None if it has none."""
    try:
        text = dict(parse_name(name).options).get(option, "")
        number = float(text.rpartition(":")[2])
    except (UsageError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _curve(choice: ChoiceRecord) -> Picture | None:
    """Draw the accuracy on validation over the values of the option; None if they are no numbers."""
    values = numeric_values(choice)
    if not values:
        return None
    accuracies = [100 * mean for mean in values.values()]
    curve = Curve(Key(choice.option, COLOURS[0], "o"), list(values), accuracies, [0.0] * len(values))
    title = f"{choice.option}: {_condition(choice)}"
    name = "accuracy on validation, %"
    return draw_curves([curve], title=title, x=choice.option, y=name, logarithmic=False, whole_numbers=False)


def _row(choice: ChoiceRecord) -> TableRow:
    curve = ", ".join(f"{name} {percent(mean)}" for name, mean in choice.curve.items())
    split = str(choice.hold_out) if choice.hold_out else "not recorded"
    split += f"; {optimism(choice.curve, choice.probed)}" if choice.probed else ""
    cells: Sequence[str] = (choice.value, curve, split, _condition(choice))
    return TableRow(choice.option, [Entry(text, number=False) for text in cells])


def _condition(choice: ChoiceRecord) -> str:
    values: Mapping[str, object] = {field: value for field, value in choice.condition.items() if value is not None}
    return ", ".join(describe_value(field, value) for field, value in values.items()) or "not recorded"
