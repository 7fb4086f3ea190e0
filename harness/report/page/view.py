"""What the template is given: sections, tables and pictures; all text in them is data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.report.page.pictures import Picture


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    text: str
    number: bool = False


@dataclass(frozen=True)
class Entry:
    """One cell of a table.

    Attributes:
        text: what stands there.
        spread: beside it, smaller.
        below: beneath it, smaller.
        kind: ``best`` or nothing.
        number: aligned to the right.
    """

    text: str
    spread: str = ""
    below: str = ""
    kind: str = ""
    number: bool = True


@dataclass(frozen=True)
class TableRow:
    """A row with its head; ``grey`` for numbers that are not of these stores."""

    head: str
    cells: Sequence[Entry]
    grey: bool = False


@dataclass(frozen=True)
class Group:
    """Rows under a common title, if it has one."""

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


@dataclass(frozen=True)
class Strips:
    """Pictures one below the other, each with its title at the side."""

    title: str
    rows: Sequence[Picture]


@dataclass(frozen=True)
class Again:
    """Cells that one command makes again.

    Attributes:
        name: what they are.
        told: their mean, and how many.
        command: the line, or None, and then the reason.
        facts: pairs of a word and what is to be said.
        table: the cells themselves, where there are not too many on the page.
    """

    name: str
    told: str
    command: str | None
    reason: str
    facts: Sequence[tuple[str, str]]
    table: Table | None

    @property
    def pieces(self) -> list[str]:
        """The command in pieces that stay on a line: words with what belongs to them."""
        return re.split(r" (?=--)", self.command or "")


@dataclass(frozen=True)
class Part:
    """A piece of a section."""

    title: str = ""
    intro: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    strips: Sequence[Strips] = ()
    folded: Sequence[Table] = ()
    again: Sequence[Again] = ()


@dataclass(frozen=True)
class Section:
    """A section with a heading; ``id`` is unique on the page."""

    id: str
    title: str
    intro: Sequence[str] = ()
    parts: Sequence[Part] = field(default_factory=tuple)
