"""Checkpoints of a trajectory: all that decides the rest of it, saved now and then while it goes on.

``partial/TRAJECTORY/ITERATION-CELL-SHA256.safetensors`` holds tensors and history after so many iterations. CELL begins
the key of the set that would be committed there: it stands for the networks that the pool drew, since another run may
set other options for them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store.cells import SHORT, Cell
from harness.store.store import Store
from harness.store.unfinished import CheckpointFile, checkpoint_files_in

if TYPE_CHECKING:
    from torch import Tensor

    from harness.learning.trajectory import History
    from harness.running.unfinished_tensors import Notice


class Checkpoints:
    """The checkpoints of one trajectory; nobody else works on it.

    Args:
        store: holds them.
        trajectory: its key.
        cell_at: the cell of its set after so many iterations.
        every: seconds from one to the next; 0 is after every step.
        notice: called with a line on each one that is passed over.
    """

    def __init__(
        self, store: Store, trajectory: str, cell_at: Callable[[int], Cell], every: float, notice: "Notice"
    ) -> None:
        from harness.running.unfinished_tensors import (
            UnfinishedTensors,  # imports torch, without which a store's content is listed
        )

        self._files, self._cell_at, self._every = UnfinishedTensors(store, trajectory, notice), cell_at, every
        self._notice, self._last = notice, time.monotonic()

    def is_due(self) -> bool:
        """Return whether it is time for the next checkpoint."""
        return time.monotonic() - self._last >= self._every

    def save(self, tensors: "Mapping[str, Tensor]", history: "History") -> None:
        """Save a trajectory's state; when it has been read back, those of earlier iterations are removed.

        Raises:
            StoreError: it cannot be written; the one before is still there.
        """
        cell = self._cell_at(history.iterations)
        name = f"{history.iterations:08d}-{cell.key[:SHORT]}"
        written = self._files.write(name, tensors, cell.code_digests, {"history": history.as_json()})
        self._last = time.monotonic()
        self._remove(mark for mark in self._files_until(history.iterations) if mark.path != written)

    def newest(self, beyond: int, upto: int) -> "tuple[dict[str, Tensor], History] | None":
        """Return the last usable state after iteration ``beyond`` and up to ``upto``; None if there is none."""
        for mark in reversed(self._files_until(upto)):
            if mark.iteration > beyond:
                content = self._files.read(mark.path, self._cell_at(mark.iteration).code_digests)
                history = self._history(mark.path, content[1]) if content else None
                if content and history:
                    return content[0], history
        return None

    def _history(self, path: Path, fields: Mapping[str, Any]) -> "History | None":
        from harness.learning.trajectory import History

        try:
            return History(**fields["history"])
        except (KeyError, TypeError) as error:
            self._notice(f"{path} is not as a run writes it ({type(error).__name__}: {error}): it is passed over")
            return None

    def forget(self, upto: int) -> None:
        """Remove the checkpoints up to an iteration whose set is in the store."""
        self._remove(self._files_until(upto))
        with contextlib.suppress(OSError):  # a folder with later checkpoints is not empty, and stays
            self._files.folder.rmdir()

    def _files_until(self, upto: int) -> list[CheckpointFile]:
        marks = [mark for mark in checkpoint_files_in(self._files.folder) if mark.iteration <= upto]
        return [mark for mark in marks if self._cell_at(mark.iteration).key.startswith(mark.cell)]

    @staticmethod
    def _remove(marks: Iterator[CheckpointFile] | list[CheckpointFile]) -> None:
        for mark in marks:
            # On NFS a file may be gone already, or stay for a while: an old checkpoint does no harm.
            with contextlib.suppress(OSError):
                mark.path.unlink()
