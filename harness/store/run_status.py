"""Status of the runs of a store, from its files alone: no lease is taken, and torch is not imported."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.store.cell_states import CellState, CellStatus, blocked_or, unneeded_or
from harness.store.files.folders import RECORD, RUNS, entries_of
from harness.store.files.reading import DamagedFile
from harness.store.locking.leases import Holder
from harness.store.record_files import has_record, newest
from harness.store.run_files import PlanFile, read_plan
from harness.store.store import RecordError, Store
from harness.store.store_errors import cannot

STATES = (
    CellState.DONE, CellState.RUNNING, CellState.FAILED, CellState.DAMAGED, CellState.BLOCKED, CellState.MISSING,
    CellState.UNNEEDED,
)  # fmt: skip
"""The states that are counted. Stale is none of them: it depends on the code, which only a plan looks at."""
SeenRecords = dict[Path, tuple[tuple[int, int, int], str]]
"""By a record's folder, the inode, size and time of the file when it was read, and the damage; empty if sound."""


@dataclass(frozen=True)
class RunCell:
    """A cell of a run, with its state.

    Attributes:
        state: one of `STATES`.
        reason: one line, if the cell is lost.
        holder: the process that works on it, if it is running.
    """

    key: str
    kind: str
    label: str
    state: CellState
    reason: str = ""
    holder: Holder | None = None


@dataclass(frozen=True)
class RunStatus:
    """The state of a run.

    Attributes:
        run: its key, the name of its folder.
        folder: that folder.
        label: its request, for people.
        created: the time of the request.
        executor: name of the executor that starts its jobs.
    """

    run: str
    folder: Path
    label: str
    created: str
    executor: str
    cells: Sequence[RunCell]

    @cached_property
    def counts(self) -> Mapping[CellState, int]:
        """The number of the run's cells in each state."""
        return counts(self.cells)


def counts(cells: Sequence[RunCell]) -> Mapping[CellState, int]:
    """Return the number of cells in each of `STATES`."""
    numbers = Counter(cell.state for cell in cells)
    return {state: numbers[state] for state in STATES}


class Overview:
    """All runs of a store at one moment, the oldest first.

    Raises:
        StoreError: it is not a store, or cannot be read.

    Args:
        store: the store.
        seen: the records that an earlier overview has read: they are read again only if they have changed.
    """

    def __init__(self, store: Store, seen: SeenRecords | None = None) -> None:
        self.notes: list[str] = []
        """A line for each file that cannot be read."""
        store.notice = self.notes.append
        store.check_schema()
        self._store, self._seen = store, {} if seen is None else seen
        self._holders = {holder.cell: holder for holder in store.leases.all() if holder.is_live and holder.cell}
        # After the holders: a cell that is finished between the two looks is then running or done, never missing.
        self._attempts = store.attempts()
        self._failed = set(store.failures.keys())
        self.runs = sorted(self._read_runs(), key=lambda run: run.created)

    @property
    def path(self) -> Path:
        """The folder of the store."""
        return self._store.path

    @property
    def logs(self) -> Path:
        """The folder with the logs of failures."""
        return self._store.failures.folder

    @cached_property
    def cells(self) -> list[RunCell]:
        """The cells of all runs, each once."""
        cells: dict[str, RunCell] = {}
        for cell in (cell for run in self.runs for cell in run.cells):
            # What one run no longer needs, another may.
            if cell.state is not CellState.UNNEEDED or cell.key not in cells:
                cells[cell.key] = cell
        return list(cells.values())

    def _read_runs(self) -> Iterator[RunStatus]:
        try:
            folders = [Path(entry.path) for entry in entries_of(self._store.path / RUNS)]
        except OSError as error:
            raise cannot("read", self._store.path, error) from None
        for folder in folders:
            try:
                plan = read_plan(folder)
            except FileNotFoundError:
                continue  # a folder of something else, or a run that is being removed: `results verify` reports it
            except DamagedFile as damage:
                self.notes.append(f"{damage}: give the command of that run again")
                continue
            yield RunStatus(folder.name, folder, plan.label, plan.created, plan.executor, self._cells(plan))

    def _cells(self, plan: PlanFile) -> list[RunCell]:
        """Return the cells that a plan lists."""
        statuses = [self._own_status(key) for key, *_ in plan.cells]
        dependents_of: dict[int, list[int]] = defaultdict(list)
        for number, (_, _, _, needs) in enumerate(plan.cells):
            for needed in needs:
                dependents_of[needed].append(number)
        # From the lost cells upwards, and not from each cell down: nothing says that a plan.json on disk has no circle.
        lost = [number for number, status in enumerate(statuses) if status.is_lost]
        while lost:
            needed = lost.pop()
            for number in dependents_of[needed]:
                if statuses[number].state is CellState.MISSING:
                    statuses[number] = blocked_or(statuses[number], [(plan.cells[needed][2], statuses[needed])])
                    lost.append(number)
        states = [status.state for status in statuses]
        unfinished = (CellState.MISSING, CellState.RUNNING)
        cells = []
        for number, (key, kind, label, _) in enumerate(plan.cells):
            dependents = [states[dependent] for dependent in dependents_of[number]]
            status = unneeded_or(statuses[number], kind, dependents, unfinished)
            cells.append(RunCell(key, kind, label, status.state, status.reason, self._holders.get(key)))
        return cells

    def _own_status(self, key: str) -> CellStatus:
        """Return the status of a cell whatever the state of the cells that it needs."""
        if key in self._holders:
            return CellStatus(CellState.RUNNING)
        folder = newest(self._attempts[key]) if key in self._attempts else None
        if folder and has_record(folder):
            damage = self._damage(folder)
            return CellStatus(CellState.DAMAGED, damage) if damage else CellStatus(CellState.DONE)
        failure = self._store.failures.get(key) if key in self._failed else None
        return CellStatus(CellState.FAILED, failure.reason) if failure else CellStatus(CellState.MISSING)

    def _damage(self, folder: Path) -> str:
        """Return what is wrong with a record; an empty text if it is sound."""
        try:
            file = os.lstat(folder / RECORD)
            # `status --watch` looks every few seconds, and parsing all records of a large store takes longer.
            mark = (file.st_ino, file.st_size, file.st_mtime_ns)
            if folder not in self._seen or self._seen[folder][0] != mark:
                self._seen[folder] = (mark, self._read_damage(folder))
            return self._seen[folder][1]
        except OSError as error:
            return f"{folder} cannot be read ({error.strerror}): make it readable"

    def _read_damage(self, folder: Path) -> str:
        try:
            self._store.read(folder)
        except RecordError as error:
            return str(error)
        return ""
