"""Tables and lines as a terminal, a pipe or a file takes them: no digit and no name is ever cut, at any width.

A pipe gets every row on a line of its own. On a terminal a table that is too wide lets its prose fold between words;
if that does not do, each row becomes a block of lines. Words are never broken: a name that is longer than the terminal
is wide is left to the terminal, so that it is still one when it is copied.
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
"""What stands for a sign in an encoding that does not have it."""
NO_LIMIT = 100_000
"""Columns of a pipe: no table is wider."""
_USUAL_WIDTH = 80
_WIDEST = 10_000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: what stands above it.
        right: its cells are numbers, in line at the right; in a block each has a line of its own.
        folds: its cells are prose, which may be folded between words.
        style: of rich.
    """

    heading: str
    right: bool = False
    folds: bool = False
    style: str | None = None


@dataclass(frozen=True)
class Line:
    """A row of a table; ``title`` stands above its block in place of its cells."""

    cells: tuple[str, ...]
    style: str | None = None
    begins_section: bool = False
    title: str | None = None


@dataclass(frozen=True)
class Grid:
    """A table for people.

    Attributes:
        columns: headings and how cells are drawn.
        lines: the rows.
        frame: what is drawn around and between them.
        heading_columns: how many columns, from the first, say what a row is.
        turned: headings of the table that has a row for each cell of the other columns, if this one is too wide: what
            the cell is of, and what it is. None if there is no such table.
    """

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    frame: Literal["heavy", "simple"] = "heavy"
    heading_columns: int = 1
    turned: tuple[str, str] | None = None


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    style: str | None = None


def draw(parts: Iterable[Grid | Words], file: TextIO) -> str:
    """Tables and paragraphs as ``file`` takes them: for the width, the encoding and the colours that it has."""
    width, page = terminal_width(file), _Page(getattr(file, "encoding", None) or "utf-8")
    console = _console(page, width)
    for part in parts:
        part = _legible(part, page.encoding)
        if isinstance(part, Words):
            _print_folded(console, part.text, width, part.style)
        else:
            _draw_grid(console, part, width)
    return page.getvalue()


class _Page(io.StringIO):
    """What rich draws on: the stream itself is written to by whoever knows what its errors mean."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream: by it rich chooses the signs that frames are made of."""
        return self._encoding


def terminal_width(file: TextIO) -> int | None:
    """Columns of the terminal that ``file`` is; None if it is none.

    The stream itself decides: FORCE_COLOR and the like, by which rich does, do not make a terminal of a pipe.
    """
    try:
        if not file.isatty():
            return None
    except ValueError:  # it is closed
        return None
    try:
        columns = os.get_terminal_size(file.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    wanted = os.environ.get("COLUMNS", "")
    if re.fullmatch("[0-9]{1,5}", wanted) and int(wanted):
        columns = int(wanted)
    return min(columns or _USUAL_WIDTH, _WIDEST)


def fold(text: str, width: int | None, indent: str = "") -> list[str]:
    """A text in lines that are at most ``width`` wide, the second and later ones indented; no word is broken."""
    from rich.cells import cell_len

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
    """A text with something else in place of each sign that an encoding does not have."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(letter if _has(encoding, letter) else substitute(letter) for letter in text)
    return text


def substitute(letter: str) -> str:
    """What stands for a letter in an encoding that does not have it: something like it, else its code point."""
    return SUBSTITUTES.get(letter) or letter.encode("ascii", "backslashreplace").decode()


def _has(encoding: str, letter: str) -> bool:
    try:
        letter.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def plain(text: str) -> str:
    """A text on one line, without what would steer a terminal."""
    return printable(" ".join(text.split()))


def printable(line: str) -> str:
    """A line with a sign in place of each character that would steer a terminal."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def _legible(part: Grid | Words, encoding: str) -> Grid | Words:
    """The same with texts that the encoding has: before it is laid out, since substitutes have other widths."""
    if isinstance(part, Words):
        return Words("\n".join(legible(printable(line), encoding) for line in part.text.split("\n")), part.style)

    def readable(text: str) -> str:
        return legible(printable(text), encoding)

    columns = tuple(Column(readable(one.heading), one.right, one.folds, one.style) for one in part.columns)
    lines = tuple(
        Line(tuple(map(readable, line.cells)), line.style, line.begins_section, line.title and readable(line.title))
        for line in part.lines
    )
    return replace(part, columns=columns, lines=lines)


def console_for(file: TextIO) -> "Console":
    """A console of rich for a stream: for a terminal with its width and colours, for anything else without both."""
    if terminal_width(file) is None:
        return _console(file, None)
    from rich.console import Console

    return Console(file=file, force_terminal=True, force_jupyter=False)  # its width may change while it is used


def _console(file: TextIO, width: int | None) -> "Console":
    from rich.console import Console

    if width is None:
        return Console(file=file, width=NO_LIMIT, height=100, color_system=None, force_terminal=False,
                       force_jupyter=False)  # fmt: skip
    return Console(file=file, width=width, height=100, force_terminal=True, force_jupyter=False, legacy_windows=False)


def _print_folded(console: "Console", text: str, width: int | None, style: str | None = None, indent: str = "") -> None:
    from rich.text import Text

    lines = [folded for line in text.split("\n") for folded in fold(line, width, indent)]
    console.print(Text("\n".join(lines), style=style or ""), highlight=False, soft_wrap=True)


def _draw_grid(console: "Console", grid: Grid, width: int | None) -> None:
    table = _table_within(console, grid, width)
    if table is None and grid.turned:
        table = _table_within(console, _turned(grid, grid.turned), width)
    if table is not None:
        console.print(table, highlight=False)
    elif width is not None:
        _print_blocks(console, grid, width)


def _table_within(console: "Console", grid: Grid, width: int | None) -> "Table | None":
    """The table, its prose folded if need be; None if it does not fit."""
    from rich.measure import Measurement

    table = _table(grid, None)
    if width is None or not grid.columns:
        return table
    natural = [_widest(grid, index, whole=True) for index in range(len(grid.columns))]
    narrow = [_widest(grid, index, whole=False) for index in range(len(grid.columns))]
    frame = Measurement.get(console, console.options.update(width=NO_LIMIT), table).maximum - sum(natural)
    if sum(natural) + frame <= width:
        return table
    return _table(grid, _shared_out(natural, narrow, width - frame)) if sum(narrow) + frame <= width else None


def _turned(grid: Grid, headings: tuple[str, str]) -> Grid:
    """A table with a row for each number."""
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
    """Columns that a column of the table needs: for whole cells, or only for what may not be broken."""
    from rich.cells import cell_len

    column = grid.columns[index]
    pieces = [column.heading] if whole else column.heading.split()
    for line in grid.lines:
        pieces += line.cells[index].split() if column.folds and not whole else [line.cells[index]]
    return max(map(cell_len, pieces), default=0)


def _shared_out(natural: Sequence[int], narrow: Sequence[int], room: int) -> list[int]:
    """Widths that fit into ``room``: the widest column that can be narrower gives way first."""
    widths = list(natural)
    while sum(widths) > room:
        widths[max((i for i in range(len(widths)) if widths[i] > narrow[i]), key=lambda i: widths[i])] -= 1
    return widths


def _table(grid: Grid, widths: Sequence[int] | None) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table() if grid.frame == "heavy" else Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
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
    """Print each row as a block: what it is, and beneath it a line for each other cell."""
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
    """A line of a block, in line with the others if there is room; a number that has none gets a line of its own."""
    from rich.cells import cell_len

    in_line, closer = f"  {column.heading:{longest}}  {cell}", f"  {column.heading}  {cell}"
    if cell_len(in_line) <= width:
        return in_line
    return f"  {column.heading}\n    {cell}" if column.right and cell_len(closer) > width else closer


def aligned(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table as text: its head, and a line a row."""
    lines = [tuple(columns), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
