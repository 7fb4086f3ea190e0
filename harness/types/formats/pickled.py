"""Reading of files that ``torch.save`` wrote, without running code and without trusting the sizes they promise."""

import functools
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import DataError
from harness.types.formats.limits import check_directory, check_promise, plain_file, reason_of
from harness.types.formats.pickle_audit import PickleAudit

PICKLED = (".pt", ".pth")
"""Suffixes of files that ``torch.save`` wrote."""
MTT_FILE, RANKED_FILE, IDC_FILE = "images_best.pt", "images.pt", "data.pt"
"""The files of images in folders that MTT, DD-Ranking and IDC write; a folder that has several is of the first."""
_BEFORE_CONTENT = 3
"""Pickles before the content in a file of torch before 1.6: magic number, protocol, system."""
_ZIP = b"PK\x03\x04"
_MOST_PICKLE = 2**26
"""Largest size of a file's pickles in bytes: everything but the tensors."""


def read_pickled(path: Path) -> Any:  # noqa: ANN401
    """Read the tensors, numbers and texts in lists and dictionaries that a file holds.

    Raises:
        DataError: it is not such a file, asks for anything else, or promises more than it holds.
    """
    size = plain_file(path)
    try:
        _check_numbers(path, size)
        content = _load(path)
    except DataError:
        raise
    except Exception as error:  # a damaged zip or pickle raises almost anything
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise DataError(
            f"{path.name} cannot be read ({reason}): it is damaged, or torch.save did not write it"
        ) from None
    check_promise([tuple(tensor.shape) for tensor in tensors_in(content)], size, path.name)
    for tensor in tensors_in(content):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise DataError(f"{path.name} holds a tensor that is not plain (sparse, quantized, or without values)")
        # A tensor may repeat one stored value by strides of 0, and takes its full size when it is copied.
        if prod(tensor.shape) * tensor.element_size() > size:
            raise DataError(f"{path.name} promises a tensor of {tuple(tensor.shape)} in {size:,} bytes: it is damaged")
    return content


def file_of_folder(folder: Path) -> str | None:
    """Return the name of the file in a folder that says which code wrote it; None if there is no such file."""
    return next((name for name in (MTT_FILE, RANKED_FILE, IDC_FILE) if os.path.lexists(folder / name)), None)


def pickled_form(path: Path) -> str | None:
    """Return what a file holds: a ``tensor``, a ``pair`` of them, or a dictionary with ``data``; None for all else."""
    try:
        status = path.stat()
        return _form(path, status.st_mtime_ns, status.st_size)
    except (DataError, OSError, ValueError):  # whoever reads the file in the end says what is wrong with it
        return None


@functools.lru_cache(maxsize=16)
def _form(path: Path, _changed: int, _size: int) -> str | None:
    """Return the answer of `pickled_form`, for which several formats ask: a large file is read once."""
    content = read_pickled(path)
    # Suffixes do not distinguish the formats that torch.save writes, so the content has to.
    if isinstance(content, Tensor):
        return "tensor"
    if isinstance(content, list | tuple) and len(content) == 2 and all(isinstance(part, Tensor) for part in content):
        return "pair"
    return "data" if isinstance(content, dict) and isinstance(content.get("data"), list) else None


def pair_of(value: Any, where: str) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Return images and labels from a list of two tensors.

    Raises:
        DataError: it is something else.
    """
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, Tensor) for part in value)):
        raise DataError(f"{where} is not [images, labels]")
    images, labels = value
    return images, labels


def tensors_in(content: Any) -> Iterator[Tensor]:  # noqa: ANN401
    """Yield every tensor in nested lists and dictionaries once; they may contain themselves."""
    pending, seen = [content], set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, dict):
            pending += part.values()
        elif isinstance(part, list | tuple):
            pending += part


def _load(path: Path) -> Any:  # noqa: ANN401
    # Published files hold accuracies as NumPy scalars, under the name that NumPy 1 gave their constructor.
    scalar = (np._core.multiarray.scalar, "numpy.core.multiarray.scalar")  # type: ignore[attr-defined]
    allowed = [scalar, np._core.multiarray.scalar, np.dtype, type(np.dtype("float64")), type(np.dtype("float32"))]  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore", UserWarning)  # an unusual protocol works, or is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[2].partition("GLOBAL")[2].split(" by default")[0].strip()
        request = f"it asks for {reason.splitlines()[0]}" if reason else "it is not plain data"
        raise DataError(f"{path.name} is not read, because it could run code: {request}") from None


def _check_numbers(path: Path, size: int) -> None:
    """Check what the pickles ask for and the sizes that they name, before memory is allocated."""
    with path.open("rb") as file:
        zipped = file.read(len(_ZIP)) == _ZIP  # as torch.load decides
        file.seek(0)
        # torch.load decides by the first bytes and not by the suffix; the audit must look at what will be loaded.
        numbers = _of_zip(file, size, path.name) if zipped else _of_old(file.read(_MOST_PICKLE), path.name)
        if max(numbers, default=0) > size:
            raise DataError(f"{path.name} promises more numbers than its {size:,} bytes can hold: it is damaged")


def _of_zip(file: IO[bytes], size: int, name: str) -> list[int]:
    """Return the sizes of all storages in a zip archive; tensors cannot go beyond these."""
    check_directory(file, name)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise DataError(f"{name} cannot be read: it is a compressed archive, which torch.save does not write")
        if sum(member.file_size for member in members) > size:
            raise DataError(f"{name} promises more than its {size:,} bytes can hold: it is damaged")
        pickles = [member for member in members if member.filename.endswith("data.pkl")]
        if any(member.file_size > _MOST_PICKLE for member in pickles):
            raise DataError(f"{name} has a pickle of more than {_MOST_PICKLE:,} bytes: that is not a distilled set")
        return [number for member in pickles for number in _storages(archive.read(member), name)]


def _storages(pickled: bytes, name: str) -> list[int]:
    audit = PickleAudit(name, pickled)
    audit.follow()
    return audit.storages


def _of_old(head: bytes, name: str) -> list[int]:
    """Return all numbers in the content of an old file, in which storages grow to the size that tensors ask for."""
    audit = PickleAudit(name, head)
    for _ in range(_BEFORE_CONTENT + 1):
        audit.follow()
    numbers = audit.numbers
    audit.follow()  # the storages' keys
    return numbers
