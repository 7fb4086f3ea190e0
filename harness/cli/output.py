"""What commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from harness.errors import UsageError
from harness.report.tables.drawing import Column, Grid, Line, aligned, draw, legible, plain, printable, terminal_width
from harness.system.whole_files import write_whole

__all__ = ["plain", "print_json", "print_table", "printable", "put", "format_size", "table_text"]


def print_json(value: Any) -> None:  # noqa: ANN401
    """Print a value as JSON on stdout."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # For an encoding that lacks a character, JSON's own escapes keep the value, where a substitute would change it.
    if legible(text, getattr(sys.stdout, "encoding", None) or "utf-8") != text:
        text = json.dumps(value, indent=2)
    click.echo(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout: fitted to the width of a terminal, or one line for each row if stdout is a pipe.

    NO_COLOR is honoured.
    """
    click.echo(table_text(columns, rows), nl=False)


def table_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the table that `print_table` prints."""
    lines = [tuple(plain(str(cell)) for cell in row) for row in rows]
    if terminal_width(sys.stdout) is None:
        return "".join(f"{line}\n" for line in aligned(columns, lines))
    drawn = [Column(name, folds=True, style=None if index else "cyan") for index, name in enumerate(columns)]
    return draw([Grid(tuple(drawn), tuple(map(Line, lines)), "simple")], sys.stdout)


def put(path: Path, content: bytes | str) -> None:
    """Write the file of ``--output``; a device such as /dev/stdout is written to, not replaced.

    Raises:
        UsageError: the file cannot be written.
    """
    # A name of a file may hold bytes that are no UTF-8, which Python reads as surrogates.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        # Replacing /dev/stdout or a named pipe by a file would be wrong.
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            # Resolved first: a symbolic link stays, and its target is replaced.
            write_whole(path.resolve(), data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}; give another --output") from None


def format_size(size: int) -> str:
    """Format a number of bytes in a fitting unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
