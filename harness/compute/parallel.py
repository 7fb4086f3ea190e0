"""Doing independent work side by side, one core each, so that numbers depend on no count of cores."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")
STREAMS = 20
"""Streams of a GPU that work is spread over; torch has 32 of them."""


def side_by_side(
    work: Callable[[int], T], indices: Sequence[int], device: torch.device, workers: int | None = None
) -> Iterator[T]:
    """Results of ``work`` for each index, in order.

    On a CPU as many at a time as torch has threads (or ``workers``), each on one core, so that no number depends on how
    many cores there are; on a GPU, or where this thread has but one core, one after the other in the calling thread.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield from map(work, indices)
        return

    def alone(index: int) -> T:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # of this thread, which may be older than the run
        return work(index)

    futures = [_pool(workers or threads).submit(alone, index) for index in indices]
    finish = True
    try:
        for future in futures:
            yield future.result()
    except KeyboardInterrupt:
        finish = False  # whoever interrupts does not want to wait for the students at work
        raise
    finally:
        begun = [future for future in futures if not future.cancel()]
        if finish:
            wait(begun)
        torch.set_num_threads(threads)


def on_streams(works: Sequence[Callable[[], T]], device: torch.device) -> list[T]:
    """The result of each, in order: on a GPU each on a stream of its own, which leaves it to do them at once."""
    if device.type != "cuda" or len(works) == 1:
        return [work() for work in works]
    here, results = torch.cuda.current_stream(device), list[T]()
    streams = _streams(device)[: len(works)]
    for stream in streams:
        stream.wait_stream(here)
    for stream, work in zip(itertools.cycle(streams), works):
        with torch.cuda.stream(stream):
            results.append(work())
    for stream in streams:
        here.wait_stream(stream)
    return results


@functools.cache
def _streams(device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(STREAMS)]  # type: ignore[no-untyped-call]


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads that stay: what libraries keep for each thread would else be made anew, for a tenth of the time."""
    return ThreadPoolExecutor(workers)
