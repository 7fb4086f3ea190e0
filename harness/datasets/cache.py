"""A cache on disk of tensors that are slow to compute, each under a key of all that decides them."""

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.errors import DDBenchError
from harness.system.memory import require_memory
from harness.system.whole_files import beside

_log = logging.getLogger("ddbench")

Tensors = dict[str, Tensor]


def cached(root: Path, kind: str, key: str, names: Iterable[str], make: Callable[[], Tensors]) -> Tensors:
    """Return the tensors of ``make``, read from ``<root>/decoded/`` if they are stored there already.

    A damaged file is written again, and a folder that cannot be written only costs time; a warning says so.

    Args:
        root: the folder that holds data sets.
        kind: the first word of the file's name.
        key: a hexadecimal digest of all that decides the tensors.
        names: the names of the tensors.
        make: computes the tensors.
    """
    path = cache_file(root, kind, key)
    # No lock: two processes may compute the same tensors, and the last rename wins with equal content.
    tensors = _read(path, set(names))
    if tensors is None:
        tensors = make()
        _write(path, tensors)
    return tensors


def cache_file(root: Path, kind: str, key: str) -> Path:
    """Return the file that holds the tensors of a key; it may not exist."""
    return root / "decoded" / f"{kind}-{key[:40]}.safetensors"


def _read(path: Path, names: set[str]) -> Tensors | None:
    try:
        if not path.is_file():  # nothing, or a pipe, whose end nobody would see
            return None
        require_memory(path.stat().st_size, f"the decoded images in {path}", "give a smaller size=N, or fewer images")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            # A digest beside the data: decoded pixels decide every number, and safetensors itself does not detect a
            # flipped bit.
            intact = tensors.keys() == names and (file.metadata() or {}).get("sha256") == _digest(tensors)
    except (DDBenchError, MemoryError):
        raise
    except Exception as error:  # safetensors has its own for a truncated file
        _log.warning("%s cannot be read and is made again (%s)", path, error)
        return None
    if not intact:
        _log.warning("%s is damaged and is made again", path)
    return tensors if intact else None


def _write(path: Path, tensors: Tensors) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as temporary:
            temporary.touch()
            usual = temporary.stat().st_mode
            save_file(tensors, temporary, metadata={"sha256": _digest(tensors)})  # without a copy in memory
            temporary.chmod(usual)  # safetensors lets nobody else read it
    except Exception as error:  # OSError, or what safetensors makes of it
        _log.warning("%s cannot be written, so the work will be done again next time (%s)", path, error)


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
