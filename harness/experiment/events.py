"""What a run tells while it goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.experiment.cells import Cell


class Reporter:
    """Hears of the work, and does nothing; subclasses show it on the command line, or collect it."""

    def planned(self, missing: int, done: int) -> None:
        """So many cells are to be made, so many are there."""

    def started(self, cell: Cell) -> None:
        """Work on a cell begins."""

    def step(self, cell: Cell, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """A trajectory has done ``iteration`` of ``total`` updates."""

    def finished(self, cell: Cell, record: Mapping[str, Any]) -> None:
        """A cell is in the store."""

    def failed(self, cell: Cell, reason: str, log: Path) -> None:
        """A cell could not be made; the others go on."""

    def notice(self, text: str) -> None:
        """Something that the user should know."""
