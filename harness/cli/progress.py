"""Progress on stderr: a bar on a terminal, a line an event elsewhere."""

import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from harness.report.tables.drawing import console_for, printable
from harness.running.reporter import Named, Reporter
from harness.store.records import Record, StoredSet, StoredStudent
from harness.types.plurals import counted


class Lines(Reporter):
    """A line an event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def planned(self, missing: int, done: int) -> None:
        """Say how much there is to do."""
        self._say(f"{counted(missing, 'cell')} to make, {done} in the store")

    def started(self, cell: Named) -> None:
        """Say what begins, where it may take long."""
        if cell.kind == "distilled":
            self._say(f"started  {cell.label}")

    def step(self, cell: Named, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """A line each tenth of the way."""
        if iteration % max(1, total // 10) == 0:
            told = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            self._say(f"iteration {iteration} of {total}: {told}")

    def finished(self, cell: Named, record: Record | None) -> None:
        """Say what came out."""
        self._say(f"done     {cell.label}{outcome(record)}")

    def failed(self, cell: Named, reason: str, log: Path) -> None:
        """Say why, and where more is told."""
        self._say(f"FAILED   {cell.label}: {reason} (traceback in {log})")

    def notice(self, text: str) -> None:
        """Pass it on."""
        self._say(text)

    def _say(self, text: str) -> None:
        self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""


class Bars(Lines):
    """A bar for the cells and one for the trajectory at work; events scroll above them."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        super().__init__(self.progress.console)
        self._cells = self.progress.add_task("cells", total=None)
        self._steps = self.progress.add_task("iterations", visible=False)

    def planned(self, missing: int, done: int) -> None:
        """Set the length of the bar."""
        super().planned(missing, done)
        self.progress.update(self._cells, total=missing, completed=0)

    def step(self, cell: Named, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """Move the lower bar."""
        told = " ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        self.progress.update(
            self._steps, total=total, completed=iteration, visible=iteration < total, description=escape(told)
        )

    def finished(self, cell: Named, record: Record | None) -> None:
        """Move the upper bar."""
        super().finished(cell, record)
        self.progress.advance(self._cells)

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bars away."""
        self.progress.stop()


def outcome(record: Record | None) -> str:
    """Return what a record says in a few words; nothing if it says no more than that the cell is done."""
    if isinstance(record, StoredStudent):
        result = record.result
        return f": {100 * result.accuracy:.1f} % in {result.seconds:.0f} s{' (collapsed)' * result.collapsed}"
    return f": {record.result.status} in {record.result.seconds:.0f} s" if isinstance(record, StoredSet) else ""


def reporter() -> Lines:
    """What suits stderr."""
    console = console_for(sys.stderr)
    return Bars(console) if console.is_terminal else Lines(console)
