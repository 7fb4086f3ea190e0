"""Events in a file, a line of JSON each: how the processes that do the work tell the one that waits for them."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.experiment.events import Named, Reporter
from harness.experiment.standing import LOST as LOST_STATES
from harness.experiment.standing import Standing
from harness.experiment.store import Store
from harness.experiment.store_files import DamagedFile, open_plain, parse_object
from harness.types.errors import StoreError

ENDED, STOPPED, REFUSED = "ended", "stopped", "refused"
"""How a job's process ends by its own will: nothing is left that it can do; it was asked to stop; it cannot go on."""
LOST = "lost"
_STEPS_APART = 0.2
"""Seconds between steps that are told: a toy method does thousands a second."""


@dataclass(frozen=True)
class CellName:
    """A cell as events name it."""

    key: str
    kind: str
    label: str


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

    def finished(self, cell: Named, record: Mapping[str, Any]) -> None:
        """Name the cell: the record is in the store."""
        self._write("finished", cell=_name(cell))

    def failed(self, cell: Named, reason: str, log: Path) -> None:
        """With the reason."""
        self._write("failed", cell=_name(cell), reason=reason, log=str(log))

    def notice(self, text: str) -> None:
        """As it is."""
        self._write("notice", text=text)

    def lost(self, standings: Mapping[str, Standing]) -> None:
        """Cells that could not be made or used: what the store tells of them may be less."""
        for key, standing in standings.items():
            self._write(LOST, key=key, state=standing.state, reason=standing.reason)

    def end(self, how: str, text: str = "") -> None:
        """The process ends by its own will: `ENDED`, `STOPPED` or `REFUSED`."""
        self._write(how, text=text)
        self._file.close()

    def _write(self, event: str, **told: Any) -> None:  # noqa: ANN401
        try:
            self._file.write(json.dumps({"event": event, **told}, allow_nan=False, ensure_ascii=False) + "\n")
        except OSError as error:
            raise self._store.cannot("write to", error) from None


class EventReader:
    """Reads what was appended to a file of events since it last looked."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self._path, self._rest = path, b""
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The events since the last call; a line that is still being written waits for the next."""
        try:
            with open_plain(self._path) as file:
                file.seek(self._offset)
                found = file.read()
        except (FileNotFoundError, DamagedFile):
            return
        self._offset += len(found)
        *lines, self._rest = (self._rest + found).split(b"\n")
        yield from (event for line in lines if (event := _event(line)) is not None)


def retell(event: Mapping[str, Any], reporter: Reporter, store: Store) -> None:
    """Tell a reporter what an event says."""
    cell = CellName(*event["cell"]) if "cell" in event else None
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


def _record(store: Store, cell: CellName) -> Mapping[str, Any]:
    try:
        return store.record(cell.key) or {"result": {}}
    except StoreError:  # somebody altered it meanwhile: the table will say so
        return {"result": {}}


def _name(cell: Named) -> list[str]:
    return [cell.key, cell.kind, cell.label]


def _finite(scalars: Mapping[str, float]) -> dict[str, float]:
    """JSON has no NaN; what diverges is told by its record."""
    return {name: float(value) for name, value in scalars.items() if abs(float(value)) < float("inf")}


def damages(path: Path) -> Iterator[str]:
    """What is wrong with a file of events, with the remedy; the last line may still be written."""
    remedy = "if no run works here, delete it: nothing rests on it"
    try:
        with open_plain(path) as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n") and not _is_event(line):
                    yield f"{path} cannot be read (line {number} is no event): {remedy}"
                    return
    except FileNotFoundError:
        return
    except DamagedFile as damage:
        yield f"{damage}: {remedy}"


def _event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None if there is none that is known here."""
    try:
        found = parse_object(line)
    except ValueError:
        return None
    fields = _FIELDS.get(str(found.get("event")))
    return found if fields and all(_KINDS[name](found.get(name)) for name in fields) else None


def _is_event(line: bytes) -> bool:
    """Whether a line holds an event, which a newer version may have written."""
    if _event(line):
        return True
    try:
        return str(parse_object(line)["event"]) not in _FIELDS
    except (ValueError, KeyError):
        return False


def _is_cell(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(part, str) for part in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_FIELDS = {
    "cells": ("cells",),
    "started": ("cell",),
    "step": ("cell", "iteration", "total", "scalars"),
    "finished": ("cell",),
    "failed": ("cell", "reason", "log"),
    "notice": ("text",),
    LOST: ("key", "state", "reason"),
    **dict.fromkeys((ENDED, STOPPED, REFUSED), ("text",)),
}
"""By event, what it tells beside its name."""
_KINDS: Mapping[str, Callable[[object], bool]] = {
    "cell": _is_cell,
    "cells": lambda value: isinstance(value, list) and all(map(_is_cell, value)),
    "iteration": _is_count,
    "total": _is_count,
    "scalars": lambda value: isinstance(value, dict),
    "state": lambda value: value in LOST_STATES,
    **dict.fromkeys(("key", "reason", "log", "text"), _is_text),
}
"""By name, whether a value is as it should be."""
