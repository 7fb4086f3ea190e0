"""Quicker ways through a network on a CPU, for first-order work: compiled code and quick convolutions.

torch.compile makes one pass over memory of normalisation, activation and pooling, and the same of their gradients. A
ConvNet gains by it, above all in bfloat16; a VGG or a ResNet, nearly all convolution, gains nothing. All heavy networks
gain by `QuickConvolutions` in float32. No author of a method or an architecture has to think of it: the harness sends
first-order work through `logits_of`.
"""

import logging
import os
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from harness.compute.native_code import code_folder
from harness.compute.network_traits import arithmetic, draws_from_global
from harness.compute.quick_convolutions import QuickConvolutions
from harness.compute.winograd import make_ready
from harness.types.problem import Shape

HEAVY = 2e7
"""Operations an image below which a network is run as it is."""
COMPILED = 5e7
"""Operations an image below which a network is not compiled, which takes half a minute."""
DENSE = 400.0
"""Operations for each value that a layer gives, above which little is gained: a ConvNet has 180, a ResNet 650."""
SIZES = range(8, 33)
"""Sizes of batches that are compiled for, each by itself: then the code for one depends on nothing that ran before."""

Policy = Literal["auto", "never"]
Forward = Callable[[nn.Module, Tensor], Tensor]


class _Way(NamedTuple):
    """How a network is run."""

    quickly: bool
    compiled: str | None
    """How it prints, if it is compiled."""


_log = logging.getLogger("ddbench")
_lock = threading.RLock()
_ways: weakref.WeakKeyDictionary[nn.Module, _Way] = weakref.WeakKeyDictionary()
"""Of each network seen."""
_seldom: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Networks whose like comes too seldom to be compiled."""
_code: dict[tuple[object, ...], Forward] = {}
"""Compiled functions that have been called: by structure, shape and all that torch compiles anew for."""


class _Mode:
    """How this process computes, as its number of threads is: set at the start of a run, and recorded."""

    # Of the process and not of a run: a plugin's step reaches `logits_of` from any thread, without a run to ask, and
    # what could not be compiled here cannot be compiled for the next run either. `prepared` sets one run's policy.
    policy: Policy = "never"
    refused: ClassVar[set[str]] = set()
    """Networks, as they print, that could not be compiled."""
    quick: bool | None = None
    """Whether there are quick convolutions; None before the first network that would take them."""


def set_compilation(policy: Policy) -> None:
    """Say whether networks take quicker ways from now on. Until then none does."""
    _Mode.policy = policy


def compilation() -> str:
    """``auto`` or ``never``; ``auto, failed`` where a quicker way should have been taken and could not be."""
    return f"{_Mode.policy}, failed" if _Mode.policy == "auto" and _has_failed() else _Mode.policy


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """What ``network`` gives for ``images``: values and first derivatives, which cannot be differentiated again.

    Which way it takes depends on the policy, the network, the images' shape, and whether there is a gradient to follow.
    """
    way = _way(network, images) if not _is_transformed() else _Way(False, None)
    forward = _quickly if way.quickly else _plainly
    if way.compiled is None or len(images) not in SIZES:
        return forward(network, images)
    kind = (way, images.shape, network.training, *_modes(network, images))
    if kind in _code:
        return _code[kind](network, images)
    with _lock:  # threads that come first would else compile the same side by side
        try:
            code = _code.get(kind) or _compiled(_pixel_by_pixel if way.quickly else _plainly, len(_code))
            with warnings.catch_warnings():  # torch 2.11 warns of what it does itself
                warnings.simplefilter("ignore", DeprecationWarning)
                logits, _code[kind] = code(network, images), code
        except Exception as error:  # what fails is the compiler, or else the network, which then says so itself
            logits = forward(network, images)
            _say_once(error)
            _Mode.refused.add(way.compiled)
            _ways[network] = way._replace(compiled=None)
    return logits


def comes_seldom(network: nn.Module) -> None:
    """Have a fresh network never compiled: its structure is drawn too seldom."""
    with _lock:
        _seldom.add(network)


def is_compiled(network: nn.Module, images: Tensor) -> bool:
    """Whether a network, on batches of such images, is heavy enough to be compiled and leaves enough to gain.

    One with dropout never is: compiled, it would draw other numbers than as it stands.
    """
    return _way(network, images).compiled is not None


def _way(network: nn.Module, images: Tensor) -> _Way:
    if _Mode.policy == "never" or images.device.type != "cpu":
        return _Way(False, None)
    with _lock:
        if network not in _ways:
            _, *shape = images.shape
            _ways[network] = _found(network, (shape[0], shape[1], shape[2]))
        return _ways[network]


def _found(network: nn.Module, shape: Shape) -> _Way:
    weights = sum(parameter.numel() for parameter in network.parameters())
    if 2.0 * weights * shape[1] * shape[2] < HEAVY:  # each weight is used once a pixel at most: no need to count
        return _Way(False, None)
    operations, values = arithmetic(network, shape)
    if operations < HEAVY:
        return _Way(False, None)
    gains = network not in _seldom and COMPILED <= operations < DENSE * values
    gains = gains and not draws_from_global(network, torch.zeros(2, *shape))
    return _Way(has_quick_convolutions(), repr(network) if gains and repr(network) not in _Mode.refused else None)


def has_quick_convolutions() -> bool:
    """Return whether the code of `QuickConvolutions` could be compiled on this machine."""
    if _Mode.quick is None:
        try:
            make_ready()
            _Mode.quick = True
        except (OSError, AttributeError) as error:
            _say_once(error)
            _Mode.quick = False
    return _Mode.quick


def _modes(network: nn.Module, images: Tensor) -> tuple[object, ...]:
    """What else torch compiles anew for."""
    asked = images.requires_grad, tuple(parameter.requires_grad for parameter in network.parameters())
    return *asked, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")


def _is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation is at work, which quicker ways know nothing of."""
    functorch = torch._C._functorch.peek_interpreter_stack() is not None
    return functorch or torch.autograd.forward_ad._current_level >= 0


def _plainly(network: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = network(images)
    return logits


def _quickly(network: nn.Module, images: Tensor) -> Tensor:
    with QuickConvolutions():
        logits: Tensor = network(images)
    return logits


def _pixel_by_pixel(network: nn.Module, images: Tensor) -> Tensor:
    """The same with channels last in memory, which suits compiled code."""
    return _quickly(network, images.contiguous(memory_format=torch.channels_last))


def _compiled(forward: Forward, number: int) -> Forward:
    """A function to compile: weights are its inputs, so that a fresh network needs no new code."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(code_folder()))
    # It says at each start that there is a CUDA compiler, but no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # torch keeps what it has compiled with a function's code, and only so many of them: each has a code of its own.
    own = types.FunctionType(forward.__code__.replace(co_name=f"forward_{number}"), globals())
    # Slices run side by side, one core each; but for the C++ wrapper they would wait for each other's hold of Python.
    return torch.compile(own, fullgraph=True, dynamic=False, options={"cpp.threads": 1, "cpp_wrapper": True})


def _say_once(error: Exception) -> None:
    if not _has_failed():
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _log.warning("networks run without compiled code, which is slower: %s (--compile never does not try)", reason)


def _has_failed() -> bool:
    return bool(_Mode.refused) or _Mode.quick is False
