"""What a network does that decides how it can be run: found out on a copy, so that other threads may be using it."""

import copy
import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.learning.kept import Kept
from harness.learning.structure import structure_of
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
    """Whether, in its present mode, what a network says of an image depends on the others, as with batch norm."""
    probe = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    own = copy.deepcopy(network)
    with global_rng_from(torch.Generator()), torch.no_grad():
        try:
            alone = own(probe[:1])
        except ValueError:  # batch norm refuses to normalise a single value
            return True
        return not torch.allclose(own(probe)[:1], alone, rtol=1e-3, atol=1e-4)


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
