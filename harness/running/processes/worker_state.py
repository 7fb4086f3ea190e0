"""What a worker is at, as far as its events tell."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from harness.store.event_files import ENDED, REFUSED, STOPPED, CellName


class WorkerState:
    """Hears the events of one worker."""

    def __init__(self) -> None:
        self.ended: str | None = None
        """How it ended by its own will, if it did."""
        self._to_make: dict[str, CellName] = {}
        self._open: dict[str, CellName] = {}
        self._since = time.monotonic()

    def hear(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take in what it told."""
        for event in events:
            match event["event"]:
                case "cells":
                    self._to_make = {cell[0]: CellName(*cell) for cell in event["cells"]}
                case "started":
                    self._open[event["cell"][0]] = CellName(*event["cell"])
                    self._since = time.monotonic()
                case "finished" | "failed":
                    self._open.pop(event["cell"][0], None)
                    self._to_make.pop(event["cell"][0], None)
                    self._since = time.monotonic()
                case how if how in (ENDED, STOPPED, REFUSED):
                    self.ended = how

    @property
    def blamed(self) -> CellName | None:
        """The cell that a crash is put down to: the first at work, else the first that was to be made."""
        return next(iter(self._open.values()), None) or next(iter(self._to_make.values()), None)

    def seconds_at_work(self) -> float:
        """Since the cells at work began, or the last of them before was finished; 0 where there are none.

        Students train side by side and start together: each has its time when those before it are done.
        """
        return time.monotonic() - self._since if self._open else 0.0
