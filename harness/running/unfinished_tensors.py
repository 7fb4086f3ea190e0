"""Tensors of work in the making, kept so that a later try goes on from them: safe to read, and never half of them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from harness.store.store import Store
from harness.store.unfinished import read_sealed, sealed_in, write_sealed

Notice = Callable[[str], object]
CodeDigests = Mapping[str, str]


class KeptTensors:
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

    def write(
        self, name: str, tensors: Mapping[str, Tensor], code_digests: CodeDigests, notes: Mapping[str, Any]
    ) -> Path:
        """Keep tensors with notes on them as JSON, and read them back.

        Raises:
            StoreError: they cannot be written; what was kept before is there still.
        """
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        content = save(whole, {"ddbench": json.dumps({**notes, "code_digests": dict(code_digests)})})
        self._store.make_folder(self.folder)
        try:
            return write_sealed(self.folder, name, content)
        except OSError as error:
            raise self._store.cannot("write to", error) from None

    def read(self, path: Path, code_digests: CodeDigests) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what a file holds; None, with a notice, if it is damaged or of a different version of the code."""
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


def _notes_in(content: bytes) -> dict[str, Any]:
    """Return the notes beside the tensors of a safetensors file: its head has a length in eight bytes, and JSON.

    Losses in it may be NaN, so it is read as Python writes it; the digest in the file's name says that it was.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    notes: dict[str, Any] = json.loads(json.loads(content[8:end])["__metadata__"]["ddbench"])
    return notes
