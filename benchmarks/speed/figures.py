"""What was found: numbers with their units, as JSON and as tables."""

from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One number. ``what`` is its row in the table of ``part``, ``name`` and ``unit`` its column.

    ``low`` and ``high`` are the extremes of the ``count`` measurements of which it is the median; a number that follows
    from others by arithmetic has no count.
    """

    part: str
    what: str
    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    count: int | None = None


def median_of(part, what, name, values, unit="s"):
    """The median of measurements, with their extremes."""
    return Figure(part, what, name, median(values), unit, min(values), max(values), len(values))


def as_json(figures):
    """The figures as they are written to a file."""
    return [{key: value for key, value in asdict(figure).items() if value is not None} for figure in figures]


def as_tables(figures):
    """A table in Markdown for each part: its rows and columns in the order in which they came."""
    return "\n\n".join(_table(part, [f for f in figures if f.part == part]) for part in _once(f.part for f in figures))


def _table(part, figures):
    columns = _once((figure.name, figure.unit) for figure in figures)
    cells = {(figure.what, figure.name, figure.unit): _cell(figure) for figure in figures}
    lines = [[part, *(f"{name} [{unit}]" for name, unit in columns)], ["---", *["---:"] * len(columns)]]
    lines += [
        [what, *(cells.get((what, *column), "") for column in columns)] for what in _once(f.what for f in figures)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(figure):
    value = _digits(figure.value)
    spread = figure.count and figure.count > 1
    return f"{value} ({_digits(figure.low)} to {_digits(figure.high)}, n {figure.count})" if spread else value


def _digits(value):
    """Three significant digits, and all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def _once(values):
    return list(dict.fromkeys(values))
