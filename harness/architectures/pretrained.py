"""Pretrained weights of classifiers: where they lie, what they are, and how they are loaded."""

import functools
import hashlib
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.errors import DataError, UsageError, did_you_mean, few
from harness.system.home import expand_home
from harness.types.options import Options, option

FILES = (".pt", ".pth", ".bin", ".safetensors")
"""Suffixes by which ``weights`` names a file; anything else is a name of the library's."""
AUXILIARY = ("aux", "AuxLogits")
"""Beginnings of the names of heads that only the library's training uses, and that no network here has."""


def weights_option(example: str) -> Any:  # noqa: ANN401
    """Declare the option ``weights`` of an architecture, with an example of a name of its library."""
    return option(
        None,
        f"start from pretrained weights: a file (.pt, .pth, .bin, .safetensors), or a name of the library (default, "
        f"{example}), whose cache must hold them; scores are marked. auto: initialised at random",
    )


class WeightOptions(Options):
    """Base class of options with `weights_option`, which each subclass declares after its own."""

    if TYPE_CHECKING:
        weights: str | None

    @property
    def weight_file(self) -> Path | None:
        """The file that ``weights`` names; None if it names weights of the library, or nothing."""
        named = self.weights is not None and self.weights.endswith(FILES)
        return expand_home(str(self.weights)) if named else None

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value: of a file its digest, and no weights at all as before there were any."""
        values = super().as_json()
        if self.weights is None:
            del values["weights"]
        elif file := self.weight_file:
            values["weights"] = f"sha256:{_digest(*stamp(file))}"
        return values


def check_weights(library: str, weights: str | None, names: Callable[[], Sequence[str]]) -> None:
    """Check that an option ``weights`` names a file that is there, or weights that the library knows.

    Raises:
        UsageError: it does not.
    """
    if weights is None or weights == "default":
        return
    if weights.endswith(FILES):
        stamp(expand_home(weights))
    elif weights not in names():
        known = did_you_mean(weights, ["default", *names()])
        raise UsageError(
            f"{library}[weights={weights}]: there are no such weights: {known}; or name a file ({', '.join(FILES)})"
        )


def stamp(file: Path) -> tuple[str, int, int]:
    """Return the path of a file with its size and time of change.

    Raises:
        UsageError: there is no such file.
    """
    try:
        status = os.stat(file)
    except OSError as error:
        raise UsageError(f"weights={file} cannot be read: {error.strerror}; name a file of weights") from None
    return str(file), status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=64)
def _digest(path: str, _size: int, _changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_weights(model: nn.Module, file: Path, head: str, who: str) -> None:
    """Load weights from a file into a model, all of which must fit but the head.

    The head (the last layer, whose outputs are the classes) takes its weights if it has as many classes as the file's,
    and otherwise keeps those that it was initialised with. Nothing else is adapted: grey images are repeated on the
    three channels of the first layer, so that it never changes.

    Args:
        model: the model; on the ``meta`` device shapes are compared alone.
        file: a state dictionary by torch (pickled as plain tensors) or safetensors.
        head: the path of the last layer in the model.
        who: the architecture, for messages.

    Raises:
        DataError: the file cannot be read, or a tensor is missing, left over or of another shape.
    """
    state, own = _state(*stamp(file)), model.state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith(AUXILIARY) or name in own}
    of_head = {name for name in own if name.startswith(f"{head}.")}
    fits = all(name in state and state[name].shape == own[name].shape for name in of_head)
    # Counters of batches, which older files do not have; no number depends on them.
    optional = {name for name in own if name.endswith(".num_batches_tracked")}
    missing = [name for name in own if name not in state and name not in optional | of_head]
    left_over = [name for name in state if name not in own]
    if missing and left_over and all(name.removeprefix("module.") in own for name in left_over):
        raise DataError(f"the weights {file} are those of a model in DataParallel: take 'module.' off their names")
    if missing or left_over:
        fault = f"has no {few(missing)}" if missing else f"has {few(left_over)}, which the model has not"
        raise DataError(f"the weights {file} do not fit {who}: the file {fault}; name weights of this model")
    loaded = {name: tensor for name, tensor in state.items() if fits or name not in of_head}
    for name, tensor in loaded.items():
        if tensor.shape != own[name].shape:
            shapes = f"{name} is {tuple(tensor.shape)} there and {tuple(own[name].shape)} here"
            raise DataError(
                f"the weights {file} do not fit {who}: {shapes}; name weights of this model, or resize the images to "
                "the size that they were trained on"
            )
    if not any(tensor.is_meta for tensor in own.values()):
        model.load_state_dict(loaded, strict=False)


@functools.lru_cache(maxsize=2)
def _state(path: str, _size: int, _changed: int) -> Mapping[str, Tensor]:
    # A pool draws the same few architectures thousands of times.
    try:
        with torch.device("cpu"):
            state = _read(path)
        if isinstance(state.get("state_dict"), dict):  # as many training scripts save it
            state = state["state_dict"]
        if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise TypeError("it holds something else than tensors by name")
    except pickle.UnpicklingError as error:  # torch's reason advises to execute the file
        remedy = "save model.state_dict() of a whole model, or name another file"
        raise DataError(f"{path} is not a state dictionary of weights, which holds tensors alone: {remedy}") from error
    except Exception as error:  # torch and safetensors meet damage in many ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is not a state dictionary of weights: name another file ({reason})") from error
    # A network of such weights would be scored as one that guesses.
    if spoilt := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise DataError(f"{path} has values in {few(spoilt)} that are not finite: name another file")
    return state


def _read(path: str) -> dict[str, Any]:
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return dict(load_file(path))
    return dict(torch.load(path, map_location="cpu", weights_only=True))
