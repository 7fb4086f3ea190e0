"""Restarts: a job whose process ended too early is started again while each process makes something new."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.running.jobs import Job
from harness.store.store import Store
from harness.store.unfinished import sealed_in

TRIES = 3
"""How often in a row a job is started again that makes nothing new."""


@dataclass
class Progress:
    """The progress of one job, over all processes that worked on it.

    Attributes:
        missing: how many cells were missing when the last of them had ended, or before the first began.
        parts: all checkpoints and parts of artifacts that were seen, by folder and name.
        in_vain: how many processes in a row brought neither a cell nor one of these.
    """

    missing: int
    parts: set[tuple[str, str]]
    in_vain: int = 0

    def note(self, missing: int, parts: set[tuple[str, str]]) -> None:
        """Note what is missing and what parts there are after a process has ended."""
        # By name and not by number: a checkpoint replaces the one before it.
        is_new = missing < self.missing or not parts <= self.parts
        self.in_vain = 0 if is_new else self.in_vain + 1
        self.missing, self.parts = missing, self.parts | parts

    @property
    def is_over(self) -> bool:
        """Whether the job has been started again often enough."""
        return self.in_vain > TRIES


def parts_of(job: Job, store: Store) -> set[tuple[str, str]]:
    """Return the checkpoints and parts of a job's cells, from which a later process goes on."""
    folders: Sequence[str] = [job.key, *(cell.key for cell in job.cells)]
    return {(key, name) for key in folders for name, _ in sealed_in(store.path / "partial" / key)}
