"""Traits of networks that decide how they can be run: whether they draw, whether they couple images, and their cost.

All are measured on a copy of the network, so that other threads may be using it.
"""

import contextlib
import copy
import math
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.compute.lru_cache import LruCache
from harness.compute.network_structure import structure_of
from harness.compute.parallel import SLICE
from harness.types.network import Architecture
from harness.types.problem import Problem, Shape
from harness.types.seeds import global_rng_from

_lock = threading.Lock()
_draws: LruCache[bool] = LruCache()
"""Answers of `draws_globally`. A property of structures and not of a run, so the process has one cache of it."""


def draws_globally(network: nn.Module, problem: Problem) -> bool:
    """Return whether a training pass draws from the process-wide generator, as dropout does.

    Args:
        network: neither it nor its mode is changed; other threads may be using it.
        problem: provides the shape of the images and the device.
    """
    # In the precision of the weights, which formulas are checked in float64 with.
    precision = next((weight.dtype for weight in network.parameters()), torch.float32)
    images = torch.zeros(2, *problem.shape, device=problem.device, dtype=precision)
    structure = structure_of(network)
    if structure is None:
        return draws_from_global(network, images)
    with _lock:
        return _draws.fetch((structure, images.shape), lambda: draws_from_global(network, images))


def builds_drawing_networks(architecture: Architecture[Any], problem: Problem) -> bool:
    """Return whether training passes of an architecture's networks draw from the process-wide generator."""
    network = architecture.build(problem.shape, len(problem.classes), torch.Generator())
    return draws_globally(network.to(problem.device), problem)


def draws_from_global(network: nn.Module, images: Tensor) -> bool:
    """Return whether a training pass on ``images`` (n, c, h, w) draws from the process-wide generator.

    Nothing is drawn, so that other threads may be drawing at the same time.
    """
    try:
        with torch.no_grad(), _NoDraw():  # type: ignore[no-untyped-call]
            copy.deepcopy(network).train()(images)
    except _WouldDraw:
        return True
    return False


class _WouldDraw(Exception):
    """Raised when an operation requests a random number from the process-wide generator."""


class _NoDraw(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises `_WouldDraw` in place of drawing."""

    # On the level of dispatch, because there every random operation has the tag, whichever module or function calls it.

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if torch.Tag.nondeterministic_seeded in func.tags and (kwargs or {}).get("generator") is None:
            raise _WouldDraw
        return func(*args, **(kwargs or {}))


def couples_images(network: nn.Module, shape: Sequence[int], device: torch.device) -> bool:
    """Return whether the logits of an image depend on the other images of the batch, as with batch norm.

    The network is examined in its present mode. What it draws (dropout) does not count, and neither do the values of
    its weights.

    Args:
        network: neither it nor its mode is changed; other threads may be using it.
        shape: shape of an image (c, h, w).
        device: device of the network.
    """
    return _couples(copy.deepcopy(network), shape, device, lambda: global_rng_from(torch.Generator().manual_seed(0)))


_separable: LruCache[bool] = LruCache()
"""Answers of `can_be_sliced`, for the whole process as those of `_draws`."""


def can_be_sliced(network: nn.Module, images: Tensor) -> bool:
    """Return whether slices of a batch, passed through a network in turn, give what the batch gives in one pass.

    They do not if, in its present mode, a layer couples the images of a batch (batch norm), or if a pass draws from
    the process-wide generators (dropout): the numbers would then depend on how the batch is cut.

    Args:
        network: neither it nor its mode is changed; other threads may be using it.
        images: at least two images (n, c, h, w) like those that it is going to process.
    """
    structure = structure_of(network)
    if structure is None:
        return _is_separable(network, images)
    key = (structure, images.shape[1:], images.dtype, images.device)
    with _lock:
        return _separable.fetch(key, lambda: _is_separable(network, images))


def is_worth_slicing(network: nn.Module, images: Tensor) -> bool:
    """Return whether training on ``images`` (n, c, h, w) in slices is faster and gives the same numbers."""
    # A GPU is filled by whole batches, and up to `SLICE` images are one slice.
    if images.device.type != "cpu" or len(images) <= SLICE:
        return False
    return can_be_sliced(network, images)


def _is_separable(network: nn.Module, images: Tensor) -> bool:
    try:
        if _draws_now(copy.deepcopy(network), images[:2]):
            return False
        # It draws nothing, so the generator need not be seeded. Seeding it here could deadlock: the thread that has
        # locked the process-wide generator may be waiting for this one.
        return not _couples(copy.deepcopy(network), images.shape[1:], images.device, contextlib.nullcontext)
    except Exception:  # a network that cannot be copied or examined; one pass is always right
        return False


def _draws_now(own: nn.Module, images: Tensor) -> bool:
    """Return whether a pass of a network now draws from a process-wide generator: torch's, Python's or NumPy's."""
    # Draws from Python's and NumPy's generators cannot be intercepted: they show in the states, which are put back.
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.no_grad(), _NoDraw():  # type: ignore[no-untyped-call]
            own(images)
    except _WouldDraw:
        return True
    if random.getstate() == python and _same_state(np.random.get_state(), numpy):
        return False
    random.setstate(python)
    np.random.set_state(numpy)
    return True


def _same_state(first: Any, second: Any) -> bool:  # noqa: ANN401
    return first[2] == second[2] and bool(np.array_equal(first[1], second[1]))


def _couples(
    own: nn.Module,
    shape: Sequence[int],
    device: torch.device,
    seeded: Callable[[], contextlib.AbstractContextManager[object]],
) -> bool:
    """Return whether the logits of an image change if the images beside it become other noise, or NaN.

    Args:
        own: a copy of the network, whose weights are changed.
        shape: shape of an image (c, h, w).
        device: device of the network.
        seeded: context of a pass, in which the draws are the same each time.
    """
    generator = torch.Generator().manual_seed(0)
    dtype = next((weight.dtype for weight in own.parameters() if weight.is_floating_point()), torch.float32)
    first, *others = torch.randn(5, *shape, generator=generator).to(device, dtype)
    beside = [others[:2], others[2:], [torch.full_like(first, math.nan)] * 2]
    # NaN passes through weights that are zero, as those of a last layer or of a residual branch often are at the start:
    # there a gradient depends on the neighbours although the logits do not yet.
    _initialise(own, generator)
    logits: list[Tensor] = []
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for neighbours in beside:
            # A network may raise an error on NaN; then noise alone decides.
            may_fail = contextlib.suppress(Exception) if len(logits) > 1 else contextlib.nullcontext()
            with seeded(), may_fail:
                logits.append(own(torch.stack([first, *neighbours]))[0])
    return not all(torch.allclose(logits[0], other, rtol=1e-3, atol=1e-4) for other in logits[1:])


@torch.no_grad()
def _initialise(own: nn.Module, generator: torch.Generator) -> None:
    """Set all weights to ordinary values, so that the answer does not depend on how the network was trained."""
    for weight in own.parameters():
        if weight.is_floating_point():
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.copy_(noise / math.sqrt(max(1, weight[0].numel())) if weight.ndim > 1 else 0.5 + 0.1 * noise)
    for buffer in own.buffers():
        if buffer.is_floating_point() and not bool(buffer.isfinite().all()):
            buffer.fill_(1.0)


class Arithmetic(NamedTuple):
    """Cost of one image's pass: floating-point operations of the weights, and values that all layers output."""

    operations: float
    values: float


def arithmetic(network: nn.Module, shape: Shape) -> Arithmetic:
    """Count the operations of convolutions and linear layers (two per multiply-add), and the values that layers output.

    Args:
        network: unchanged; it is copied.
        shape: shape of an image (c, h, w).
    """
    operations, values = 0.0, 0.0

    def count(module: nn.Module, _: object, output: object) -> None:
        nonlocal operations, values
        if isinstance(output, Tensor):
            values += output.numel()
            if isinstance(module, nn.Conv2d | nn.Linear):
                operations += 2 * output.numel() * math.prod(module.weight.shape[1:])

    own = copy.deepcopy(network).eval()
    for module in own.modules():
        if not any(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        own(torch.zeros(1, *shape, device=next(own.parameters()).device))
    return Arithmetic(operations, values)
