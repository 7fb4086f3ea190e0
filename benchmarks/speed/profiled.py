"""Where an iteration's time goes: `python benchmarks/speed/profiled.py --dataset cifar10 --method dc --ipc 1`.

On one core, because torch's profiler sees one thread: what several cores share out is the same work. Does one iteration
to warm up, times the next, and watches the one after; prints operators by the time that they take themselves.
"""

import sys
import time
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).parent / "timed"))
from subjects import method_name, real_problem, trajectory_of

from harness.learning.machine import prepare_process


@click.command(help=__doc__)
@click.option("--dataset", default="digits", show_default=True)
@click.option("--method", default="dc", show_default=True)
@click.option("--pool", default="single", show_default=True)
@click.option("--ipc", default=1, show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--rows", default=20, show_default=True, help="Operators to print.")
def main(dataset, method, pool, ipc, precision, rows):
    prepare_process("auto")
    torch.set_num_threads(1)
    problem = real_problem(dataset)
    trajectory = trajectory_of(problem, method_name(dataset, method), pool, ipc, precision, lambda *_: None)
    trajectory.advance(1)
    begun = time.perf_counter()
    trajectory.advance(2)
    alone = time.perf_counter() - begun
    begun = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        trajectory.advance(3)
    watched = time.perf_counter() - begun
    found = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in found) / 1e6
    told = f"{method} on {dataset}, ipc {ipc}, {precision}, one core"
    click.echo(f"{told}: {alone:.2f} s an iteration, {watched:.2f} s watched, {whole:.2f} s in operators")
    for event in found[:rows]:
        seconds = event.self_cpu_time_total / 1e6
        click.echo(f"{100 * seconds / whole:5.1f} %  {seconds:7.3f} s  {event.count:7d}  {event.key}")


if __name__ == "__main__":
    main()
