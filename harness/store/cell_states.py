"""How a cell stands in a store: done, still to be made, or not to be had, and why."""

from dataclasses import dataclass

from harness.store.cells import Cell
from harness.store.store import RecordError, Store

LOST = ("failed", "blocked", "damaged")


@dataclass(frozen=True)
class Standing:
    """How a cell stands.

    Attributes:
        state: ``done``, or ``stale`` if a different version of the code made the record; ``missing``; ``failed``, or
            ``blocked`` where a cell that it needs is lost; ``damaged`` where its record or a file of it cannot be used.
        reason: one line, if it is lost.
        note_is_damaged: it failed, and why cannot be read.
    """

    state: str
    reason: str = ""
    note_is_damaged: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether it is neither there nor to be made, until somebody asks for it."""
        return self.state in LOST


def own_standing(cell: Cell, store: Store) -> Standing:
    """How a cell stands, whatever becomes of those that it needs."""
    try:
        record = store.record(cell.key)
    except RecordError as error:
        return Standing("damaged", str(error))
    if record is not None:
        return Standing("stale" if cell.is_stale(record) else "done")
    failure = store.failures.get(cell.key)
    return Standing("failed", failure.reason, failure.is_unreadable) if failure else Standing("missing")


def blocked_by(cell: Cell, standing: Standing) -> Standing:
    """How a cell stands that needs a lost one."""
    if standing.state == "blocked":
        return standing
    return Standing("blocked", f"needs {cell.label}, which {_IS[standing.state]}: {standing.reason}")


_IS = {"failed": "failed", "damaged": "is damaged"}
