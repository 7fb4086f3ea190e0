"""Reading what ``torch.save`` wrote, without running anything and without believing what it promises."""

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from harness.types.errors import DataError
from harness.types.formats.limits import check_promise, plain_file, reason_of

_BEFORE_CONTENT = 3
"""Pickles that stand before the content in a file of torch before 1.6: magic number, protocol, system."""
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
_NOTES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "FRAME"}
"""Operations that leave the stack as it is."""


def read_pickled(path: Path) -> Any:  # noqa: ANN401
    """Tensors, numbers and text in lists and dictionaries, as the file holds them.

    Raises:
        DataError: it is no such file, asks for anything else, or promises more than it holds.
    """
    size = plain_file(path)
    try:
        _check_numbers(path, size)
        content = _load(path)
    except DataError:
        raise
    except Exception as error:  # a damaged zip or pickle raises almost anything
        told = f"{type(error).__name__}: {reason_of(error)}"
        raise DataError(f"{path.name} cannot be read ({told}): it is damaged, or torch.save did not write it") from None
    check_promise([tuple(tensor.shape) for tensor in tensors_in(content)], size, path.name)
    for tensor in tensors_in(content):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise DataError(f"{path.name} holds a tensor that is not plain (sparse, quantized, or without values)")
        if prod(tensor.shape) * tensor.element_size() > size:
            raise DataError(f"{path.name} promises a tensor of {tuple(tensor.shape)} in {size:,} bytes: it is damaged")
    return content


def pair_of(value: Any, where: str) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """Images and labels of a list of two tensors.

    Raises:
        DataError: it is something else.
    """
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, Tensor) for part in value)):
        raise DataError(f"{where} is not [images, labels]")
    images, labels = value
    return images, labels


def tensors_in(content: Any) -> Iterator[Tensor]:  # noqa: ANN401
    """Every tensor in nested lists and dictionaries."""
    pending = [content]
    while pending:
        part = pending.pop()
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
        told = f"it asks for {reason.splitlines()[0]}" if reason else "it is no plain data"
        raise DataError(f"{path.name} is not read, because it could run code: {told}") from None


def _check_numbers(path: Path, size: int) -> None:
    """Check the sizes that stand in the pickle, before memory is taken for them."""
    with path.open("rb") as file:
        numbers = _of_zip(path, size) if zipfile.is_zipfile(file) else _of_old(file)
        if max(numbers, default=0) > size:
            raise DataError(f"{path.name} promises more numbers than its {size:,} bytes can hold: it is damaged")


def _of_zip(path: Path, size: int) -> list[int]:
    """The sizes of all storages; tensors cannot go beyond these."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise DataError(f"{path.name} cannot be read: it is a compressed archive, which torch.save does not write")
        if sum(member.file_size for member in members) > size:
            raise DataError(f"{path.name} promises more than its {size:,} bytes can hold: it is damaged")
        pickles = [member for member in members if member.filename.endswith("/data.pkl")]
        return [number for member in pickles for number in _storage_sizes(archive.read(member))]


def _storage_sizes(pickled: bytes) -> Iterator[int]:
    """The last number in the tuple before each storage: as pickles are written, it stands there itself."""
    last: tuple[str, Any] = ("", None)
    in_tuple: Any = None
    for operation, value, _ in pickletools.genops(pickled):
        if operation.name in _NOTES:
            continue
        if operation.name == "BINPERSID":
            if last[0] != "TUPLE" or in_tuple is None:
                raise ValueError("the size of a storage is hidden")
            yield in_tuple
        if operation.name == "TUPLE":
            in_tuple = last[1] if last[0] in _NUMBERS else None
        last = (operation.name, value)


def _of_old(file: IO[bytes]) -> list[int]:
    """All numbers of the content: storages grow to what tensors ask for."""
    file.seek(0)
    for _ in range(_BEFORE_CONTENT):
        _numbers(file)
    return _numbers(file)


def _numbers(file: IO[bytes]) -> list[int]:
    """The whole numbers that stand in the next pickle, which is not executed."""
    return [int(value or 0) for operation, value, _ in pickletools.genops(file) if operation.name in _NUMBERS]
