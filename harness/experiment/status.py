"""What becomes of the runs of a store, as far as the store tells: it needs no torch, and disturbs nobody."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.experiment.leases import Holder
from harness.experiment.store import SCHEMA, Store

STATES = ("done", "running", "failed", "blocked", "waiting")
"""What a cell can be: ``blocked`` where one that it needs has failed."""


@dataclass(frozen=True)
class CellStatus:
    """What has become of a cell.

    Attributes:
        state: one of `STATES`.
        reason: one line, where it has failed.
        holder: who works on it, where it is running.
    """

    key: str
    kind: str
    label: str
    state: str
    reason: str = ""
    holder: Holder | None = None


@dataclass(frozen=True)
class RunStatus:
    """What has become of the cells of a run.

    Attributes:
        run: its key, the name of its folder.
        folder: that folder.
        label: what was asked for, for people.
        created: when.
        executor: what starts its work.
    """

    run: str
    folder: Path
    label: str
    created: str
    executor: str
    cells: Sequence[CellStatus]

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Its cells by state."""
        return counts(self.cells)


def counts(cells: Sequence[CellStatus]) -> Mapping[str, int]:
    """Cells by state, all states."""
    found = Counter(cell.state for cell in cells)
    return {state: found[state] for state in STATES}


class Overview:
    """All runs of a store at one moment, the oldest first.

    Raises:
        StoreError: it is no store, or cannot be read.
    """

    def __init__(self, store: Store) -> None:
        store.check_schema()
        self.notes: list[str] = []
        """A line for each run that cannot be read."""
        self._store = store
        self._holders = {holder.cell: holder for holder in store.leases.all() if holder.is_live and holder.cell}
        self._done = store.attempts().keys()
        self._failed = set(store.failures.keys())
        paths = sorted((store.path / "runs").glob("*/plan.json"))
        found = [run for path in paths if (run := self._read(path))]
        self.runs = sorted(found, key=lambda run: run.created)

    @property
    def path(self) -> Path:
        """The store's."""
        return self._store.path

    @property
    def logs(self) -> Path:
        """The folder with the logs of failures."""
        return self._store.failures.folder

    @cached_property
    def cells(self) -> list[CellStatus]:
        """Those of all runs, each once."""
        return list({cell.key: cell for run in self.runs for cell in run.cells}.values())

    def _read(self, path: Path) -> RunStatus | None:
        try:
            told = json.loads(path.read_text())
            if told["schema"] > SCHEMA:
                raise ValueError("it is of a newer ddbench")
            cells = self._cells([cell for job in told["jobs"] for cell in job["cells"]])
            label, created, executor = (str(told[name]) for name in ("label", "created", "executor"))
            return RunStatus(path.parent.name, path.parent, label, created, executor, cells)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            self.notes.append(f"{path} cannot be read ({error}): give the command of that run again")
            return None

    def _cells(self, listed: Sequence[Sequence[Any]]) -> list[CellStatus]:
        """Those that a plan lists, each with the numbers of those that it needs."""
        states: dict[int, str] = {}

        def state(number: int) -> str:
            key, _, _, needs = listed[number]
            if number not in states:
                states[number] = self._own_state(key)
                if states[number] == "waiting" and any(state(one) in ("failed", "blocked") for one in needs):
                    states[number] = "blocked"
            return states[number]

        return [self._cell(key, kind, label, state(number)) for number, (key, kind, label, _) in enumerate(listed)]

    def _own_state(self, key: str) -> str:
        if key in self._holders:
            return "running"
        if key in self._done:
            return "done"
        return "failed" if key in self._failed else "waiting"

    def _cell(self, key: str, kind: str, label: str, state: str) -> CellStatus:
        failure = self._store.failures.get(key) if state == "failed" else None
        return CellStatus(key, kind, label, state, failure.reason if failure else "", self._holders.get(key))
