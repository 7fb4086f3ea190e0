"""The queue of SLURM: which jobs it still has, asked for all at once, and only now and then."""

import os
import subprocess
import time
from collections.abc import Iterable

SECONDS = 10.0
"""Seconds between two looks into the queue, whatever the number of jobs: each look is work for the controller."""
_LOOKS = 2
"""Looks in a row that miss a lost job: one that ended well may leave the queue before NFS shows its result."""


class Queue:
    """The jobs of this user, as ``squeue`` lists them, which needs no accounting as ``sacct`` does."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._missing: dict[str, int] = {}

    def follow(self, jobs: Iterable[str]) -> None:
        """Follow jobs that have been submitted, by their ids: ``17``, or ``17_3`` of an array."""
        self._missing |= dict.fromkeys(jobs, 0)

    def has_lost(self, job: str) -> bool:
        """Return whether a followed job is gone."""
        if time.monotonic() - self._looked >= SECONDS:
            self._look()
        return self._missing[job] >= _LOOKS

    def _look(self) -> None:
        self._looked = time.monotonic()
        queued = queued_job_ids()
        if queued is None:
            return
        self._missing = {job: 0 if job in queued else times + 1 for job, times in self._missing.items()}


def queued_job_ids(*words: str) -> list[str] | None:
    """Return the ids of this user's jobs that ``squeue`` lists with these options; None if it does not answer.

    It does not answer while the controller is busy or restarts.
    """
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split()
