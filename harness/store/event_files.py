"""Files of events: a line of JSON for each event, written by a process that works and read by the one that waits."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.store.cell_states import LOST as LOST_STATES
from harness.store.files.reading import DamagedFile, open_plain
from harness.system.bounded_json import parse_object

ENDED, STOPPED, REFUSED = "ended", "stopped", "refused"
"""How a job's process ends by its own will: nothing is left that it can do; it was asked to stop; it cannot go on."""
LOST = "lost"


@dataclass(frozen=True)
class CellName:
    """A cell as events name it."""

    key: str
    kind: str
    label: str


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
