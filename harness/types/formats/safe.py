"""Reading of safetensors files without trusting what their headers promise."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.errors import DataError
from harness.types.formats.limits import MOST_TEXT, check_promise, plain_file, reason_of


def read_safetensors(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the texts in the header of a safetensors file, and the tensors whose names are wanted.

    Raises:
        DataError: it is not a plain file, is damaged, or promises more than it can hold.
    """
    size = plain_file(path)
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if wanted(name)]  # noqa: SIM118
            # The slices give shapes without reading data: an honest header can still name a huge tensor.
            check_promise([file.get_slice(name).get_shape() for name in names], size, path.name)
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise DataError(f"{path.name} is not a distilled set of ddbench ({reason})") from None


def _check_header(path: Path) -> None:
    """Check the length of the header before it is read: the library itself accepts up to 100 MB of JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > 3 * MOST_TEXT:  # of which quotes inside of JSON take two letters
        raise DataError(f"{path.name} is not a distilled set of ddbench (its header would take {length:,} bytes)")
