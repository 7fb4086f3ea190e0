"""Where the time goes: `python benchmarks/speed/profiled.py --dataset cifar10 --method dc --ipc 1`.

An iteration of a method, or with `--student` a tenth of a student: 30 epochs, and a tenth of the images scored. On one
core, because torch's profiler sees one thread: what several cores share out is the same work. Done once to warm up,
timed the second time, and watched the third; prints operators by the time that they take themselves. Where our own C++
is in no operator, what it takes is in the difference to the whole.
"""

import dataclasses
import itertools
import sys
import time
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).parent / "timed"))
from settings import PRECISIONS
from students import teachers, train
from subjects import method_name, real_problem, real_set, trajectory_of, with_options

from harness.compute.machine import prepare_process
from harness.errors import DDBenchError


@click.command(help=__doc__)
@click.option("--dataset", default="digits", show_default=True)
@click.option("--method", default="dc", show_default=True)
@click.option("--pool", default="single", show_default=True)
@click.option("--ipc", type=click.IntRange(1), default=1, show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True)
@click.option("--student", help="Architecture of a student to watch, trained on real images of this ipc.")
@click.option("--evaluator", default="plain", show_default=True, help="That trains the student.")
@click.option("--rows", type=click.IntRange(1), default=20, show_default=True, help="Operators to print.")
def main(dataset, method, pool, ipc, precision, student, evaluator, rows):
    prepare_process("auto")
    torch.set_num_threads(1)
    try:
        problem = real_problem(dataset)
        if student:
            what = f"a tenth of a {student} student by {evaluator} on {dataset}, ipc {ipc}"
            work = tenth_of_student(problem, evaluator, ipc, student)
        else:
            what = f"an iteration of {method} through {pool} on {dataset}, ipc {ipc}, {precision}"
            work = iteration(problem, method_name(dataset, method), pool, ipc, precision)
        work()
    except DDBenchError as error:
        raise click.ClickException(str(error)) from None
    begun = time.perf_counter()
    work()
    alone = time.perf_counter() - begun
    begun = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    watched = time.perf_counter() - begun
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events) / 1e6
    click.echo(f"{what}, one core: {alone:.2f} s, {watched:.2f} s watched, {whole:.2f} s in operators")
    for event in events[:rows]:
        seconds = event.self_cpu_time_total / 1e6
        click.echo(f"{100 * seconds / whole:5.1f} %  {seconds:7.3f} s  {event.count:7d}  {event.key}")


def iteration(problem, method, pool, ipc, precision):
    trajectory, numbers = trajectory_of(problem, method, pool, ipc, precision), itertools.count(1)
    return lambda: trajectory.advance(next(numbers))


def tenth_of_student(problem, evaluator, ipc, architecture):
    few = dataclasses.replace(problem, score=problem.score[::10])
    distilled, short = real_set(problem, ipc), with_options(evaluator, epochs=30)
    artifacts, _ = teachers(evaluator, distilled, problem, range(1))
    return lambda: train(short, distilled, few, architecture, 1, artifacts)


if __name__ == "__main__":
    main()
