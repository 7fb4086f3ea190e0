"""Images that do not fit in memory: decoded once into a file, which is mapped into memory and read by index."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.datasets.cache import cache_file, cached
from harness.errors import DataError
from harness.system.memory import require_memory
from harness.system.whole_files import beside
from harness.types.problem import Shape, Split

LARGE = 2**30
"""Bytes of decoded images from which on they are mapped from a file; fewer are held in memory."""
COPIED = 2**24
"""Most bytes of images that are copied at once when a part of a mapped split is written."""
_DIGESTS = "digests.json"
_log = logging.getLogger("ddbench")

Pixels = NDArray[np.uint8]
Fill = Callable[[Mapping[str, Pixels]], None]
"""Writes the images (n, channels, height, width) of each split into the array of its name."""


def filled(
    root: Path, kind: str, key: str, labels: Mapping[str, Tensor], shape: Callable[[], Shape], fill: Fill
) -> dict[str, Split]:
    """Return splits whose images take long to decode, stored once: cached and in memory, or mapped if they are large.

    A mapped file takes disk instead of memory: beside what ``fill`` needs, memory holds pages that the system takes
    back whenever it needs them. The file lies in ``<root>/decoded/KIND-KEY/``. It is written under another name and
    renamed when it is whole, and compared with its digest each time, so that no half-written or damaged one is used.

    Args:
        root: the folder that holds data sets.
        kind: the first word of the file's name.
        key: a hexadecimal digest of all that decides the images.
        labels: by split, the label of each image, int64 (n,).
        shape: returns the shape of an image; it is called before ``fill``.
        fill: writes all images; it is called once, or not at all if they are stored already.

    Raises:
        DataError: memory or disk is too small, or a file that is needed cannot be written.
    """
    folder, file = _folder(root, kind, key), cache_file(root, kind, key)
    if splits := _read(folder, labels):
        return splits
    known = None if file.is_file() and not is_large(file.stat().st_size) else shape()
    if known and is_large(_size(labels, known)):
        return _stored(folder, known, labels, fill)
    # A cached file may turn out to be damaged, and then nobody has asked for the shape yet.
    images = cached(root, kind, key, labels, lambda: _in_memory(labels, known or shape(), fill))
    return {name: Split(images[name], of_split) for name, of_split in labels.items()}


def held(
    root: Path, kind: str, key: Callable[[], str], labels: Mapping[str, Tensor], shape: Shape, fill: Fill
) -> dict[str, Split]:
    """Return splits whose images are read quickly: in memory, or mapped if they are large; see `filled`.

    The arguments are those of `filled`, but ``key`` is a function, which is called only if the images are large, and
    ``shape`` is known.
    """
    if is_large(_size(labels, shape)):
        folder = _folder(root, kind, key())
        return _read(folder, labels) or _stored(folder, shape, labels, fill)
    require_memory(_size(labels, shape), f"the images of {kind}", "give a smaller size=N, or fewer images")
    images = _in_memory(labels, shape, fill)
    return {name: Split(images[name], of_split) for name, of_split in labels.items()}


def part_of(split: Split, index: Tensor, root: Path, key: str) -> Split:
    """Return the images of ``index``, from a file of their own if those of the split are mapped.

    Args:
        split: the images to choose from.
        index: ascending indices (n,), int64.
        root: the folder that holds data sets.
        key: a hexadecimal digest of the split and the index.
    """
    if not split.on_disk:
        return split[index]
    channels, height, width = split.images.shape[1:]
    at_once = max(1, COPIED // (channels * height * width))

    def fill(arrays: Mapping[str, Pixels]) -> None:
        for start in range(0, len(index), at_once):
            rows = slice(start, start + at_once)
            arrays["part"][rows] = split.images[index[rows]].numpy()

    folder, labels = _folder(root, "part", key), {"part": split.labels[index]}
    stored = _read(folder, labels) or _stored(folder, (channels, height, width), labels, fill)
    return stored["part"]


def is_large(size: int) -> bool:
    """Return whether images of so many bytes are mapped from a file instead of held in memory."""
    return size >= LARGE


def require_room(size: int, what: str) -> None:
    """Refuse images that are held in memory but would not fit there; what is mapped needs none.

    Raises:
        DataError: there is not enough memory.
    """
    if not is_large(size):
        require_memory(size, what, "give a smaller size=N, or fewer images")


def _folder(root: Path, kind: str, key: str) -> Path:
    return root / "decoded" / f"{kind}-{key[:40]}"


def _size(labels: Mapping[str, Tensor], shape: Shape) -> int:
    return sum(map(len, labels.values())) * prod(shape)


def _in_memory(labels: Mapping[str, Tensor], shape: Shape, fill: Fill) -> dict[str, Tensor]:
    arrays = {name: np.empty((len(of_split), *shape), dtype=np.uint8) for name, of_split in labels.items()}
    fill(arrays)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _stored(folder: Path, shape: Shape, labels: Mapping[str, Tensor], fill: Fill) -> dict[str, Split]:
    """Write the images of all splits into a folder, and return them mapped from there."""
    count, size = sum(map(len, labels.values())), _size(labels, shape)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if size > free:
            fault = f"{_gigabytes(size)} of disk, but {folder.parent} has {_gigabytes(free)}"
            raise DataError(f"{count:,} decoded images take {fault}: set DDBENCH_DATA to a folder with more room")
        _log.warning("storing %s images once in %s (%s)", f"{count:,}", folder, _gigabytes(size))
        with beside(folder) as temporary:
            temporary.mkdir()
            _write(temporary, shape, labels, fill)
    except OSError as error:
        remedy = "set DDBENCH_DATA to a folder that can be written"
        raise DataError(f"decoded images cannot be written to {folder}: {error.strerror}; {remedy}") from error
    return _open(folder, labels)


def _write(folder: Path, shape: Shape, labels: Mapping[str, Tensor], fill: Fill) -> None:
    arrays: dict[str, Any] = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=(len(of_split), *shape)
        )
        for name, of_split in labels.items()
    }
    fill(arrays)
    for array in arrays.values():
        array.flush()
    # The digest is the split's fingerprint, which every problem computes anyway: checking it costs no second pass.
    digests = {name: split.fingerprint for name, split in _open(folder, labels).items()}
    (folder / _DIGESTS).write_text(json.dumps(digests))


def _read(folder: Path, labels: Mapping[str, Tensor]) -> dict[str, Split] | None:
    """Return the mapped splits if the folder holds them whole; None if it is not there, or damaged, with a warning."""
    if not folder.is_dir():
        return None
    try:
        digests = json.loads((folder / _DIGESTS).read_text())
        splits = _open(folder, labels)
        intact = all(split.fingerprint == digests[name] for name, split in splits.items())
    except Exception as error:  # a missing or truncated file is met in many ways
        _log.warning("%s cannot be read and is made again (%s)", folder, error)
        return None
    if not intact:
        _log.warning("%s is damaged and is made again", folder)
    return splits if intact else None


def _open(folder: Path, labels: Mapping[str, Tensor]) -> dict[str, Split]:
    return {
        name: Split(_tensor(folder / f"{name}.npy", len(of_split)), of_split, on_disk=True)
        for name, of_split in labels.items()
    }


def _tensor(path: Path, count: int) -> Tensor:
    # Read-only and shared: a private mapping that may be written counts against limits of memory in full, and the
    # system refuses it if the file is larger than all memory. Writing into such a tensor ends the process.
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim != 4 or len(array) != count:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
