"""What a run tells while it goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from harness.store.records import Record


class Named(Protocol):
    """What is told of a cell."""

    @property
    def key(self) -> str:
        """Its key."""
        ...

    @property
    def kind(self) -> str:
        """``distilled``, ``artifact`` or ``student``."""
        ...

    @property
    def label(self) -> str:
        """What it is, for people."""
        ...


class Reporter:
    """Hears of the work, and does nothing; subclasses show it on the command line, or collect it."""

    def planned(self, missing: int, done: int) -> None:
        """So many cells are to be made, so many are there."""

    def started(self, cell: Named) -> None:
        """Work on a cell begins."""

    def step(self, cell: Named, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """A trajectory has done ``iteration`` of ``total`` updates."""

    def finished(self, cell: Named, record: Record | None) -> None:
        """A cell is in the store; the record is None if it cannot be read any more."""

    def failed(self, cell: Named, reason: str, log: Path) -> None:
        """A cell could not be made; the others go on."""

    def notice(self, text: str) -> None:
        """Something that the user should know."""
