"""The states of cells: which are in the store, which a run has to make, and which cannot be made, with the reason."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from harness.store.cells import Cell
from harness.store.store import RecordError, Store


class CellState(StrEnum):
    """The state of a cell.

    Attributes:
        MISSING: no record of it exists yet, or that of a student lacks a metric which is asked for.
        RUNNING: a process works on it.
        DONE: its record is in the store.
        STALE: its record is in the store, but was made by a different version of the code.
        FAILED: making it failed; a run tries again only on request.
        BLOCKED: a cell that it needs is lost.
        DAMAGED: its record, or a file of it, cannot be used.
        UNNEEDED: an artifact without a record, of which every cell that needs it is finished. A packed store may have
            left it out.
    """

    MISSING = "missing"
    RUNNING = "running"
    DONE = "done"
    STALE = "stale"
    FAILED = "failed"
    BLOCKED = "blocked"
    DAMAGED = "damaged"
    UNNEEDED = "unneeded"


LOST = (CellState.FAILED, CellState.BLOCKED, CellState.DAMAGED)
_PREDICATES = {CellState.FAILED: "failed", CellState.DAMAGED: "is damaged"}


@dataclass(frozen=True)
class CellStatus:
    """The state of a cell, with the reason for it.

    Attributes:
        reason: one line, if the cell is lost.
        note_is_damaged: whether the cell failed and the note with the reason cannot be read.
    """

    state: CellState
    reason: str = ""
    note_is_damaged: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether no run makes the cell unless the user asks for it."""
        return self.state in LOST


class PlannedCells(Protocol):
    """The cells of a plan, as far as their states depend on it."""

    @property
    def cells(self) -> Sequence[Cell]:
        """Every cell of the plan, each once."""
        ...

    @property
    def needs(self) -> Mapping[str, Sequence[Cell]]:
        """The cells that each cell cannot be made without, by its key."""
        ...

    @property
    def rerun_stale(self) -> bool:
        """Whether stale cells are made again."""
        ...


class CellStates:
    """The states of the cells of a plan in a store.

    Args:
        plan: the cells, and what they need.
        store: read anew for every question, since other processes may write to it.
    """

    def __init__(self, plan: PlannedCells, store: Store) -> None:
        self._plan, self._store = plan, store
        self._to_make = states_to_make(plan.rerun_stale)
        self._needed_by: dict[str, list[Cell]] = defaultdict(list)
        for cell in plan.cells:
            for needed in plan.needs.get(cell.key, ()):
                self._needed_by[needed.key].append(cell)
        # Cells that others need and that were seen done stay so: all students of a set need it, and reading the record
        # of a set costs more than reading theirs.
        self._done: set[str] = set()

    def status(self, cell: Cell) -> CellStatus:
        """Return the status of a cell."""
        own = state_in_store(cell, self._store)
        if own.state not in self._to_make:
            return own
        dependents = (state_in_store(dependent, self._store).state for dependent in self._needed_by.get(cell.key, ()))
        return unneeded_or(blocked_or(own, self._needed_cells(cell)), cell.kind, dependents, self._to_make)

    def statuses(self) -> dict[str, CellStatus]:
        """Return the status of every cell by its key."""
        return {cell.key: self.status(cell) for cell in self._plan.cells}

    def is_missing(self, cell: Cell) -> bool:
        """Return whether a cell has to be made and can be, by what the store holds now."""
        return self.status(cell).state in self._to_make

    def _needed_cells(self, cell: Cell) -> Iterator[tuple[str, CellStatus]]:
        """Yield the label and status of the cells that a cell needs, without those that were seen done."""
        # A set needs whatever the sets before it on its trajectory need, so that their own statuses suffice.
        is_set = cell.kind == "distilled"
        for needed in self._plan.needs.get(cell.key, ()):
            if needed.key not in self._done:
                status = state_in_store(needed, self._store) if is_set else self.status(needed)
                if status.state is CellState.DONE:
                    self._done.add(needed.key)
                yield needed.label, status


def states_to_make(rerun_stale: bool) -> tuple[CellState, ...]:
    """Return the states of cells that a run makes."""
    return (CellState.MISSING, CellState.STALE) if rerun_stale else (CellState.MISSING,)


def state_in_store(cell: Cell, store: Store) -> CellStatus:
    """Return the status of a cell by its record and its failure alone, whatever the cells that it needs are."""
    # The record first: a failure stays as history after the cell was made after all.
    try:
        record = store.record(cell.key)
    except RecordError as error:
        return CellStatus(CellState.DAMAGED, str(error))
    if record is not None and not cell.lacks_metrics(record):
        return CellStatus(CellState.STALE if cell.is_stale(record) else CellState.DONE)
    failure = store.failures.get(cell.key)
    # One from before a record is history; a later one is of the attempt to measure what that record lacks.
    if failure is None or (record is not None and failure.at and failure.at < record.finished):
        return CellStatus(CellState.MISSING)
    return CellStatus(CellState.FAILED, failure.reason, failure.is_unreadable)


def unneeded_or(
    own: CellStatus, kind: str, dependents: Iterable[CellState], unfinished: Collection[CellState]
) -> CellStatus:
    """Return the status of a cell: unneeded if it is a missing artifact that only finished cells need.

    Args:
        own: the status of the cell if it is needed.
        kind: its kind.
        dependents: the states in the store of the cells that need it; without any, it is wanted for itself.
        unfinished: the states of cells that are still to be made.
    """
    if kind != "artifact" or own.state is not CellState.MISSING:
        return own
    is_wanted_for_itself = True
    for state in dependents:
        # No further than the first: the state of each is read from the store.
        if state in unfinished:
            return own
        is_wanted_for_itself = False
    return own if is_wanted_for_itself else CellStatus(CellState.UNNEEDED)


def blocked_or(own: CellStatus, needed: Iterable[tuple[str, CellStatus]]) -> CellStatus:
    """Return the status of a cell that is to be made: blocked if one of the cells that it needs is lost.

    Args:
        own: the status of the cell if it is not blocked.
        needed: the label and status of each cell that it needs.
    """
    for label, status in needed:
        if status.state is CellState.BLOCKED:
            return status
        if status.is_lost:
            return CellStatus(CellState.BLOCKED, f"needs {label}, which {_PREDICATES[status.state]}: {status.reason}")
    return own
