"""What a network does that decides how it can be run: found out on a copy, so that other threads may be using it."""

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

from harness.compute.lru_cache import Kept
from harness.compute.network_structure import structure_of
from harness.types.problem import Problem, Shape
from harness.types.seeds import global_rng_from

_lock = threading.Lock()
_draws: Kept[bool] = Kept()


def draws_globally(network: nn.Module, problem: Problem) -> bool:
    """Whether a training pass draws from the global generator, as dropout does."""
    images = torch.zeros(2, *problem.shape, device=problem.device)
    structure = structure_of(network)
    if structure is None:
        return draws_from_global(network, images)
    with _lock:
        return _draws.fetch((structure, images.shape), lambda: draws_from_global(network, images))


def draws_from_global(network: nn.Module, images: Tensor) -> bool:
    """The same, found out with these images; nothing is drawn, so that it may be asked while others draw."""
    try:
        with torch.no_grad(), _NoDraw():  # type: ignore[no-untyped-call]
            copy.deepcopy(network).train()(images)
    except _WouldDraw:
        return True
    return False


class _WouldDraw(Exception):
    """An operation asked for a random number of the global generator."""


class _NoDraw(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises `_WouldDraw` in place of drawing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if torch.Tag.nondeterministic_seeded in func.tags and (kwargs or {}).get("generator") is None:
            raise _WouldDraw
        return func(*args, **(kwargs or {}))


def couples_images(network: nn.Module, shape: Sequence[int], device: torch.device) -> bool:
    """Whether, in its present mode, what a network says of an image depends on the others, as with batch norm.

    What it draws (dropout) does not count, and neither do its weights.
    """
    return _couples(copy.deepcopy(network), shape, device, lambda: global_rng_from(torch.Generator().manual_seed(0)))


_separable: Kept[bool] = Kept()


def can_be_sliced(network: nn.Module, images: Tensor) -> bool:
    """Whether slices of a batch, passed through a network one by one, are what the batch is in one pass.

    They are not if, in its present mode, a layer couples the images of a batch (batch norm), or if a pass draws from
    the process's generators (dropout): then the numbers would depend on how the batch is cut.

    Args:
        network: neither it nor its mode is changed; other threads may be using it.
        images: two or more such as it will be given.
    """
    structure = structure_of(network)
    if structure is None:
        return _is_separable(network, images)
    key = (structure, images.shape[1:], images.dtype, images.device)
    with _lock:
        return _separable.fetch(key, lambda: _is_separable(network, images))


def _is_separable(network: nn.Module, images: Tensor) -> bool:
    try:
        if _draws_now(copy.deepcopy(network), images[:2]):
            return False
        # It draws nothing, so the generator need not be seeded: whoever waits for this thread may hold it.
        return not _couples(copy.deepcopy(network), images.shape[1:], images.device, contextlib.nullcontext)
    except Exception:  # a network that cannot be copied or asked; one pass is always right
        return False


def _draws_now(own: nn.Module, images: Tensor) -> bool:
    """Whether a pass in its present mode draws from a generator of the process: torch's, Python's or NumPy's."""
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
    """Whether an image beside others has other logits: beside other noise, or beside NaN.

    NaN passes through weights that are zero, as those of a last layer or of a residual branch often are at the start:
    there a gradient depends on the neighbours although the logits do not yet.

    Args:
        own: a copy of the network, whose weights are changed.
        shape: of an image.
        device: where it is.
        seeded: gives the context of a pass, the same draws each time.
    """
    generator = torch.Generator().manual_seed(0)
    dtype = next((weight.dtype for weight in own.parameters() if weight.is_floating_point()), torch.float32)
    first, *others = torch.randn(5, *shape, generator=generator).to(device, dtype)
    beside = [others[:2], others[2:], [torch.full_like(first, math.nan)] * 2]
    _initialise(own, generator)
    logits: list[Tensor] = []
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for neighbours in beside:
            # A network may refuse NaN; then noise alone tells.
            may_fail = contextlib.suppress(Exception) if len(logits) > 1 else contextlib.nullcontext()
            with seeded(), may_fail:
                logits.append(own(torch.stack([first, *neighbours]))[0])
    return not all(torch.allclose(logits[0], other, rtol=1e-3, atol=1e-4) for other in logits[1:])


@torch.no_grad()
def _initialise(own: nn.Module, generator: torch.Generator) -> None:
    """Give all weights ordinary values: what a network does to its images must not depend on how it was trained."""
    for weight in own.parameters():
        if weight.is_floating_point():
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.copy_(noise / math.sqrt(max(1, weight[0].numel())) if weight.ndim > 1 else 0.5 + 0.1 * noise)
    for buffer in own.buffers():
        if buffer.is_floating_point() and not bool(buffer.isfinite().all()):
            buffer.fill_(1.0)


class Arithmetic(NamedTuple):
    """Of one image's way through a network: floating-point operations of its weights, and values its layers give."""

    operations: float
    values: float


def arithmetic(network: nn.Module, shape: Shape) -> Arithmetic:
    """Count what convolutions and linear layers compute (two operations a multiply-add), and what all layers give."""
    operations, values = 0.0, 0.0

    def count(module: nn.Module, _: object, given: object) -> None:
        nonlocal operations, values
        if isinstance(given, Tensor):
            values += given.numel()
            if isinstance(module, nn.Conv2d | nn.Linear):
                operations += 2 * given.numel() * math.prod(module.weight.shape[1:])

    own = copy.deepcopy(network).eval()
    for module in own.modules():
        if not any(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        own(torch.zeros(1, *shape, device=next(own.parameters()).device))
    return Arithmetic(operations, values)
