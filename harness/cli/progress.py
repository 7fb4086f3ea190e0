"""Progress on stderr: bars on a terminal, a line for each event elsewhere."""

import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from harness.report.tables.drawing import console_for, printable
from harness.running.reporter import Named, Reporter
from harness.store.records import Record, StoredArtifact, StoredSet, StoredStudent
from harness.types.plurals import counted


class Lines(Reporter):
    """A reporter that prints a line for each event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def planned(self, missing: int, done: int) -> None:
        """Print how many cells are missing."""
        self._say(f"{counted(missing, 'cell')} to make, {done} in the store")

    def started(self, cell: Named) -> None:
        """Print that a distillation starts; students are quick, and only their end is printed."""
        if cell.kind == "distilled":
            self._say(f"started  {cell.label}")

    def step(self, cell: Named, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """Print a line after each tenth of the iterations."""
        if iteration % max(1, total // 10) == 0:
            values = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            self._say(f"iteration {iteration} of {total}: {values}".removesuffix(": "))

    def finished(self, cell: Named, record: Record | None) -> None:
        """Print the outcome of a cell."""
        self._say(f"done     {cell.label}{outcome(record)}")

    def failed(self, cell: Named, reason: str, log: Path) -> None:
        """Print why a cell failed, and where its traceback is."""
        self._say(f"FAILED   {cell.label}: {reason} (traceback in {log})")

    def notice(self, text: str) -> None:
        """Print a message."""
        self._say(text)

    def _say(self, text: str) -> None:
        # Labels hold names of folders and plugins: neither markup nor control characters may take effect.
        self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the stream as it is: it belongs to the process."""


class Bars(Lines):
    """A reporter with a bar for the cells and one for the running trajectory; events scroll above them."""

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
        # Lines must be printed through the console of the bars, which draws the bars again below them.
        super().__init__(self.progress.console)
        self._cells = self.progress.add_task("cells", total=None)
        self._steps = self.progress.add_task("iterations", visible=False)

    def planned(self, missing: int, done: int) -> None:
        """Set the length of the bar for cells."""
        super().planned(missing, done)
        self.progress.update(self._cells, total=missing, completed=0)

    def step(self, cell: Named, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """Move the bar for iterations."""
        values = " ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        self.progress.update(
            # Hidden at the last iteration, until the next trajectory begins.
            self._steps,
            total=total,
            completed=iteration,
            visible=iteration < total,
            description=escape(values),
        )

    def finished(self, cell: Named, record: Record | None) -> None:
        """Move the bar for cells."""
        super().finished(cell, record)
        self.progress.advance(self._cells)

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bars."""
        self.progress.stop()


def outcome(record: Record | None) -> str:
    """Return what a record says in a few words; nothing if it says no more than that the cell is done."""
    if isinstance(record, StoredStudent):
        result = record.result
        return f": {100 * result.accuracy:.1f} % in {result.seconds:.0f} s{' (collapsed)' * result.collapsed}"
    if isinstance(record, StoredSet):
        return f": {record.result.status} in {record.result.seconds:.0f} s"
    scores = _accuracies(record) if isinstance(record, StoredArtifact) else []
    return f": {', '.join(scores)}" if scores else ""


def _accuracies(record: StoredArtifact) -> list[str]:
    """Return how good a network on the real data is, such as ``96.3 % on train``, by the names of its scalars."""
    shares = {
        name.removesuffix("_accuracy"): value for name, value in record.result.items() if name.endswith("_accuracy")
    }
    return [f"{100 * value:.1f} % on {split}" for split, value in shares.items() if isinstance(value, float)]


def reporter_for_stderr() -> Lines:
    """Return a reporter that draws bars if stderr is a terminal, and otherwise prints lines."""
    console = console_for(sys.stderr)
    return Bars(console) if console.is_terminal else Lines(console)
