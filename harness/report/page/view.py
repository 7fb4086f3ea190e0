"""The data of the template: sections, tables and pictures, whose texts are data, never markup."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.report.page.drawing.pictures import Picture

_LAYOUTS = {3: "narrow", 6: "medium", 9: "wide"}
"""The layout of tables with at most so many columns."""


@dataclass(frozen=True)
class Column:
    """The heading of a column."""

    text: str
    number: bool = False


@dataclass(frozen=True)
class Entry:
    """A cell of a table.

    Attributes:
        text: the text.
        spread: text beside it, smaller.
        below: text below it, smaller.
        kind: ``best``, the verdict (``helps``, ``hurts``, ``same``, ``undecided``) or empty.
        number: whether it is aligned to the right.
    """

    text: str
    spread: str = ""
    below: str = ""
    kind: str = ""
    number: bool = True


@dataclass(frozen=True)
class TableRow:
    """A row with its heading; ``grey`` for numbers that are not from these stores."""

    head: str
    cells: Sequence[Entry]
    grey: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under a common title, which may be empty."""

    title: str
    rows: Sequence[TableRow]


@dataclass(frozen=True)
class Table:
    """A table; ``id`` is unique on the page."""

    id: str
    caption: str
    columns: Sequence[Column]
    groups: Sequence[Group]
    notes: Sequence[str] = ()

    @property
    def layout(self) -> str:
        """How wide a screen its columns need: ``narrow`` that of a phone, ``medium``, ``wide`` or ``widest``.

        On narrower ones, each row is a list of its cells, so that nothing is cut off or has to be scrolled sideways.
        """
        return next((name for most, name in _LAYOUTS.items() if len(self.columns) <= most), "widest")


@dataclass(frozen=True)
class Strips:
    """Pictures in a column, each with its title at the side."""

    title: str
    rows: Sequence[Picture]


@dataclass(frozen=True)
class Rerun:
    """Cells that a command computes again.

    Attributes:
        name: what they are.
        outcome: their mean accuracy and their number.
        command: the command line; None if there is none.
        reason: why there is no command.
        facts: pairs of a label and a text.
        table: the cells themselves; None if there are too many for the page.
    """

    name: str
    outcome: str
    command: str | None
    reason: str
    facts: Sequence[tuple[str, str]]
    table: Table | None

    @property
    def pieces(self) -> list[str]:
        """The command in pieces that stay on one line: each option with its value."""
        return re.split(r" (?=--)", self.command or "")


@dataclass(frozen=True)
class Part:
    """A part of a section."""

    title: str = ""
    intro: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    strips: Sequence[Strips] = ()
    folded: Sequence[Table] = ()
    reruns: Sequence[Rerun] = ()


@dataclass(frozen=True)
class Section:
    """A section with a heading; ``id`` is unique on the page."""

    id: str
    title: str
    intro: Sequence[str] = ()
    parts: Sequence[Part] = field(default_factory=tuple)
