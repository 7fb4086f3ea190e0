"""Faster forward passes on a CPU, for values and first derivatives: compiled code and quick convolutions.

torch.compile fuses normalisation, activation and pooling into one pass over memory, and their gradients likewise. A
ConvNet gains by it, above all in bfloat16; a VGG or a ResNet, which is nearly all convolution, gains nothing. All heavy
networks gain by `QuickConvolutions` in float32. Authors of methods and architectures need not know about it: the
harness sends first-order work through `logits_of`.
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
from harness.compute.winograd import load_native_code
from harness.types.problem import Shape

MIN_OPERATIONS = 2e7
"""Operations per image below which a network is run as it is."""
MIN_COMPILED_OPERATIONS = 5e7
"""Operations per image below which a network is not compiled, since compiling takes half a minute."""
MAX_OPERATIONS_PER_VALUE = 400.0
"""Operations per output value of a layer above which compiling gains little: a ConvNet has 180, a ResNet 650."""
MAX_COMPILED_LAYERS = 10
"""Layers with weights above which a network is not compiled: for 20 of them, compiling takes minutes."""
COMPILED_BATCH_SIZES = range(8, 33)
"""Batch sizes that code is compiled for, each separately, so that none depends on what was compiled before."""

Policy = Literal["auto", "never"]
Forward = Callable[[nn.Module, Tensor], Tensor]


class _Strategy(NamedTuple):
    """How a network is run: with quick convolutions or not, and compiled or not."""

    quick_convolutions: bool
    printed_form: str | None
    """The network as it prints if it is compiled, otherwise None."""


_log = logging.getLogger("ddbench")
_lock = threading.RLock()
_strategies: weakref.WeakKeyDictionary[nn.Module, _Strategy] = weakref.WeakKeyDictionary()
"""The strategy of each network seen; weak, so that a network is freed with its last user."""
_rarely_drawn: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Networks of architectures that are drawn too seldom to be compiled."""
_compiled_forwards: dict[tuple[object, ...], Forward] = {}
"""Compiled functions that have been called, by structure, shape and everything else that torch recompiles for."""


class _CompilationState:
    """The compute mode of this process, like its number of threads: set at the start of a run, and recorded."""

    # Of the process and not of a run: a plugin's step reaches `logits_of` from any thread, without a run to ask, and
    # what could not be compiled here cannot be compiled for the next run either. `prepared` sets one run's policy.
    policy: Policy = "never"
    refused: ClassVar[set[str]] = set()
    """Printed forms of networks that could not be compiled."""
    has_quick_convolutions: bool | None = None
    """Whether quick convolutions are available; None before the first network that would use them."""


def set_compilation(policy: Policy) -> None:
    """Set whether networks may be run in a faster way from now on; before the first call, none is."""
    _CompilationState.policy = policy


def compilation() -> str:
    """Return ``auto`` or ``never``, or ``auto, failed`` if a faster way should have been taken and could not be."""
    policy = _CompilationState.policy
    return f"{policy}, failed" if policy == "auto" and _has_failed() else policy


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (n, classes) of ``network`` on ``images`` (n, c, h, w), by the fastest way that there is.

    They have first derivatives only, which cannot be differentiated again. The way depends on the policy, the network,
    the shape of the images, and whether gradients are recorded.
    """
    strategy = _strategy_of(network, images) if not _is_transformed() else _Strategy(False, None)
    forward = _forward_with_quick_convolutions if strategy.quick_convolutions else _forward
    if strategy.printed_form is None or len(images) not in COMPILED_BATCH_SIZES:
        return forward(network, images)
    kind = (strategy, images.shape, network.training, *_modes(network, images))
    if kind in _compiled_forwards:
        return _compiled_forwards[kind](network, images)
    with _lock:  # otherwise the first threads would all compile the same code
        try:
            source = _forward_with_channels_last if strategy.quick_convolutions else _forward
            code = _compiled_forwards.get(kind) or _compile(source, len(_compiled_forwards))
            with warnings.catch_warnings():  # torch 2.11 warns of deprecated calls of its own
                warnings.simplefilter("ignore", DeprecationWarning)
                logits, _compiled_forwards[kind] = code(network, images), code
        # Either the compiler fails, and the network as it is does not, or the network itself raises its error below.
        except Exception as error:
            logits = forward(network, images)
            _warn_once(error)
            _CompilationState.refused.add(strategy.printed_form)
            _strategies[network] = strategy._replace(printed_form=None)
    return logits


def exclude_from_compilation(network: nn.Module) -> None:
    """Exclude a fresh network from compilation, because its architecture is drawn too seldom."""
    with _lock:
        _rarely_drawn.add(network)


def is_compiled(network: nn.Module, images: Tensor) -> bool:
    """Return whether a network is compiled on batches of such images (n, c, h, w).

    It is if it is heavy enough and enough is gained. A network with dropout never is: compiled code would draw other
    random numbers than the network as it is.
    """
    return _strategy_of(network, images).printed_form is not None


def _strategy_of(network: nn.Module, images: Tensor) -> _Strategy:
    if _CompilationState.policy == "never" or images.device.type != "cpu":
        return _Strategy(False, None)
    with _lock:
        if network not in _strategies:
            _, *shape = images.shape
            _strategies[network] = _choose_strategy(network, (shape[0], shape[1], shape[2]))
        return _strategies[network]


def _choose_strategy(network: nn.Module, shape: Shape) -> _Strategy:
    weights = sum(parameter.numel() for parameter in network.parameters())
    if 2.0 * weights * shape[1] * shape[2] < MIN_OPERATIONS:  # each weight is used at most once per pixel
        return _Strategy(False, None)
    operations, values = arithmetic(network, shape)
    if operations < MIN_OPERATIONS:
        return _Strategy(False, None)
    gains = network not in _rarely_drawn and MIN_COMPILED_OPERATIONS <= operations < MAX_OPERATIONS_PER_VALUE * values
    gains = gains and _layers(network) <= MAX_COMPILED_LAYERS and not getattr(network, "recomputes", False)
    gains = gains and not draws_from_global(network, torch.zeros(2, *shape))
    gains = gains and repr(network) not in _CompilationState.refused
    return _Strategy(has_quick_convolutions(), repr(network) if gains else None)


def _layers(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules())


def has_quick_convolutions() -> bool:
    """Return whether the code of `QuickConvolutions` could be compiled on this machine."""
    if _CompilationState.has_quick_convolutions is None:
        try:
            load_native_code()
            _CompilationState.has_quick_convolutions = True
        except (OSError, AttributeError) as error:
            _warn_once(error)
            _CompilationState.has_quick_convolutions = False
    return _CompilationState.has_quick_convolutions


def _modes(network: nn.Module, images: Tensor) -> tuple[object, ...]:
    """Return what torch recompiles for besides structure and shape: what requires a gradient, and the global modes."""
    differentiated = images.requires_grad, tuple(parameter.requires_grad for parameter in network.parameters())
    return *differentiated, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")


def _is_transformed() -> bool:
    """Return whether torch.func or forward-mode differentiation is active, which the faster ways do not support."""
    # Private names: torch has no public function that answers either.
    functorch = torch._C._functorch.peek_interpreter_stack() is not None
    return functorch or torch.autograd.forward_ad._current_level >= 0


def _forward(network: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = network(images)
    return logits


def _forward_with_quick_convolutions(network: nn.Module, images: Tensor) -> Tensor:
    with QuickConvolutions():
        logits: Tensor = network(images)
    return logits


def _forward_with_channels_last(network: nn.Module, images: Tensor) -> Tensor:
    """Run the network with channels last in memory, the order for which compiled code is fastest."""
    return _forward_with_quick_convolutions(network, images.contiguous(memory_format=torch.channels_last))


def _compile(forward: Forward, number: int) -> Forward:
    """Return compiled code of ``forward``, which serves all networks of a structure: weights are its inputs."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(code_folder()))
    # Its loader warns at each start on machines that have a CUDA compiler, but no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # torch stores compiled variants per code object, and gives up after a limited number of them (recompile_limit):
    # with a code object of its own, each variant is the first of its function.
    own = types.FunctionType(forward.__code__.replace(co_name=f"forward_{number}"), globals())
    # Slices run side by side, one core each. The C++ wrapper releases the GIL; a Python wrapper would hold it between
    # kernels, and the threads would wait for each other.
    return torch.compile(own, fullgraph=True, dynamic=False, options={"cpp.threads": 1, "cpp_wrapper": True})


def _warn_once(error: Exception) -> None:
    if not _has_failed():
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _log.warning("networks run without compiled code, which is slower: %s (--compile never does not try)", reason)


def _has_failed() -> bool:
    return bool(_CompilationState.refused) or _CompilationState.has_quick_convolutions is False
