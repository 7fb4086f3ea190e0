"""Reports of progress: what a run says while it goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from harness.store.records import Record


class Named(Protocol):
    """A cell as reports name it."""

    @property
    def key(self) -> str:
        """The cell's key."""
        ...

    @property
    def kind(self) -> str:
        """The kind of the cell: ``distilled``, ``artifact`` or ``student``."""
        ...

    @property
    def label(self) -> str:
        """The cell's description for people."""
        ...


class Reporter:
    """Receives reports of the work and does nothing; subclasses show or collect them."""

    def planned(self, missing: int, done: int) -> None:
        """Receive the number of cells to make, and of those that are in the store."""

    def started(self, cell: Named) -> None:
        """Receive that work on a cell begins."""

    def step(self, cell: Named, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """Receive that a trajectory has done ``iteration`` of ``total`` updates."""

    def finished(self, cell: Named, record: Record | None) -> None:
        """Receive that a cell is in the store; the record is None if it cannot be read any more."""

    def failed(self, cell: Named, reason: str, log: Path) -> None:
        """Receive that a cell could not be made; the others go on."""

    def notice(self, text: str) -> None:
        """Receive a line that the user should know."""


class WithoutRepeats(Reporter):
    """Passes all reports on to another reporter, but each notice only once, for several runs that say the same."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._passed = reporter, set[str]()

    def planned(self, missing: int, done: int) -> None:
        """Pass on the number of cells to make, and of those that are in the store."""
        self._reporter.planned(missing, done)

    def started(self, cell: Named) -> None:
        """Pass on that work on a cell begins."""
        self._reporter.started(cell)

    def step(self, cell: Named, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """Pass on that a trajectory has done ``iteration`` of ``total`` updates."""
        self._reporter.step(cell, iteration, total, scalars)

    def finished(self, cell: Named, record: Record | None) -> None:
        """Pass on that a cell is in the store."""
        self._reporter.finished(cell, record)

    def failed(self, cell: Named, reason: str, log: Path) -> None:
        """Pass on that a cell could not be made."""
        self._reporter.failed(cell, reason, log)

    def notice(self, text: str) -> None:
        """Pass a line on unless it was passed on before."""
        if text not in self._passed:
            self._passed.add(text)
            self._reporter.notice(text)
