"""Results in notebooks: as a frame of pandas, and as a table of HTML."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from harness.report.tables.wording import or_dash
from harness.system.packages import require_packages
from harness.types.plurals import counted

if TYPE_CHECKING:  # optional, and only imported by who asks for a frame
    import pandas

_MOST_ROWS = 60
"""Rows that a notebook shows."""


def frame(rows: Iterable[Mapping[str, Any]]) -> "pandas.DataFrame":
    """Return rows as a frame.

    Raises:
        UsageError: pandas is not installed.
    """
    require_packages("to_pandas()", {"pandas": "ddbench[pandas]"})
    import pandas

    return pandas.DataFrame(list(rows))


def html(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], beneath: Iterable[str]) -> str:
    """Render a table with lines beneath it; columns in which no row has a value are left out."""
    used = [name for name in columns if any(row.get(name) is not None for row in rows)]
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in used)
    cells = [[Markup("<td>{}</td>").format(or_dash(row.get(name))) for name in used] for row in rows[:_MOST_ROWS]]
    body = Markup("").join(Markup("<tr>{}</tr>").format(Markup("").join(line)) for line in cells)
    more = [f"and {counted(len(rows) - _MOST_ROWS, 'more row')}"] if len(rows) > _MOST_ROWS else []
    lines = Markup("<br>").join(escape(line) for line in (*more, *beneath))
    table = Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body) if rows else ""
    return str(Markup("<div><p><b>{}</b></p>{}<p>{}</p></div>").format(title, table, lines))
