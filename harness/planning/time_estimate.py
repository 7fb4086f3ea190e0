"""Rough estimates of the time that a plan takes: arithmetic counted by torch, over the machine's measured rate."""

import itertools
import time
from collections.abc import Container, Iterable
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.learning.artifacts.real_networks import RealNetwork
from harness.learning.networks.lottery import mixture
from harness.planning.arms import Arm
from harness.planning.artifact_space import missing_artifacts
from harness.planning.plan import Plan
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.registry import Resolved
from harness.plugins.returns import call_of
from harness.plugins.returns import work as checked_work
from harness.types.network import Architecture
from harness.types.problem import Problem, Shape

EFFICIENCY = 0.5
"""What small networks reach of the rate of one large convolution; measured between 0.4 and 0.8."""


def estimate_seconds(plan: Plan, missing: Container[str]) -> float | None:
    """Estimate the seconds that the missing cells take on this device; None if a component does not say its work."""
    parts: list[float | None] = [artifact_seconds(plan, missing)]
    for arm in plan.arms:
        for distillation in range(plan.distillations):
            cells = [arm.student_cell(distillation, student) for student in range(plan.students)]
            parts += [_student(arm, arm.architecture) for cell in cells if cell.key in missing]
    parts += list(_teachers(plan, missing).values())
    for source in dict.fromkeys(arm.source for arm in plan.arms):
        if isinstance(source, TrajectorySource):
            points = sorted({arm.iterations or 0 for arm in plan.arms if arm.source is source})
            for trajectory, distillation in itertools.product((source.search, source), range(plan.distillations)):
                if trajectory:
                    parts.append(_trajectory(trajectory, distillation, points, missing))
    return total_seconds(parts)


def artifact_seconds(plan: Plan, missing: Container[str]) -> float | None:
    """Estimate the seconds of the missing artifacts that come before the sets; None if one does not say its work."""
    parts = []
    for asked in missing_artifacts(plan, missing):
        if asked.work is None or asked.architecture is None:
            return None
        parts.append(_seconds(asked.work, asked.architecture, asked.problem))
    return sum(parts)


def total_seconds(parts: Iterable[float | None]) -> float | None:
    """Return the sum of durations in seconds; None if one of them is not known."""
    seconds = list(parts)
    return None if None in seconds else sum(part for part in seconds if part is not None)


def format_estimate(seconds: float | None) -> str:
    """Format a duration in hours, minutes and seconds; None is a time that is not known."""
    if seconds is None:
        return "an unknown time"
    if seconds < 1:
        return "less than a second"
    if seconds < 1:
        return "less than a second"
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    duration = f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"about {duration}"


def _trajectory(
    source: TrajectorySource, distillation: int, points: list[int], missing: Container[str]
) -> float | None:
    ahead = [point for point in points if source.set_cell(distillation, point).key in missing]
    if not ahead:
        return 0.0
    done = max((point for point in points if point not in ahead and point < max(ahead)), default=0)
    work = checked_work(source.first.work(), call_of(source.first, "work"))
    if work == 0:
        return 0.0
    if work is None or source.pool is None:
        return None
    pool = source.pool.make()
    # A pool may change its distribution with the iteration: the one halfway stands for all.
    choices = mixture(pool, max(points) // 2, source.resolve)
    each = (share * _seconds(work, architecture, source.problem) for architecture, share in choices)
    return total_seconds([(max(ahead) - done) * pool.together * sum(each), _probes(source, range(done, max(ahead)))])


def _probes(source: TrajectorySource, iterations: range) -> float | None:
    """Estimate the seconds of the probes that a trajectory makes in some of its iterations; None if unknown."""
    if source.panel is None or source.pool is None:
        return 0.0
    pool, evaluator = source.pool.make(), source.panel.evaluator.make()
    count = sum(pool.probes_at(iteration) for iteration in iterations) * source.panel.probe.students
    work = checked_work(evaluator.work(source.panel.problem, source.images), call_of(evaluator, "work"))
    if work is None:
        return None
    panel = source.panel.architectures.values()
    return count * sum(_seconds(work, architecture, source.problem) for architecture in panel)


def _teachers(plan: Plan, missing: Container[str]) -> dict[str, float | None]:
    """Estimate the seconds of each missing artifact of evaluators by key: each is taken to cost what a student does."""
    seconds: dict[str, float | None] = {}
    for arm in plan.arms:
        for distillation, student in itertools.product(range(plan.distillations), range(plan.students)):
            cell = arm.artifact_cell(distillation, student)
            request = arm.artifact_request(student)
            if isinstance(request, RealNetwork):  # counted among the artifacts that come before the sets
                continue
            if cell and request and cell.key not in seconds and cell.key in missing:
                architecture = arm.resolve(request.architecture) if request.architecture else arm.architecture
                seconds[cell.key] = _student(arm, architecture)
    return seconds


def _student(arm: Arm, architecture: Resolved[Architecture[Any]]) -> float | None:
    problem = arm.source.problem
    evaluator = arm.evaluator.make()
    work = [checked_work(evaluator.work(problem, arm.source.images), call_of(evaluator, "work"))]
    for metric in (resolved.make() for resolved in arm.metrics):
        work.append(checked_work(metric.work(problem), call_of(metric, "work")))
    total = total_seconds(work)  # unknown if a part is
    return None if total is None else _seconds(total, architecture, problem)


def _seconds(work: float, architecture: Resolved[Architecture[Any]], problem: Problem) -> float:
    """Estimate the seconds in which so many images pass forward through a network."""
    operations = _operations(architecture, problem.shape, len(problem.classes))
    return work * operations / (_rate(problem.device) * EFFICIENCY)


@cache
def _operations(architecture: Resolved[Architecture[Any]], shape: Shape, classes: int) -> float:
    """Return the operations of one image's forward pass, counted without doing them."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = architecture.make().build(shape, classes, torch.Generator("cpu"))
        network.eval()(torch.zeros(1, *shape))
    return float(counter.get_total_flops())


@cache
def _rate(device: torch.device) -> float:
    """Measure for a fifth of a second how many operations a second a convolution like the ConvNet's second does."""
    weight, images = torch.randn(128, 128, 3, 3, device=device), torch.randn(32, 128, 16, 16, device=device)
    operations, repeats, started = 2.0 * 32 * 128 * 128 * 9 * 256, 0, time.perf_counter()
    torch.nn.functional.conv2d(images, weight, padding=1)  # the first call prepares libraries, and is not measured
    started = time.perf_counter()
    while time.perf_counter() - started < 0.2:
        # Reading a value waits for the GPU, which otherwise has only been handed the work.
        float(torch.nn.functional.conv2d(images, weight, padding=1)[0, 0, 0, 0])
        repeats += 1
    return repeats * operations / (time.perf_counter() - started)
