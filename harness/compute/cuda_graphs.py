"""CUDA graphs: work that a GPU repeats from a recording, because launching a small kernel takes longer than running it.

A recording runs the very kernels that were launched during its capture, so its numbers are those of the work itself.
Authors of methods and architectures need not know about it: the harness sends repeated work through `try_to_record`
or `with_network`. One thread of a process drives a GPU, so nothing here is locked.

PyTorch's notes on CUDA semantics list what may not be captured: calls that wait for the device, shapes that depend on
values, and random numbers of generators that the graph does not know. A replay reads and writes the addresses of the
capture, so inputs are copied in, and weights stay where they are.
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
from harness.compute.lru_cache import LruCache
from harness.compute.network_structure import structure_of
from harness.compute.precision import PrecisionContext

Work = Callable[..., Sequence[Tensor]]
"""Maps tensors to tensors. It may change some in place, but neither waits for the device nor draws random numbers."""
RUNS_BEFORE_RECORDING = 2
"""Times that work with a network is run directly before it is recorded: a pool draws most architectures seldom."""

_log = logging.getLogger("ddbench")
_inputs: weakref.WeakValueDictionary[Hashable, Tensor] = weakref.WeakValueDictionary()
"""Inputs of recordings: those of equal position, shape and type share a tensor, as each is filled before a replay."""


class _RecordingFailure:
    """The state of this process: whether it has failed to record something."""

    # Of the process and not of a run: after a failed capture, torch's allocator refuses every later one of the process.
    happened = False


class Recording:
    """A CUDA graph of work on tensors of fixed shapes, which each call replays.

    Args:
        work: what to record.
        inputs: tensors of the shapes and types of later inputs.
        changed: all tensors that the work changes in place; they have their former values afterwards, even on failure.

    Raises:
        RuntimeError: the work cannot be recorded.
    """

    def __init__(self, work: Work, inputs: Sequence[Tensor], changed: Sequence[Tensor] = ()) -> None:
        device = inputs[0].device
        self._inputs = [_shared_input(place, tensor) for place, tensor in enumerate(inputs)]
        _copy(inputs, self._inputs)
        before = [tensor.detach().clone() for tensor in changed]
        stream, pool, self._graph = _stream(device), _memory_pool(device), torch.cuda.CUDAGraph()
        try:
            # A capture that fails leaves its own stream as the current one; this context puts the former one back.
            with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream()):
                self._rehearse(work, stream)
                # thread_local: by default, an unsafe call of any other thread of the process would end the capture.
                with torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local"):  # type: ignore[arg-type]
                    self._results = work(*self._inputs)
                torch.cuda.current_stream().wait_stream(stream)
        finally:
            # Casts of weights that the capture has cached lie in the graph's memory, which the next replay overwrites.
            torch.clear_autocast_cache()
            _copy(before, changed)

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """Return the results for ``inputs``; the next call of any recording may overwrite them."""
        _copy(inputs, self._inputs)
        self._graph.replay()
        return self._results

    def _rehearse(self, work: Work, stream: torch.cuda.Stream) -> None:
        """Run the work once: libraries allocate and choose algorithms at their first call, which no capture allows."""
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), warnings.catch_warnings():
            # Adam warns that it is capturable but runs outside of a capture, which a rehearsal does.
            warnings.filterwarnings("ignore", "This instance was constructed with capturable")
            work(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        # A cast that the rehearsal had cached would not be captured, and replays would go on using that of old weights.
        torch.clear_autocast_cache()


def try_to_record(work: Work, inputs: Sequence[Tensor], changed: Sequence[Tensor] = ()) -> Recording | None:
    """Return a `Recording` of ``work``; None if nothing is recorded here, or if it fails, with one warning."""
    if not is_recorded(inputs[0].device):
        return None
    try:
        return Recording(work, inputs, changed)
    except RuntimeError as error:
        # Leaving the capture raises an error of its own; what happened inside, perhaps an interrupt, is in its context.
        cause = error.__context__ or error
        if not isinstance(cause, Exception):
            raise cause from None
        _RecordingFailure.happened = True
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        _log.warning("no steps are recorded for the GPU, which is slower: %s (--compile never does not try)", reason)
        return None


def is_recorded(device: torch.device) -> bool:
    """Return whether work on this device is recorded: on a GPU, unless the policy is ``never`` or one failed."""
    return device.type == "cuda" and compilation() != "never" and not _RecordingFailure.happened


class SharedNetwork:
    """A network at a fixed address, into which the weights of others of the same structure are copied in turn."""

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network)
        self._tensors = [*self.network.parameters(), *self.network.buffers()]

    def load_from(self, network: nn.Module) -> None:
        """Copy the weights and buffers of ``network`` into the shared network."""
        _copy([*network.parameters(), *network.buffers()], self._tensors)

    def store_to(self, network: nn.Module) -> None:
        """Copy the weights and buffers of the shared network into ``network``."""
        _copy(self._tensors, [*network.parameters(), *network.buffers()])


_run_counts: LruCache[Iterator[int]] = LruCache()
"""How often work on a structure has been requested."""
_recordings: LruCache[tuple[SharedNetwork, Recording | None]] = LruCache()
"""Recordings with the shared network that they read; of the process, because the device's memory is."""


def with_network(
    network: nn.Module, work: Work, inputs: Sequence[Tensor], kind: Hashable, precision_context: PrecisionContext
) -> Sequence[Tensor]:
    """Return the result of ``work`` on a network and tensors, from a recording if the structure comes often.

    Args:
        network: neither it nor its mode is changed; changes that the work makes to it are lost.
        work: maps a network and tensors to tensors.
        inputs: the tensors.
        kind: identifies the work: two of equal kind do the same.
        precision_context: context in which the work runs networks.
    """
    device = inputs[0].device
    structure = structure_of(network) if is_recorded(device) else None
    key = (kind, structure, shapes_and_types(inputs), torch_modes(device, precision_context))
    if structure is None or next(_run_counts.fetch(key, itertools.count)) < RUNS_BEFORE_RECORDING:
        return work(network, *inputs)

    def make() -> tuple[SharedNetwork, Recording | None]:
        shared = SharedNetwork(network)
        return shared, try_to_record(lambda *tensors: work(shared.network, *tensors), inputs)

    shared, recording = _recordings.fetch(key, make)
    if recording is None:
        return work(network, *inputs)
    shared.load_from(network)
    # Clones: the caller may hold the results longer than until the next replay, which writes to the same memory.
    return [tensor.clone() for tensor in recording(*inputs)]


def shapes_and_types(tensors: Sequence[Tensor]) -> Hashable:
    """Return the shapes and types of tensors, for which a recording is valid."""
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def torch_modes(device: torch.device, precision_context: PrecisionContext) -> Hashable:
    """Return the modes of torch that decide how work is computed within a context; a recording repeats those."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with precision_context():
        lower = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    around = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    exact = torch.are_deterministic_algorithms_enabled()
    return device, lower, around, matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, exact


@torch.no_grad()
def _copy(source: Sequence[Tensor], target: Sequence[Tensor]) -> None:
    for new, old in zip(source, target, strict=True):
        old.copy_(new)


def _shared_input(place: int, like: Tensor) -> Tensor:
    key = (place, like.device, like.shape, like.dtype)
    tensor = _inputs.get(key)
    if tensor is None:
        tensor = _inputs[key] = torch.empty_like(like, requires_grad=False, memory_format=torch.contiguous_format)
    return tensor


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@cache
def _memory_pool(device: torch.device) -> tuple[int, int]:
    """Return the memory pool that all recordings of a device share, which they may as they are replayed in turn."""
    return torch.cuda.graph_pool_handle()
