"""Times iterations of methods in turn, as the harness does them: a line of JSON for each."""

import contextlib
import ctypes
import gc
import time

import torch
from subjects import answer, method_name, random_problem, real_problem, report, resolve, trajectory_of, with_options
from torch.utils.flop_counter import FlopCounterMode

from harness.compute.machine import peak_memory, prepare_process, reset_peak_memory

CPU = torch.device("cpu")


def iterations(dataset, cases, policy, peak=False):
    """Iterations of each case in turn; before them those that warm up, so that nothing is compiled later.

    Args:
        dataset: as it is typed.
        cases: each with what it gives to `case_of`, and its ``count`` of iterations; 0 only reports its arithmetic.
        policy: of compilation.
        peak: whether to report the peak of memory beyond what the process had when its data was there.
    """
    prepare_process(policy)
    counts = [case.pop("count") for case in cases]
    loaded = [case_of(dataset, index, **case) for index, case in enumerate(cases)]
    before = resident() if peak else 0
    for index, (_, warm_up) in enumerate(loaded):
        if counts[index]:
            report(case=index, start=timed(warm_up))
    for number in range(max(counts)):
        for index, (trajectory, _) in enumerate(loaded):
            if number < counts[index]:
                done = trajectory.history.iterations
                report(case=index, seconds=timed(lambda t=trajectory, n=done: t.advance(n + 1)))
    if peak:
        report(peak=peak_memory(CPU) - before)


def case_of(dataset, index, method, pool="single", ipc=1, precision="fp32", of_class=None, noise=None, **options):
    """A trajectory, and what warms it up.

    Args:
        dataset: as it is typed.
        index: of the case.
        method: as it is typed; ``options`` are added to it.
        pool: as it is typed.
        ipc: images of each class.
        precision: ``fp32`` or ``bf16``.
        of_class: only so many training images of each class.
        noise: arguments of `random_problem`, in place of the data set.
    """
    problem = random_problem(**noise) if noise else real_problem(dataset, of_class)
    name = with_options(method_name(dataset, method), **options)

    def on_artifact(request, seconds):
        report(case=index, artifact=request.kind, seconds=seconds, passes=request.work)

    def fresh(name):
        return trajectory_of(problem, name, pool, ipc, precision, on_artifact)

    trajectory = fresh(name)
    loops = loops_of(trajectory.method, ipc)
    report(case=index, **cost(trajectory, problem, pool, loops))
    if not loops or loops[0] == 1:
        return trajectory, lambda: trajectory.advance(1)
    short = with_options(name, outer=2, inner=min(1, loops[1]))
    return trajectory, lambda: fresh(short).advance(1)


def loops_of(method, ipc):
    """Outer and inner loops of a method that has them."""
    return method.options.loops(ipc) if hasattr(method.options, "loops") else None


def cost(trajectory, problem, pool, loops):
    """Arithmetic of an iteration: forward passes (a backward pass counts as two), in all and of real images."""
    network = resolve("architecture", resolve("pool", pool).make().main).make()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.build(problem.shape, len(problem.classes), torch.Generator())(torch.zeros(1, *problem.shape))
    passes = trajectory.method.work()
    real = 3 * loops[0] * len(problem.classes) * trajectory.method.options.batch_real if loops else None
    return {
        "passes": passes,
        "real_passes": real,
        "flop": passes * counter.get_total_flops() if passes else None,
        "loops": loops,
        "images": len(problem.train),
    }


def timed(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def resident():
    """Bytes that the process holds, after giving back what it no longer needs; where a measured peak begins."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset_peak_memory(CPU)
    return peak_memory(CPU)


if __name__ == "__main__":
    answer(iterations)
