"""CUDA graphs: work that a GPU repeats from a recording, as launching a small kernel takes longer than running it.

A recording runs the very kernels that were launched while it was made: its numbers are those of the work itself. No
author of a method or an architecture has to think of it: what the harness does again and again goes through `recorded`
or `with_network`.
"""

import copy
import logging
from collections.abc import Callable, Hashable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from harness.learning.compiling import compilation
from harness.learning.kept import Kept
from harness.learning.structure import structure_of

Work = Callable[..., Sequence[Tensor]]
"""From tensors to tensors. It may change some in place, but neither waits for the device nor draws random numbers."""

_log = logging.getLogger("ddbench")


class Recording:
    """Work on tensors of fixed shapes, replayed at each call.

    Args:
        work: what to record. It is done once beforehand, since libraries prepare themselves at their first call.
        given: tensors such as it will be given.
        changed: all that it changes in place: they are left as they were.

    Raises:
        RuntimeError: it cannot be recorded.
    """

    def __init__(self, work: Work, given: Sequence[Tensor], changed: Sequence[Tensor] = ()) -> None:
        self._given = [tensor.detach().clone() for tensor in given]
        before = [tensor.detach().clone() for tensor in changed]
        device = self._given[0].device
        stream, self._graph = _stream(device), torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream()):  # come back to after a failure
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                work(*self._given)
            torch.cuda.current_stream().wait_stream(stream)
            pool = _pool(device)
            with torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local"):  # type: ignore[arg-type]
                self._results = work(*self._given)
            torch.cuda.current_stream().wait_stream(stream)
        _copy(before, changed)

    def __call__(self, *given: Tensor) -> Sequence[Tensor]:
        """The results, which the next call of any recording may overwrite."""
        _copy(given, self._given)
        self._graph.replay()
        return self._results


def recorded(work: Work, given: Sequence[Tensor], changed: Sequence[Tensor] = ()) -> Work:
    """A `Recording` of ``work`` where there is a GPU and it can be made; else ``work`` itself, with one notice."""
    if not is_recorded(given[0].device):
        return work
    try:
        return Recording(work, given, changed)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _log.warning("a step is not recorded for the GPU, which is slower: %s (--compile never does not try)", reason)
        return work


def is_recorded(device: torch.device) -> bool:
    """Whether work on this device is recorded: on a GPU, unless nothing is compiled."""
    return device.type == "cuda" and compilation() != "never"


class Stage:
    """A network that stays where it is, and takes up the weights of one after the other of the same structure."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network)
        self._own = [*self.network.parameters(), *self.network.buffers()]

    def take(self, network: nn.Module) -> None:
        """Take up a network's weights and buffers."""
        _copy([*network.parameters(), *network.buffers()], self._own)

    def give(self, network: nn.Module) -> None:
        """Hand them over to a network."""
        _copy(self._own, [*network.parameters(), *network.buffers()])


_kept: Kept[tuple[Stage, Work]] = Kept()


def with_network(network: nn.Module, work: Work, given: Sequence[Tensor], kind: Hashable) -> Sequence[Tensor]:
    """What ``work`` makes of a network and tensors; recorded once for all networks of a structure, where it can be.

    Args:
        network: neither it nor its mode is changed.
        work: from a network and tensors to tensors.
        given: the tensors.
        kind: tells apart what else decides the work: equal ones do the same.
    """
    structure = structure_of(network) if is_recorded(given[0].device) else None
    if structure is None:
        return work(network, *given)

    def make() -> tuple[Stage, Work]:
        stage = Stage(network)
        return stage, recorded(lambda *tensors: work(stage.network, *tensors), given)

    shapes = tuple((tensor.shape, tensor.dtype) for tensor in given)
    stage, own = _kept.fetch((kind, structure, shapes, products()), make)
    stage.take(network)
    return [tensor.clone() for tensor in own(*given)]


def products() -> Hashable:
    """How float32 numbers are multiplied at present, which a recording does not change any more."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for new, old in zip(source, target, strict=True):
        old.copy_(new)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@cache
def _pool(device: torch.device) -> tuple[int, int]:
    """Memory that all recordings of a device share, as one is replayed after the other."""
    return torch.cuda.graph_pool_handle()
