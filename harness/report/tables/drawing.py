"""Drawing of tables and lines for a terminal, a pipe or a file, without ever cutting a number or a name.

A pipe gets every row on one line. On a terminal, a table that is too wide folds its prose between words, and if that is
not enough, each row becomes a block of lines. Words are never broken: the terminal itself wraps a name that is longer
than a line, so that it stays whole when it is copied.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SUBSTITUTES = {
    "±": "+-", "−": "-", "–": "-", "—": "-", "×": "x", "…": "...", "†": "!", "‡": "!!", "✗": "x", "→": "->",
    "≤": "<=", "≠": "!=", "≥": ">=", "·": ".", "•": "*", "’": "'", "‘": "'", "“": '"', "”": '"',
    "\N{REPLACEMENT CHARACTER}": "?",
}  # fmt: skip
"""Replacements for characters that an encoding lacks."""
NO_LIMIT = 100_000
"""Width of a pipe in columns: no table is wider."""
_USUAL_WIDTH = 80
_WIDEST = 10_000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: the text above it.
        right: whether its cells are numbers, aligned to the right; in a block each has its own line.
        folds: whether its cells are prose, which may be folded between words.
        style: a style of rich.
    """

    heading: str
    right: bool = False
    folds: bool = False
    style: str | None = None


@dataclass(frozen=True)
class Line:
    """A row of a table; ``title`` replaces its first cells above a block."""

    cells: tuple[str, ...]
    style: str | None = None
    begins_section: bool = False
    title: str | None = None


@dataclass(frozen=True)
class Grid:
    """A table to draw.

    Attributes:
        columns: headings and how cells are drawn.
        lines: the rows.
        frame: the lines around and between them; an open one has no empty lines around it.
        heading_columns: number of columns, from the first, that identify a row.
        turned: two headings of a table with a row for each cell of the other columns, which replaces a table that is
            too wide: what the cell belongs to, and the cell. None if there is no such table.
        instead: what replaces a table that is too wide; empty if nothing does.
    """

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    frame: Literal["heavy", "simple", "open"] = "heavy"
    heading_columns: int = 1
    turned: tuple[str, str] | None = None
    instead: tuple["Grid | Words", ...] = ()


@dataclass(frozen=True)
class Words:
    """A paragraph to draw."""

    text: str
    style: str | None = None


def draw(parts: Iterable[Grid | Words], file: TextIO) -> str:
    """Render tables and paragraphs for the width, the encoding and the colours of ``file``."""
    width, page = terminal_width(file), _Page(getattr(file, "encoding", None) or "utf-8")
    console = _console(page, width)
    for part in parts:
        _draw_part(console, _legible(part, page.encoding), width)
    return page.getvalue()


def _draw_part(console: "Console", part: Grid | Words, width: int | None) -> None:
    if isinstance(part, Words):
        _print_folded(console, part.text, width, part.style)
    else:
        _draw_grid(console, part, width)


class _Page(io.StringIO):
    """A buffer that rich draws on; the caller writes to the stream, since it can handle the errors of the stream."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream, by which rich chooses the characters of frames."""
        return self._encoding


def terminal_width(file: TextIO) -> int | None:
    """Return the width of the terminal in columns; None if ``file`` is not a terminal."""
    # Not asked of rich, which takes a pipe for a terminal if FORCE_COLOR and the like are set.
    try:
        if not file.isatty():
            return None
    except ValueError:  # the file is closed
        return None
    try:
        columns = os.get_terminal_size(file.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    # As shells and rich do: COLUMNS overrides what the terminal says.
    return min(_wanted_columns() or columns or _USUAL_WIDTH, _WIDEST)


def _wanted_columns() -> int:
    """Return the width that COLUMNS asks for; 0 if it does not."""
    wanted = os.environ.get("COLUMNS", "")
    return int(wanted) if re.fullmatch("[0-9]{1,5}", wanted) else 0


def fold(text: str, width: int | None, indent: str = "") -> list[str]:
    """Fold a text into lines of at most ``width`` columns without breaking words; later lines are indented."""
    from rich.cells import cell_len

    # cell_len, not len: East Asian characters and some signs take two columns.
    if width is None or cell_len(text) <= width:
        return [text]
    lines, line = [], ""
    for word in re.findall(r"\s*\S+", text):
        if line and cell_len(line + word) > width:
            lines.append(line)
            line = indent + word.lstrip()
        else:
            line += word
    return [*lines, line]


def legible(text: str, encoding: str) -> str:
    """Replace the characters that an encoding lacks."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(letter if _has(encoding, letter) else substitute(letter) for letter in text)
    return text


def substitute(letter: str) -> str:
    """Return the replacement for a character that an encoding lacks: a similar one, or its code point."""
    return SUBSTITUTES.get(letter) or letter.encode("ascii", "backslashreplace").decode()


def _has(encoding: str, letter: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def plain(text: str) -> str:
    """Join a text into one line without control characters."""
    return printable(" ".join(text.split()))


def printable(line: str) -> str:
    """Replace the control characters of a line."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def _legible(part: Grid | Words, encoding: str) -> Grid | Words:
    """Replace the characters that the encoding lacks in all texts."""
    # Before the layout, since replacements have other widths.
    if isinstance(part, Words):
        return Words("\n".join(legible(printable(line), encoding) for line in part.text.split("\n")), part.style)

    def readable(text: str) -> str:
        return legible(printable(text), encoding)

    columns = tuple(Column(readable(col.heading), col.right, col.folds, col.style) for col in part.columns)
    lines = tuple(
        Line(tuple(map(readable, line.cells)), line.style, line.begins_section, line.title and readable(line.title))
        for line in part.lines
    )
    instead = tuple(_legible(other, encoding) for other in part.instead)
    return replace(part, columns=columns, lines=lines, instead=instead)


def console_for(file: TextIO) -> "Console":
    """Return a console of rich for a stream, with width and colours only if it is a terminal."""
    if terminal_width(file) is None:
        return _console(file, None)
    from rich.console import Console

    return Console(file=file, force_terminal=True, force_jupyter=False)  # without a width: the window may be resized


def _console(file: TextIO, width: int | None) -> "Console":
    from rich.console import Console

    if width is None:
        return Console(file=file, width=NO_LIMIT, height=100, color_system=None, force_terminal=False,
                       force_jupyter=False)  # fmt: skip
    # A fixed height and no Jupyter or Windows modes: only the width may change what is drawn.
    return Console(file=file, width=width, height=100, force_terminal=True, force_jupyter=False, legacy_windows=False)


def _print_folded(console: "Console", text: str, width: int | None, style: str | None = None, indent: str = "") -> None:
    from rich.text import Text

    lines = [folded for line in text.split("\n") for folded in fold(line, width, indent)]
    console.print(Text("\n".join(lines), style=style or ""), highlight=False, soft_wrap=True)


def _draw_grid(console: "Console", grid: Grid, width: int | None) -> None:
    # In a pipe lines have no limit, since programs read them; but a table that can be divided is meant for people.
    table = _table_within(
        console, grid, (_wanted_columns() or _USUAL_WIDTH) if width is None and grid.instead else width
    )
    if table is None and grid.instead:
        for part in grid.instead:
            _draw_part(console, part, width)
        return
    if table is None and grid.turned:
        table = _table_within(console, _turn(grid, grid.turned), width)
    if table is not None:
        console.print(table, highlight=False)
    elif width is not None:
        _print_blocks(console, grid, width)


def _table_within(console: "Console", grid: Grid, width: int | None) -> "Table | None":
    """Return the table with its prose folded if necessary; None if it does not fit."""
    from rich.measure import Measurement

    # Laid out once without limits, to measure what the frame adds.
    table = _table(grid, None)
    if width is None or not grid.columns:
        return table
    natural = [_widest(grid, index, whole=True) for index in range(len(grid.columns))]
    narrow = [_widest(grid, index, whole=False) for index in range(len(grid.columns))]
    frame = Measurement.get(console, console.options.update(width=NO_LIMIT), table).maximum - sum(natural)
    if sum(natural) + frame <= width:
        return table
    return _table(grid, _shared_out(natural, narrow, width - frame)) if sum(narrow) + frame <= width else None


def _turn(grid: Grid, headings: tuple[str, str]) -> Grid:
    """Return a table with a row for each number."""
    first = grid.heading_columns
    columns = (*grid.columns[:first], Column(headings[0]), Column(headings[1], right=True))
    lines = []
    for number, line in enumerate(grid.lines):
        begins_section = number > 0
        for column, cell in zip(grid.columns[first:], line.cells[first:], strict=True):
            if cell:
                cells = (*line.cells[:first], column.heading, cell)
                lines.append(Line(cells, line.style or column.style, begins_section))
                begins_section = False
    return Grid(columns, tuple(lines), grid.frame, first)


def _widest(grid: Grid, index: int, whole: bool) -> int:
    """Return the width that a column needs for whole cells, or for their longest unbreakable part."""
    from rich.cells import cell_len

    column = grid.columns[index]
    pieces = [column.heading] if whole else column.heading.split()
    for line in grid.lines:
        pieces += line.cells[index].split() if column.folds and not whole else [line.cells[index]]
    return max(map(cell_len, pieces), default=0)


def _shared_out(natural: Sequence[int], narrow: Sequence[int], room: int) -> list[int]:
    """Return widths that fit into ``room``, narrowing the widest column that can be narrower first."""
    widths = list(natural)
    # Greedy, column by column: tables have few columns, and the result does not depend on their order.
    while sum(widths) > room:
        widths[max((i for i in range(len(widths)) if widths[i] > narrow[i]), key=lambda i: widths[i])] -= 1
    return widths


def _table(grid: Grid, widths: Sequence[int] | None) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    frames = {
        "heavy": lambda: Table(),
        "simple": lambda: Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold"),
        "open": lambda: Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold"),
    }
    table = frames[grid.frame]()
    for index, column in enumerate(grid.columns):
        # Text, because brackets in names are not rich's markup
        table.add_column(Text(column.heading), justify="right" if column.right else "left", overflow="fold",
                         style=column.style, width=widths[index] if widths else None)  # fmt: skip
    for line in grid.lines:
        if line.begins_section:
            table.add_section()
        table.add_row(*map(Text, line.cells), style=line.style)
    return table


def _print_blocks(console: "Console", grid: Grid, width: int) -> None:
    """Print each row as a block: its heading cells, and below them a line for each other cell."""
    first = grid.heading_columns
    longest = max((len(column.heading) for column in grid.columns[first:]), default=0)
    for number, line in enumerate(grid.lines):
        if number:
            console.print()
        cells = list(zip(grid.columns, line.cells, strict=True))
        title = line.title or "  ".join(f"{column.heading} {cell}" for column, cell in cells[:first] if cell)
        _print_folded(console, title, width, line.style or "bold", "  ")
        for column, cell in cells[first:]:
            if cell.strip():
                _print_folded(console, _detail(column, cell, longest, width), width, line.style, "    ")
    console.print()


def _detail(column: Column, cell: str, longest: int, width: int) -> str:
    """Return a line of a block, aligned with the others if there is room; a long number gets its own line."""
    from rich.cells import cell_len

    in_line, closer = f"  {column.heading:{longest}}  {cell}", f"  {column.heading}  {cell}"
    if cell_len(in_line) <= width:
        return in_line
    return f"  {column.heading}\n    {cell}" if column.right and cell_len(closer) > width else closer


def aligned(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table as text: its headings, and a line for each row."""
    lines = [tuple(columns), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
