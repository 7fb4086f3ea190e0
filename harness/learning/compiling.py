"""Compiled code, for networks whose time goes into what stands between their convolutions.

torch.compile makes one pass over memory of normalisation, activation and pooling, and the same of their gradients. On a
CPU a ConvNet gains by it, above all in bfloat16; a VGG or a ResNet, nearly all convolution, gains nothing. No author of
a method or an architecture has to think of it: the harness sends first-order work through `logits_of`.
"""

import logging
import os
import shutil
import threading
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.learning.probe import arithmetic, draws_from_global
from harness.types.problem import Shape

HEAVY = 2e7
"""Operations an image below which a network is run as it is: compiling takes seconds."""
DENSE = 400.0
"""Operations for each value that a layer gives, above which little is gained: a ConvNet has 180, a ResNet 650."""
SIZES = range(8, 33)
"""Sizes of batches that are compiled for, each by itself: then the code for one depends on nothing that ran before."""

Policy = Literal["auto", "never"]
Forward = Callable[[nn.Module, Tensor], Tensor]

_log = logging.getLogger("ddbench")
_lock = threading.RLock()
_structure: weakref.WeakKeyDictionary[nn.Module, str | None] = weakref.WeakKeyDictionary()
"""Of each network seen: how it prints, or None where it is run as it is."""
_code: dict[tuple[object, ...], Forward] = {}
"""Compiled functions that have been called: by structure, shape, and whether gradients and lower precision are on."""


class _Mode:
    """How this process computes, as its number of threads is: set at the start of a run, and recorded."""

    policy: Policy = "never"
    refused: ClassVar[set[str]] = set()
    """Networks, as they print, that could not be compiled."""


def set_compilation(policy: Policy) -> None:
    """Say whether networks that gain by it are compiled from now on. Until then none is."""
    _Mode.policy = policy


def compilation() -> str:
    """``auto`` or ``never``; ``auto, failed`` where a network should have been compiled and could not be."""
    return f"{_Mode.policy}, failed" if _Mode.policy == "auto" and _Mode.refused else _Mode.policy


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """What ``network`` gives for ``images``: values and first derivatives, which cannot be differentiated again.

    Whether it is compiled depends on the policy, the network and the images' shape alone.
    """
    logits: Tensor
    if len(images) not in SIZES or not is_compiled(network, images):
        logits = network(images)
        return logits
    kind = (_structure[network], images.shape, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
    if kind in _code:
        return _code[kind](network, images)
    with _lock:  # threads that come first would else compile the same side by side
        try:
            code = _code.get(kind) or _compiled(len(_code))
            logits, _code[kind] = code(network, images), code
        except Exception as error:  # what fails is the compiler, or else the network, which then says so itself
            logits = network(images)
            _refuse(network, error)
    return logits


def is_compiled(network: nn.Module, images: Tensor) -> bool:
    """Whether a network, on batches of such images, is heavy enough to be compiled and leaves enough to gain.

    One with dropout never is: compiled, it would draw other numbers than as it stands.
    """
    if _Mode.policy == "never" or images.device.type != "cpu":
        return False
    with _lock:
        if network not in _structure:
            _, *shape = images.shape
            worth = _is_worth(network, (shape[0], shape[1], shape[2])) and repr(network) not in _Mode.refused
            _structure[network] = repr(network) if worth else None
        return _structure[network] is not None


def _is_worth(network: nn.Module, shape: Shape) -> bool:
    weights = sum(parameter.numel() for parameter in network.parameters())
    if 2.0 * weights * shape[1] * shape[2] < HEAVY:  # each weight is used once a pixel at most: no need to count
        return False
    operations, values = arithmetic(network, shape)
    gains = operations >= HEAVY and operations < DENSE * values
    return gains and not draws_from_global(network, torch.zeros(2, *shape))


def _compiled(number: int) -> Forward:
    """A function to compile: weights are its inputs, so that a fresh network needs no new code."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(code_folder()))
    # It says at each start that there is a CUDA compiler, but no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

    def forward(network: nn.Module, images: Tensor) -> Tensor:
        logits: Tensor = network(images)
        return logits

    # torch keeps what it has compiled with a function's code, and only so many of them: each has a code of its own.
    own = types.FunctionType(forward.__code__.replace(co_name=f"forward_{number}"), globals())
    # One thread: slices run side by side, one core each.
    return torch.compile(own, fullgraph=True, dynamic=False, options={"cpp.threads": 1})


def compiler() -> str | None:
    """Path of the C++ compiler that torch uses, if there is one: ``$CXX``, else g++."""
    return shutil.which(os.environ.get("CXX") or "g++")


def code_folder() -> Path:
    """Where compiled code is kept between runs: ``ddbench-code`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ddbench-code"


def _refuse(network: nn.Module, error: Exception) -> None:
    """Run all networks of this structure as they are from now on, and say so once."""
    first = not _Mode.refused
    _Mode.refused.add(repr(network))
    _structure[network] = None
    if first:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _log.warning("a network is not compiled, which is slower: %s (--compile never does not try)", reason)
