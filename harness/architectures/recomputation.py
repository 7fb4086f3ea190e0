"""Passes that keep few activations and compute the others again when a gradient needs them (Chen et al., 2016)."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint


def run_and_recompute(layers: nn.Sequential, images: Tensor) -> Tensor:
    """Return the output of ``layers`` for ``images`` (n, ...), with a graph that keeps a fraction of the activations.

    The layers are divided into segments: of n layers in all, into about the square root of n with as many each. Of a
    segment only the input is kept; what else its gradient needs is computed again by the same operations, so that
    every gradient has the same bits, and that of a gradient too. The graph of a gradient (``create_graph``) keeps the
    activations as ever, so that memory is saved by first derivatives only. Batch norm that updates its statistics
    would do so twice: a segment with it is run as it is.
    """
    for segment in _segments(layers):
        modules = list(segment.modules())
        if any(isinstance(module, _BatchNorm) and module.training for module in modules):
            images = segment(images)
            continue
        draws = any(isinstance(module, _DropoutNd) and module.training for module in modules)
        images = checkpoint(segment, images, use_reentrant=False, preserve_rng_state=draws, context_fn=_same_modes)
    return images


def _segments(layers: nn.Sequential) -> Iterator[nn.Sequential]:
    """Yield consecutive parts together, blocks undivided, until they hold the square root of all layers."""
    counts = [sum(not any(module.children()) for module in part.modules()) for part in layers]
    size, segment, held = math.sqrt(sum(counts)), list[nn.Module](), 0
    for part, count in zip(layers, counts, strict=True):
        segment.append(part)
        held += count
        if held >= size:
            yield nn.Sequential(*segment)
            segment, held = [], 0
    if segment:
        yield nn.Sequential(*segment)


def _same_modes() -> tuple[AbstractContextManager[None], "_FunctionModes"]:
    """Return the contexts of a pass, and of its repetitions after the function modes of the pass have ended."""
    # torch has no public name for the modes that are active; quick convolutions are one.
    modes = torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return contextlib.nullcontext(), _FunctionModes(modes)


class _FunctionModes(AbstractContextManager[None]):
    """Function modes that are entered again; as often as a gradient of a gradient repeats a pass."""

    def __init__(self, modes: Sequence[TorchFunctionMode]) -> None:
        self._modes, self._stacks = modes, list[contextlib.ExitStack]()

    def __enter__(self) -> None:
        self._stacks.append(contextlib.ExitStack())
        for mode in self._modes:
            self._stacks[-1].enter_context(mode)

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        self._stacks.pop().__exit__(*error)
