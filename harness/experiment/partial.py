"""Parts of a cell in the making, kept beside the finished cells so that a later try goes on from there."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from harness.experiment.files import write_whole
from harness.experiment.store import Store


class PartialFiles:
    """The parts of one cell, a file each (see `harness.Scratch`); held under the cell's lease."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._folder = store, store.path / "partial" / key

    def get(self, part: str) -> dict[str, Tensor] | None:
        """A part that was kept; None where there is none, or none that can be read."""
        path = self._path(part)
        try:
            return load_file(path) if path.exists() else None
        except (SafetensorError, OSError):
            return None

    def put(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Write a part whole."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(part), save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
        except OSError as error:
            raise self._store.cannot("write to", error) from None

    def clear(self) -> None:
        """Forget all parts: the cell is finished."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, part: str) -> Path:
        return self._folder / f"{part}.safetensors"
