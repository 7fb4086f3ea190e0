"""Tensors of work in the making, kept so that a later try goes on from them: safe to read, and never half of them."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from harness.store.cells import Cell
from harness.store.store import Store
from harness.store.unfinished import read_sealed, sealed_in, write_sealed
from harness.system import interrupts

Notice = Callable[[str], object]
Sources = Mapping[str, str]


class UnfinishedTensors:
    """A folder under ``partial/`` in a store; nobody else works on what it belongs to.

    Args:
        store: holds the folder.
        key: its name.
        notice: told which files are passed over, and why.
    """

    def __init__(self, store: Store, key: str, notice: Notice) -> None:
        self.folder = store.path / "partial" / key
        self._store, self._notice = store, notice

    def files(self) -> list[tuple[str, Path]]:
        """What is kept, by name."""
        return sealed_in(self.folder)

    def write(self, name: str, tensors: Mapping[str, Tensor], sources: Sources, told: Mapping[str, Any]) -> Path:
        """Keep tensors with what is told of them as JSON, and read them back.

        Raises:
            StoreError: they cannot be written; what was kept before is there still.
        """
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        content = save(whole, {"ddbench": json.dumps({**told, "sources": dict(sources)})})
        self._store.make_folder(self.folder)
        try:
            return write_sealed(self.folder, name, content)
        except OSError as error:
            raise self._store.cannot("write to", error) from None

    def read(self, path: Path, sources: Sources) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What a file holds, unless it was damaged or other source made it."""
        content = read_sealed(path)
        if content is None:
            self._notice(f"{path} was damaged: it is passed over")
            return None
        try:
            told = _told(content)
            is_ours = told["sources"] == dict(sources)
            tensors = load(content) if is_ours else {}
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._notice(f"{path} is not as a run writes it ({type(error).__name__}: {error}): it is passed over")
            return None
        if not is_ours:
            self._notice(f"{path} was made by other source than is here now: it is passed over")
            return None
        return tensors, told


class PartialFiles:
    """The parts of one cell, a file each (see `harness.Scratch`); held under the cell's lease."""

    def __init__(self, store: Store, cell: Cell, notice: Notice) -> None:
        self._kept, self._sources = UnfinishedTensors(store, cell.key, notice), cell.sources

    def get(self, part: str) -> dict[str, Tensor] | None:
        """A part that was kept; None where there is none, or none that can be used."""
        for name, path in self._kept.files():
            if name == part and (found := self._kept.read(path, self._sources)):
                return found[0]
        return None

    def put(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a part in place of what could not be used; who was asked to stop does so."""
        written = self._kept.write(part, tensors, self._sources, {})
        for name, path in self._kept.files():
            if name == part and path != written:
                path.unlink(missing_ok=True)
        interrupts.heed()

    def clear(self) -> None:
        """Forget all parts: the cell is finished."""
        shutil.rmtree(self._kept.folder, ignore_errors=True)


def _told(content: bytes) -> dict[str, Any]:
    """What is told beside the tensors of a safetensors file: its head has a length in eight bytes, and JSON.

    Losses in it may be NaN, so it is read as Python writes it; the digest in the file's name says that it was.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    told: dict[str, Any] = json.loads(json.loads(content[8:end])["__metadata__"]["ddbench"])
    return told
