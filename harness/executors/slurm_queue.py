"""Which jobs SLURM still has: asked for all at once, and now and then."""

import os
import subprocess
import time
from collections.abc import Iterable

SECONDS = 10.0
"""Between two looks into the queue, whatever the number of jobs."""
_LOOKS = 2
"""How often in a row a job must be missing: it may have ended well, and its result may be slow to be seen."""


class Queue:
    """The jobs of this user, as ``squeue`` lists them: it needs no accounting, as ``sacct`` does."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._missing: dict[str, int] = {}

    def follow(self, jobs: Iterable[str]) -> None:
        """Look out for jobs that have been submitted, by their ids: ``17``, or ``17_3`` of an array."""
        self._missing |= dict.fromkeys(jobs, 0)

    def has_lost(self, job: str) -> bool:
        """Whether a job that is followed is no more."""
        if time.monotonic() - self._looked >= SECONDS:
            self._look()
        return self._missing[job] >= _LOOKS

    def _look(self) -> None:
        self._looked = time.monotonic()
        there = listed()
        if there is None:
            return
        self._missing = {job: 0 if job in there else times + 1 for job, times in self._missing.items()}


def listed(*words: str) -> list[str] | None:
    """The ids of this user's jobs, of those that ``squeue`` finds with these options; None where it does not answer.

    It does not while the controller is busy, or restarts.
    """
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split()
