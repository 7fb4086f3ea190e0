"""Events in a file, by which the processes that do the work report to the process that waits for them."""

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
from harness.store.store_errors import cannot

_STEPS_APART = 0.2
"""Seconds between steps that are written: a toy method does thousands a second."""


class EventLog(Reporter):
    """A reporter that appends everything to a file.

    Raises:
        StoreError: from every method, if the file cannot be written.
    """

    def __init__(self, store: Store, path: Path) -> None:
        self._store, self._last_step = store, 0.0
        store.make_way(path)
        try:
            # By lines: the reader takes only whole ones, and a process that is killed leaves at most half of the last.
            self._file = path.open("a", buffering=1, encoding="utf-8", errors="replace")
        except OSError as error:
            raise cannot("write to", store.path, error) from None

    def cells(self, missing: list[Named]) -> None:
        """Write which cells are to be made, when a process begins a job."""
        self._write("cells", cells=[_name(cell) for cell in missing])

    def started(self, cell: Named) -> None:
        """Write that work on a cell begins."""
        self._write("started", cell=_name(cell))

    def step(self, cell: Named, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """Write the iteration of a trajectory now and then, and the last one always."""
        if iteration == total or time.monotonic() - self._last_step > _STEPS_APART:
            self._last_step = time.monotonic()
            self._write("step", cell=_name(cell), iteration=iteration, total=total, scalars=_finite(scalars))

    def finished(self, cell: Named, record: Record | None) -> None:
        """Write that a cell is finished; its record is in the store."""
        self._write("finished", cell=_name(cell))

    def failed(self, cell: Named, reason: str, log: Path) -> None:
        """Write that a cell failed, with the reason."""
        self._write("failed", cell=_name(cell), reason=reason, log=str(log))

    def notice(self, text: str) -> None:
        """Write a line that the user should know."""
        self._write("notice", text=text)

    def lost(self, statuses: Mapping[str, CellStatus]) -> None:
        """Write down cells that could not be made or used: the store may know less of them."""
        for key, status in statuses.items():
            self._write(LOST, key=key, state=status.state, reason=status.reason)

    def end(self, how: str, text: str = "") -> None:
        """Write that the process ends in order: `ENDED`, `STOPPED` or `REFUSED`."""
        self._write(how, text=text)
        self._file.close()

    def _write(self, event: str, **fields: Any) -> None:  # noqa: ANN401
        try:
            self._file.write(json.dumps({"event": event, **fields}, allow_nan=False, ensure_ascii=False) + "\n")
        except OSError as error:
            raise cannot("write to", self._store.path, error) from None


def pass_on(event: Mapping[str, Any], reporter: Reporter, store: Store) -> None:
    """Pass an event on to a reporter."""
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
    except StoreError:  # damaged meanwhile: the table says so, and progress goes on without it
        return None


def _name(cell: Named) -> list[str]:
    return [cell.key, cell.kind, cell.label]


def _finite(scalars: Mapping[str, float]) -> dict[str, float]:
    """Return the finite scalars: JSON has no NaN, and the record says what diverged."""
    return {name: float(value) for name, value in scalars.items() if abs(float(value)) < float("inf")}
