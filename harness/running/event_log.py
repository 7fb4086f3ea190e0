"""Events in a file: how the processes that do the work report to the one that waits for them."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.running.reporter import Named, Reporter
from harness.store.cell_states import CellStatus
from harness.store.event_files import LOST, CellName
from harness.store.records import Record
from harness.store.store import Store

_STEPS_APART = 0.2
"""Seconds between steps that are told: a toy method does thousands a second."""


class EventLog(Reporter):
    """Appends what it hears to a file.

    Raises:
        StoreError: from every method, where the file cannot be written.
    """

    def __init__(self, store: Store, path: Path) -> None:
        self._store, self._told = store, 0.0
        store.make_way(path)
        try:
            self._file = path.open("a", buffering=1, encoding="utf-8", errors="replace")
        except OSError as error:
            raise store.cannot("write to", error) from None

    def cells(self, missing: list[Named]) -> None:
        """A process has begun a job, and these are to be made."""
        self._write("cells", cells=[_name(cell) for cell in missing])

    def started(self, cell: Named) -> None:
        """Name the cell."""
        self._write("started", cell=_name(cell))

    def step(self, cell: Named, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """Now and then, and at the end."""
        if iteration == total or time.monotonic() - self._told > _STEPS_APART:
            self._told = time.monotonic()
            self._write("step", cell=_name(cell), iteration=iteration, total=total, scalars=_finite(scalars))

    def finished(self, cell: Named, record: Record | None) -> None:
        """Name the cell: the record is in the store."""
        self._write("finished", cell=_name(cell))

    def failed(self, cell: Named, reason: str, log: Path) -> None:
        """With the reason."""
        self._write("failed", cell=_name(cell), reason=reason, log=str(log))

    def notice(self, text: str) -> None:
        """As it is."""
        self._write("notice", text=text)

    def lost(self, statuses: Mapping[str, CellStatus]) -> None:
        """Write down cells that could not be made or used: the store may know less of them."""
        for key, status in statuses.items():
            self._write(LOST, key=key, state=status.state, reason=status.reason)

    def end(self, how: str, text: str = "") -> None:
        """The process ends by its own will: `ENDED`, `STOPPED` or `REFUSED`."""
        self._write(how, text=text)
        self._file.close()

    def _write(self, event: str, **told: Any) -> None:  # noqa: ANN401
        try:
            self._file.write(json.dumps({"event": event, **told}, allow_nan=False, ensure_ascii=False) + "\n")
        except OSError as error:
            raise self._store.cannot("write to", error) from None


def retell(event: Mapping[str, Any], reporter: Reporter, store: Store) -> None:
    """Tell a reporter what an event says."""
    # An event of another kind may hold anything under this name: the reader has checked its own fields only.
    cell = CellName(*event["cell"]) if event["event"] in ("started", "step", "failed", "finished") else None
    match event["event"]:
        case "notice" | "stopped" if event["text"]:
            reporter.notice(event["text"])
        case "started" if cell:
            reporter.started(cell)
        case "step" if cell:
            reporter.step(cell, event["iteration"], event["total"], event["scalars"])
        case "failed" if cell:
            reporter.failed(cell, event["reason"], Path(event["log"]))
        case "finished" if cell:
            reporter.finished(cell, _record(store, cell))


def _record(store: Store, cell: CellName) -> Record | None:
    try:
        return store.record(cell.key)
    except StoreError:  # somebody altered it meanwhile: the table will say so
        return None


def _name(cell: Named) -> list[str]:
    return [cell.key, cell.kind, cell.label]


def _finite(scalars: Mapping[str, float]) -> dict[str, float]:
    """JSON has no NaN; what diverges is told by its record."""
    return {name: float(value) for name, value in scalars.items() if abs(float(value)) < float("inf")}
