"""Doing independent work side by side, one core each, so that numbers depend on no count of cores."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

from harness.types.problem import Problem
from harness.types.seeds import global_rng_from

T = TypeVar("T")


def side_by_side(
    work: Callable[[int], T], indices: Sequence[int], device: torch.device, workers: int | None = None
) -> Iterator[T]:
    """Results of ``work`` for each index, in order.

    On a CPU as many at a time as torch has threads (or ``workers``), each on one core, so that no number depends on how
    many cores there are; on a GPU one after the other in the calling thread.
    """
    if device.type != "cpu":
        yield from map(work, indices)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers or threads, initializer=torch.set_num_threads, initargs=(1,))
    finish = True
    try:
        for future in [pool.submit(work, index) for index in indices]:
            yield future.result()
    except KeyboardInterrupt:
        finish = False  # whoever interrupts does not want to wait for the students at work
        raise
    finally:
        pool.shutdown(wait=finish, cancel_futures=True)
        torch.set_num_threads(threads)


def draws_globally(network: nn.Module, problem: Problem) -> bool:
    """Whether a training pass draws from the global generator, as dropout does."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    modes = {module: module.training for module in network.modules()}
    probe = torch.zeros(2, *problem.shape, device=problem.device)
    with global_rng_from(torch.Generator()), torch.no_grad():
        before = torch.get_rng_state()
        network.train()(probe)
        drew = not torch.equal(before, torch.get_rng_state())
    for name, buffer in network.named_buffers():
        buffer.copy_(buffers[name])
    for module, mode in modes.items():
        module.training = mode
    return drew
