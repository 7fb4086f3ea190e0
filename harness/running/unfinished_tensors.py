"""Tensors of unfinished work, from which a later try goes on: safe to read, and never written by halves."""

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
from harness.store.store_errors import cannot
from harness.store.unfinished import read_sealed, sealed_in, write_sealed
from harness.system import interrupts

Notice = Callable[[str], object]
CodeDigests = Mapping[str, str]


class UnfinishedTensors:
    """A folder under ``partial/`` in a store; nobody else works on what it belongs to.

    Args:
        store: holds the folder.
        key: its name.
        notice: called with a line on each file that is passed over.
    """

    def __init__(self, store: Store, key: str, notice: Notice) -> None:
        self.folder = store.path / "partial" / key
        self._store, self._notice = store, notice

    def files(self) -> list[tuple[str, Path]]:
        """Return the files of the folder, by name."""
        return sealed_in(self.folder)

    def write(
        self, name: str, tensors: Mapping[str, Tensor], code_digests: CodeDigests, notes: Mapping[str, Any]
    ) -> Path:
        """Write tensors with notes on them as JSON, and read them back.

        Raises:
            StoreError: they cannot be written; the file before is still there.
        """
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        content = save(whole, {"ddbench": json.dumps({**notes, "code_digests": dict(code_digests)})})
        self._store.make_folder(self.folder)
        try:
            return write_sealed(self.folder, name, content)
        except OSError as error:
            raise cannot("write to", self._store.path, error) from None

    def read(self, path: Path, code_digests: CodeDigests) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return a file's tensors and notes; None, with a notice, if it is damaged or by other code than today's."""
        content = read_sealed(path)
        if content is None:
            self._notice(f"{path} was damaged: it is passed over")
            return None
        try:
            notes = _notes_in(content)
            # The first versions kept digests of the code's bytes instead. Nothing says whether that code computed the
            # same, and the rest of a trajectory would build on it, so that those are passed over too.
            is_ours = notes.get("code_digests") == dict(code_digests)
            tensors = load(content) if is_ours else {}
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._notice(f"{path} is not as a run writes it ({type(error).__name__}: {error}): it is passed over")
            return None
        if not is_ours:
            self._notice(f"{path} was made by a different version of the code: it is passed over")
            return None
        return tensors, notes


class PartialFiles:
    """The parts of one cell, a file each (see `harness.Scratch`); held under the cell's lease."""

    def __init__(self, store: Store, cell: Cell, notice: Notice) -> None:
        self._files, self._code_digests = UnfinishedTensors(store, cell.key, notice), cell.code_digests

    def get(self, part: str) -> dict[str, Tensor] | None:
        """Return a part that was saved; None if there is none, or none that can be used."""
        for name, path in self._files.files():
            if name == part and (content := self._files.read(path, self._code_digests)):
                return content[0]
        return None

    def put(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Save a part in place of one that could not be used; work that was asked to stop stops here."""
        written = self._files.write(part, tensors, self._code_digests, {})
        for name, path in self._files.files():
            if name == part and path != written:
                path.unlink(missing_ok=True)
        interrupts.heed()

    def clear(self) -> None:
        """Remove all parts, because the cell is finished."""
        shutil.rmtree(self._files.folder, ignore_errors=True)


def _notes_in(content: bytes) -> dict[str, Any]:
    """Return the fields beside the tensors of a safetensors file.

    The file begins with the length of its head in eight bytes, and the head as JSON.
    """
    # Read leniently, because losses may be NaN: the digest in the file's name says that a run wrote these bytes.
    end = 8 + int.from_bytes(content[:8], "little")
    notes: dict[str, Any] = json.loads(json.loads(content[8:end])["__metadata__"]["ddbench"])
    return notes
