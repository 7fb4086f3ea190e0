"""Files of events: one line of JSON for each event, written by a worker and read by the process that waits for it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.store.cell_states import LOST as LOST_STATES
from harness.store.files.reading import DamagedFile, open_plain
from harness.system.bounded_json import parse_object

ENDED, STOPPED, REFUSED = "ended", "stopped", "refused"
"""Why a job's process ended by itself: it has done all it can; it was asked to stop; it cannot go on."""
LOST = "lost"


@dataclass(frozen=True)
class CellName:
    """A cell as events name it."""

    key: str
    kind: str
    label: str


class EventReader:
    """Reader of the events that were appended to a file since the last call."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self._path, self._rest = path, b""
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last call; a line that is still being written is left for the next."""
        try:
            with open_plain(self._path) as file:
                file.seek(self._offset)
                appended = file.read()
        except (FileNotFoundError, DamagedFile):
            return  # the worker has not begun to write, or its file was replaced: records show what it has made
        self._offset += len(appended)
        # The writer appends without a lock, so that the last line may be cut anywhere, within a character too.
        *lines, self._rest = (self._rest + appended).split(b"\n")
        yield from (event for line in lines if (event := _event(line)) is not None)


def damages(path: Path) -> Iterator[str]:
    """Yield what is wrong with a file of events, with the remedy; the last line may be incomplete."""
    remedy = "if no run works here, delete it: nothing rests on it"
    try:
        with open_plain(path) as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n") and not _is_event(line):
                    yield f"{path} cannot be read (line {number} is not an event): {remedy}"
                    return
    except FileNotFoundError:
        return
    except DamagedFile as damage:
        yield f"{damage}: {remedy}"


def _event(line: bytes) -> dict[str, Any] | None:
    """Return the event in a line; None if the line holds no event that this version knows."""
    try:
        event = parse_object(line)
    except ValueError:
        return None
    fields = _FIELDS.get(str(event.get("event")))
    return event if fields and all(_KINDS[name](event.get(name)) for name in fields) else None


def _is_event(line: bytes) -> bool:
    """Return whether a line holds an event, perhaps of a newer version."""
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
    # In Python True is an int, and JSON has both.
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
"""By event, the fields that it has beside its name."""
_KINDS: Mapping[str, Callable[[object], bool]] = {
    "cell": _is_cell,
    "cells": lambda value: isinstance(value, list) and all(map(_is_cell, value)),
    "iteration": _is_count,
    "total": _is_count,
    "scalars": lambda value: isinstance(value, dict),
    "state": lambda value: value in LOST_STATES,
    **dict.fromkeys(("key", "reason", "log", "text"), _is_text),
}
"""By field, a function that checks its value."""
