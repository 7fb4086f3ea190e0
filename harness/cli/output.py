"""Tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from harness.types.errors import UsageError
from harness.types.files import write_whole


def print_json(value: Any) -> None:  # noqa: ANN401
    """Print ``value`` on stdout, for a program to read."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout: drawn to fit a terminal, and elsewhere in full, a line a row.

    A pipe gets every word on its row's line, whatever the width; NO_COLOR is honoured.
    """
    lines = list(rows)
    if sys.stdout.isatty():
        _draw(columns, [tuple(plain(str(cell)) for cell in row) for row in lines])
    else:
        click.echo("\n".join(aligned(columns, lines)))


def aligned(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table as text: its head, and a line a row."""
    lines = [tuple(columns), *(tuple(plain(str(cell)) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def put(path: Path, content: bytes | str) -> None:
    """Write the file of ``--output``; what is no file, such as /dev/stdout, is written to and not replaced.

    Raises:
        UsageError: it cannot be written there.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            write_whole(path.resolve(), data)  # a link stays, and leads to what is new
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}; give another --output") from None


def plain(text: str) -> str:
    """A text on one line, without what would steer a terminal."""
    return printable(" ".join(text.split()))


def printable(line: str) -> str:
    """A line with a sign in place of each character that would steer a terminal."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def size_told(size: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _draw(columns: Sequence[str], lines: Sequence[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", style="cyan" if index == 0 else None)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))  # Text, because brackets in names are not rich's markup
    Console().print(table)
