"""CUDA graphs: work that a GPU repeats from a recording, as launching a small kernel takes longer than running it.

A recording runs the very kernels that were launched while it was made: its numbers are those of the work itself. No
author of a method or an architecture has to think of it: what the harness does again and again goes through `recorded`
or `with_network`. One thread of a process drives a GPU.
"""

import copy
import itertools
import logging
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from harness.compute.compiling import compilation
from harness.compute.lru_cache import Kept
from harness.compute.network_structure import structure_of
from harness.compute.precision import Reduced

Work = Callable[..., Sequence[Tensor]]
"""From tensors to tensors. It may change some in place, but neither waits for the device nor draws random numbers."""
SIGHTS = 2
"""Times that work with a network is done as it is before it is recorded: most that a pool may draw is seldom drawn."""

_log = logging.getLogger("ddbench")
_inputs: weakref.WeakValueDictionary[Hashable, Tensor] = weakref.WeakValueDictionary()
"""What recordings read: one tensor for all of a place, shape and type, as each is filled anew before a replay."""


class _Mode:
    """Whether this process has failed to record something."""

    # Of the process and not of a run: after a failed capture, torch's allocator refuses every later one of the process.
    failed = False


class Recording:
    """Work on tensors of fixed shapes, replayed at each call.

    Args:
        work: what to record. It is done once beforehand, since libraries prepare themselves at their first call.
        given: tensors such as it will be given.
        changed: all that it changes in place: they are left as they were, even where this fails.

    Raises:
        RuntimeError: it cannot be recorded.
    """

    def __init__(self, work: Work, given: Sequence[Tensor], changed: Sequence[Tensor] = ()) -> None:
        device = given[0].device
        self._given = [_input(place, tensor) for place, tensor in enumerate(given)]
        _copy(given, self._given)
        before = [tensor.detach().clone() for tensor in changed]
        stream, pool, self._graph = _stream(device), _pool(device), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream()):  # come back from a failure
                self._rehearse(work, stream)
                with torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local"):  # type: ignore[arg-type]
                    self._results = work(*self._given)
                torch.cuda.current_stream().wait_stream(stream)
        finally:
            torch.clear_autocast_cache()
            _copy(before, changed)

    def __call__(self, *given: Tensor) -> Sequence[Tensor]:
        """The results, which the next call of any recording may overwrite."""
        _copy(given, self._given)
        self._graph.replay()
        return self._results

    def _rehearse(self, work: Work, stream: torch.cuda.Stream) -> None:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable")
            work(*self._given)
        torch.cuda.current_stream().wait_stream(stream)
        # A cast that the rehearsal has left there would be missing in the recording.
        torch.clear_autocast_cache()


def recorded(work: Work, given: Sequence[Tensor], changed: Sequence[Tensor] = ()) -> Recording | None:
    """A `Recording` of ``work``; None where nothing is recorded, or where it cannot be, with one notice."""
    if not is_recorded(given[0].device):
        return None
    try:
        return Recording(work, given, changed)
    except RuntimeError as error:
        cause = error.__context__ or error  # an interrupt, or what went wrong within
        if not isinstance(cause, Exception):
            raise cause from None
        _Mode.failed = True
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        _log.warning("no steps are recorded for the GPU, which is slower: %s (--compile never does not try)", reason)
        return None


def is_recorded(device: torch.device) -> bool:
    """Whether work on this device is recorded: on a GPU, unless nothing is compiled or it has failed before."""
    return device.type == "cuda" and compilation() != "never" and not _Mode.failed


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


_sights: Kept[Iterator[int]] = Kept()
_kept: Kept[tuple[Stage, Recording | None]] = Kept()


def with_network(
    network: nn.Module, work: Work, given: Sequence[Tensor], kind: Hashable, reduced: Reduced
) -> Sequence[Tensor]:
    """What ``work`` makes of a network and tensors; recorded for all networks of a structure that comes often.

    Args:
        network: neither it nor its mode is changed, and what the work changes of it is not handed back.
        work: from a network and tensors to tensors.
        given: the tensors.
        kind: tells apart what else decides the work: equal ones do the same.
        reduced: the context in which the work runs networks.
    """
    device = given[0].device
    structure = structure_of(network) if is_recorded(device) else None
    key = (kind, structure, forms(given), conditions(device, reduced))
    if structure is None or next(_sights.fetch(key, itertools.count)) < SIGHTS:
        return work(network, *given)

    def make() -> tuple[Stage, Recording | None]:
        stage = Stage(network)
        return stage, recorded(lambda *tensors: work(stage.network, *tensors), given)

    stage, recording = _kept.fetch(key, make)
    if recording is None:
        return work(network, *given)
    stage.take(network)
    return [tensor.clone() for tensor in recording(*given)]


def forms(tensors: Sequence[Tensor]) -> Hashable:
    """Shapes and types of tensors, which a recording is made for."""
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def conditions(device: torch.device, reduced: Reduced) -> Hashable:
    """What decides at present, besides the work, how it is computed within ``reduced``: a recording keeps to it."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with reduced():
        lower = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    around = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    exact = torch.are_deterministic_algorithms_enabled()
    return device, lower, around, matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, exact


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for new, old in zip(source, target, strict=True):
        old.copy_(new)


def _input(place: int, like: Tensor) -> Tensor:
    key = (place, like.device, like.shape, like.dtype)
    found = _inputs.get(key)
    if found is None:
        found = _inputs[key] = torch.empty_like(like, requires_grad=False, memory_format=torch.contiguous_format)
    return found


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@cache
def _pool(device: torch.device) -> tuple[int, int]:
    """Memory that all recordings of a device share, as one is replayed after the other."""
    return torch.cuda.graph_pool_handle()
