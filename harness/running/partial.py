"""Parts of an artifact in the making, kept beside the finished cells so that a later try goes on from there."""

import shutil
from collections.abc import Mapping

from torch import Tensor

from harness.running.unfinished_tensors import KeptTensors, Notice
from harness.store.cells import Cell
from harness.store.store import Store
from harness.system import interrupts


class PartialFiles:
    """The parts of one cell, a file each (see `harness.Scratch`); held under the cell's lease."""

    def __init__(self, store: Store, cell: Cell, notice: Notice) -> None:
        self._kept, self._code_digests = KeptTensors(store, cell.key, notice), cell.code_digests

    def get(self, part: str) -> dict[str, Tensor] | None:
        """A part that was kept; None where there is none, or none that can be used."""
        for name, path in self._kept.files():
            if name == part and (found := self._kept.read(path, self._code_digests)):
                return found[0]
        return None

    def put(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a part in place of what could not be used; who was asked to stop does so."""
        written = self._kept.write(part, tensors, self._code_digests, {})
        for name, path in self._kept.files():
            if name == part and path != written:
                path.unlink(missing_ok=True)
        interrupts.heed()

    def clear(self) -> None:
        """Forget all parts: the cell is finished."""
        shutil.rmtree(self._kept.folder, ignore_errors=True)
