"""Files of distilled sets: our own (safetensors, with everything inside) and the VICO-UoE ``.pt`` format.

Neither is read in a way that can run code.
"""

import contextlib
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from harness.types.distilled import DistilledSet
from harness.types.errors import DataError
from harness.types.preprocessing import Preprocessing, preprocessing_from

FORMAT = 1
PICKLED = (".pt", ".pth")
_PREFIX = "preprocessing."


def save_distilled(distilled: DistilledSet, path: Path) -> None:
    """Write a set with its classes, preprocessing, step size and provenance."""
    images, labels = distilled.images.contiguous(), distilled.labels.contiguous()
    tensors = {"images": images, "labels": labels}
    tensors |= {_PREFIX + name: value.contiguous() for name, value in distilled.preprocessing.tensors().items()}
    told = {
        "format": FORMAT,
        "classes": distilled.classes,
        "preprocessing": distilled.preprocessing.name,
        "step_size": distilled.step_size,
        "provenance": dict(distilled.provenance),
    }
    path.write_bytes(save(tensors, {"ddbench": json.dumps(told, sort_keys=True)}))


def load_distilled(
    path: str | Path,
    *,
    entry: int = -1,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
) -> DistilledSet:
    """Read a distilled set; ``TensorDataset(*load_distilled(path))`` is ready to train on.

    Args:
        path: a ``.safetensors`` file of ours, or a ``.pt`` file of the VICO-UoE format.
        entry: which set of a ``.pt`` file that holds several; the last by default.
        preprocessing: what a ``.pt`` file's images went through, which it does not tell.
        classes: the class names, which a ``.pt`` file does not tell.

    Raises:
        DataError: the file cannot be read, is not of these formats, or holds unusable values.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if path.suffix.lower() in PICKLED:
        if preprocessing is None:
            raise DataError(f"{path.name} does not tell how its images were normalised: give preprocessing=")
        return _load_pt(path, entry, preprocessing, classes)
    if entry not in (-1, 0):
        raise DataError(f"{path.name} holds one set: leave out --entry")
    return _load_own(path)


def _load_own(path: Path) -> DistilledSet:
    told, tensors = _read_own(path)
    _check_told(told, path.name)
    parts = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
    with _named(path.name):
        preprocessing = preprocessing_from(told["preprocessing"], parts)
        images, labels = tensors["images"].float(), tensors["labels"]
        distilled = DistilledSet(
            images, labels, tuple(told["classes"]), preprocessing, told["step_size"], told["provenance"]
        )
        _check_preprocessing(distilled)
    return distilled


def _read_own(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the file tells, and its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["ddbench"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        if told["format"] > FORMAT:
            raise DataError(
                f"{path.name} has format {told['format']}, and this ddbench knows up to {FORMAT}: use a newer one"
            )
        missing = [name for name in ("images", "labels") if name not in tensors]
        if missing:
            raise KeyError(missing[0])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path.name} is no distilled set of ddbench ({type(error).__name__}: {error})") from None
    return told, tensors


def _check_told(told: Mapping[str, Any], name: str) -> None:
    classes, step_size = told.get("classes"), told.get("step_size", "missing")
    sound = {
        "classes": isinstance(classes, list) and all(isinstance(word, str) for word in classes),
        "preprocessing": isinstance(told.get("preprocessing"), str),
        "step_size": step_size is None or isinstance(step_size, int | float),
        "provenance": isinstance(told.get("provenance"), dict),
    }
    for key, is_sound in sound.items():
        if not is_sound:
            raise DataError(f"{name} is no distilled set of ddbench ({key} is {told.get(key)!r})")


def _check_preprocessing(distilled: DistilledSet) -> None:
    black = torch.zeros(1, *distilled.images.shape[1:])
    try:
        inputs = distilled.preprocessing.apply(black)
    except RuntimeError:
        inputs = black.new_zeros(())
    if inputs.shape != black.shape or not bool(torch.isfinite(inputs).all()):
        raise DataError(f"its preprocessing {distilled.preprocessing.name!r} does not fit images {tuple(black.shape)}")


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Begin what is wrong with a set with the file that it lies in."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _load_pt(path: Path, entry: int, preprocessing: Preprocessing, classes: Sequence[str] | None) -> DistilledSet:
    content = _read_pickle(path)
    sets = content.get("data") if isinstance(content, dict) else None
    if not isinstance(sets, list) or not sets:
        raise DataError(f"{path.name} is not of the VICO-UoE format: it has no list 'data'")
    if not -len(sets) <= entry < len(sets):
        raise DataError(f"{path.name} has {len(sets)} sets: --entry goes from 0 to {len(sets) - 1}")
    index = entry % len(sets)
    images, labels = _pair(sets[index], f"entry {index} of {path.name}")
    count = int(labels.max()) + 1
    provenance: dict[str, Any] = {"file": path.name, "entry": index, "entries": len(sets)}
    if index == len(sets) - 1:
        provenance["stored_accuracies"] = _accuracies(content.get("accs_all_exps"))
    names = tuple(classes) if classes else tuple(str(label) for label in range(count))
    with _named(f"entry {index} of {path.name}"):
        return DistilledSet(images, labels, names, preprocessing, provenance=provenance)


def _read_pickle(path: Path) -> Any:  # noqa: ANN401
    # Published files hold accuracies as NumPy scalars, under the name that NumPy 1 gave their constructor.
    scalar = (np._core.multiarray.scalar, "numpy.core.multiarray.scalar")  # type: ignore[attr-defined]
    allowed = [scalar, np._core.multiarray.scalar, np.dtype, type(np.dtype("float64")), type(np.dtype("float32"))]  # type: ignore[attr-defined]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[2].partition("GLOBAL")[2].split(" by default")[0].strip()
        told = f"it asks for {reason.splitlines()[0]}" if reason else "it is no plain data"
        raise DataError(f"{path.name} is not read, because it could run code: {told}") from None
    except Exception as error:  # a damaged zip or pickle raises almost anything
        line = (str(error).splitlines() or [""])[0][:120]
        raise DataError(f"{path.name} cannot be read ({type(error).__name__}: {line})") from None


def _pair(value: Any, where: str) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    if not (isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, Tensor) for part in value)):
        raise DataError(f"{where} is not [images, labels]")
    images, labels = value
    if images.ndim != 4 or not images.is_floating_point() or labels.ndim != 1 or labels.is_floating_point():
        raise DataError(f"{where}: images must be (n, channels, height, width) floats, labels (n,) integers")
    if not len(labels) or int(labels.min()) < 0:
        raise DataError(f"{where}: labels must be class indices from 0")
    return images.detach().float(), labels.detach().long()


def _accuracies(value: Any) -> Mapping[str, list[float]]:  # noqa: ANN401
    lists = value.items() if isinstance(value, dict) else ()
    return {str(name): [float(accuracy) for accuracy in values] for name, values in lists if _are_numbers(values)}


def _are_numbers(values: Any) -> bool:  # noqa: ANN401
    return isinstance(values, list | tuple) and bool(values) and all(isinstance(value, Real) for value in values)
