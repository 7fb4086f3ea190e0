"""Independent work side by side, one core each, so that no number depends on the number of cores."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
SLICE = 32
"""Images that pass through a network at once on one core, whose cache their activations then fit into."""
CUDA_STREAMS = 20
"""CUDA streams that work is spread over; torch has 32 of them, and hands them out again in turn."""


def side_by_side(
    work: Callable[[int], T], indices: Sequence[int], device: torch.device, workers: int | None = None
) -> Iterator[T]:
    """Yield the result of ``work`` for each index, in order.

    On a CPU each piece of work computes on one core, so that no number depends on how many cores there are. On a GPU,
    or if torch has a single thread, all of it is done in the calling thread, one piece after the other.

    Args:
        work: called with an index, in any thread and any order.
        indices: the indices.
        device: device that the work computes on.
        workers: pieces of work at a time; None for as many as torch has threads.

    Raises:
        Exception: whatever ``work`` raises. Pieces that have begun are waited for, and the others are dropped.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield from map(work, indices)
        return

    def on_one_thread(index: int) -> T:
        # Sums split over threads round differently: with one thread each, the results do not depend on the machine.
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # a setting of the thread, which may be older than the run
        return work(index)

    futures = [_thread_pool(workers or threads).submit(on_one_thread, index) for index in indices]
    finish = True
    try:
        for future in futures:
            yield future.result()
    except KeyboardInterrupt:
        finish = False  # an interrupt does not wait for the work that has begun
        raise
    finally:
        begun = [future for future in futures if not future.cancel()]
        if finish:
            wait(begun)  # else work that nobody waits for would compete with what the caller does next
        # The workers set it for their own threads, but OpenMP may take the value for new threads of this process, too.
        torch.set_num_threads(threads)


def on_streams(works: Sequence[Callable[[], T]], device: torch.device) -> list[T]:
    """Return the result of each piece of work, in order; on a GPU each has its own stream, so that they overlap."""
    if device.type != "cuda" or len(works) == 1:
        return [work() for work in works]
    here, results = torch.cuda.current_stream(device), list[T]()
    streams = _cuda_streams(device)[: len(works)]
    # Events between the streams, and no synchronisation with the host: a stream begins after what its inputs come from,
    # and the caller's stream continues after all of them. A graph that is being captured follows such forks and joins.
    for stream in streams:
        stream.wait_stream(here)
    for stream, work in zip(itertools.cycle(streams), works):
        with torch.cuda.stream(stream):
            results.append(work())
    for stream in streams:
        here.wait_stream(stream)
    return results


@functools.cache
def _cuda_streams(device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(CUDA_STREAMS)]  # type: ignore[no-untyped-call]


@functools.cache
def _thread_pool(workers: int) -> ThreadPoolExecutor:
    """Return a pool of threads that stays for the life of the process."""
    # Libraries hold buffers for each thread (OpenMP, oneDNN): with new threads for each call, creating them takes a
    # tenth of the time. A process that forks does so before its first call: a child would inherit the pool without
    # threads.
    return ThreadPoolExecutor(workers)
