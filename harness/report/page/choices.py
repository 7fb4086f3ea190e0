"""The section of choices: what was chosen on validation, among which values."""

import itertools
import math
from collections.abc import Mapping, Sequence

from harness.errors import PluginError, UsageError
from harness.planning.choose_option import CHOOSABLE
from harness.plugins.registry import Registry
from harness.report.page.drawing.curves import Curve, draw_curves
from harness.report.page.drawing.pictures import COLOURS, Key, Picture, draw_legend
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


def choices_section(choices: Sequence[ChoiceRecord], registry: Registry) -> Section | None:
    """Return the choices with their curves and validation splits; None if there are none.

    The values of an option that are numbers are drawn as a curve of the accuracy on validation, one for each
    architecture that they name.

    Args:
        choices: what was chosen.
        registry: the components, for the defaults of their options.
    """
    if not choices:
        return None
    by_option: dict[str, list[ChoiceRecord]] = {}
    for choice in choices:
        by_option.setdefault(choice.option, []).append(choice)
    groups = [Group(option, [_row(choice) for choice in chosen]) for option, chosen in sorted(by_option.items())]
    columns = [Column("option"), *(Column(text) for text in _COLUMNS)]
    table = Table("choices-table", "What was chosen on validation", columns, groups)
    drawn = [
        pictures
        for option, chosen in sorted(by_option.items())
        for choice in chosen
        if (pictures := _pictures(choice, _default(option, registry)))
    ]
    shown = list(itertools.chain(*drawn[:MOST_PICTURES]))
    return Section("choices", "Choices", [_INTRO], [Part(tables=[table], pictures=shown)])


def numeric_values(choice: ChoiceRecord, default: str = "") -> dict[str, dict[float, float]]:
    """Return the accuracy on validation, a fraction, by the option's number in ascending order, for each architecture.

    A value is a number, or an architecture and a number, as ``convnet:0.9``; the halves that it leaves out are the
    default's. Without an architecture, the name is empty. Left out are values without a number, and numbers that two
    values of an architecture have. Empty if no architecture has two numbers.

    Args:
        choice: what was chosen.
        default: the option's default, as it is typed.
    """
    option = choice.option.rpartition(".")[2]
    architecture_by_default, number_by_default = _halves(default)
    pairs: dict[str, list[tuple[float, float]]] = {}
    for name, mean in choice.curve.items():
        architecture, number = _halves(_value(name, option) or default)
        number = number_by_default if number is None else number
        if number is not None:
            pairs.setdefault(architecture or architecture_by_default, []).append((number, mean))
    curves = {
        architecture: {number: mean for number, mean in sorted(several) if [at for at, _ in several].count(number) == 1}
        for architecture, several in sorted(pairs.items())
    }
    return curves if any(len(curve) > 1 for curve in curves.values()) else {}


def _value(name: str, option: str) -> str:
    """Return the value that a component's name has for an option; empty if it leaves the option out."""
    try:
        return dict(parse_name(name).options).get(option, "")
    except UsageError:
        return ""


def _halves(text: str) -> tuple[str, float | None]:
    """Return the architecture and the number of a value such as ``convnet:0.9``; either half may be missing."""
    architecture, _, last = text.rpartition(":")
    try:
        number = float(last)
    except ValueError:
        return text, None
    return architecture, number if math.isfinite(number) else None


def _default(option: str, registry: Registry) -> str:
    """Return the default of a component's option as it is typed; empty if there is none, or no such component."""
    component, _, name = option.rpartition(".")
    for kind in CHOOSABLE:
        try:
            field = registry.find(kind, component).load().Options.fields_by_name().get(name)
        except (UsageError, PluginError):
            continue
        return str(field.default) if field and isinstance(field.default, str | int | float) else ""
    return ""


def _pictures(choice: ChoiceRecord, default: str) -> list[Picture]:
    """Draw the accuracy on validation over the values of the option; nothing if they are no numbers."""
    values = numeric_values(choice, default)
    if not values:
        return []
    # A main architecture of its own is another experiment: no line joins the points of two.
    colours, several = itertools.cycle(COLOURS), len(values) > 1
    curves = [
        Curve(
            Key(architecture if several else choice.option, colour, "o"),
            list(values[architecture]),
            [100 * mean for mean in values[architecture].values()],
            [0.0] * len(values[architecture]),
        )
        for architecture, colour in zip(values, colours, strict=False)
    ]
    title = f"{choice.option}: {_condition(choice)}"
    name = "accuracy on validation, %"
    drawn = draw_curves(curves, title=title, x=choice.option, y=name, logarithmic=False, whole_numbers=False)
    return [drawn, *([draw_legend([curve.key for curve in curves], "Legend")] if several else [])]


def _row(choice: ChoiceRecord) -> TableRow:
    curve = ", ".join(f"{name} {percent(mean)}" for name, mean in choice.curve.items())
    split = str(choice.hold_out) if choice.hold_out else "not recorded"
    split += f"; {optimism(choice.curve, choice.probed)}" if choice.probed else ""
    cells: Sequence[str] = (choice.value, curve, split, _condition(choice))
    return TableRow(choice.option, [Entry(text, number=False) for text in cells])


def _condition(choice: ChoiceRecord) -> str:
    values: Mapping[str, object] = {field: value for field, value in choice.condition.items() if value is not None}
    return ", ".join(describe_value(field, value) for field, value in values.items()) or "not recorded"
