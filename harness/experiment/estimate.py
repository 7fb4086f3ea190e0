"""How long a plan will take, roughly: arithmetic counted by torch, over the machine's measured rate."""

import itertools
import time
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.experiment.arms import Arm
from harness.experiment.plan import Plan
from harness.experiment.sources import TrajectorySource
from harness.experiment.store import Store
from harness.learning.networks import mixture
from harness.plugins.registry import Resolved
from harness.types.method import Task
from harness.types.network import Architecture
from harness.types.problem import Problem, Shape
from harness.types.seeds import Streams

EFFICIENCY = 0.5
"""What small networks reach of the rate of one large convolution; measured between 0.4 and 0.8."""


def estimate_seconds(plan: Plan, store: Store) -> float | None:
    """Seconds that the missing cells will take on this device, or None where a component does not tell its work."""
    parts: list[float | None] = []
    for arm in plan.arms:
        for distillation in range(plan.distillations):
            cells = [arm.student_cell(distillation, student) for student in range(plan.students)]
            parts += [_student(arm, arm.architecture) for cell in cells if plan.is_missing(cell, store)]
    parts += list(_artifacts(plan, store).values())
    for source in dict.fromkeys(arm.source for arm in plan.arms):
        if isinstance(source, TrajectorySource):
            points = sorted({arm.iterations or 0 for arm in plan.arms if arm.source is source})
            for distillation in range(plan.distillations):
                parts.append(_trajectory(source, distillation, points, plan, store))
    if any(part is None for part in parts):
        return None
    return sum(part for part in parts if part is not None)


def _trajectory(
    source: TrajectorySource, distillation: int, points: list[int], plan: Plan, store: Store
) -> float | None:
    missing = [p for p in points if plan.is_missing(source.set_cell(distillation, p), store)]
    if not missing:
        return 0.0
    done = max((p for p in points if p not in missing and p < max(missing)), default=0)
    task = Task(source.problem, source.ipc, Streams(0), source.total, source.precision)
    work = source.method.cls(task, source.method.options).work()
    if work is None or source.pool is None:
        return None
    middle = max(points) // 2
    choices = mixture(source.pool.cls(source.pool.options), middle, source.resolve)
    mean = sum(share * _flops(architecture, source.problem) for architecture, share in choices)
    return (max(missing) - done) * work * mean / (_rate(source.problem.device) * EFFICIENCY)


def _artifacts(plan: Plan, store: Store) -> dict[str, float | None]:
    """Seconds of each missing artifact by key; one is taken to cost what a student of its architecture costs."""
    seconds: dict[str, float | None] = {}
    for arm in plan.arms:
        for distillation, student in itertools.product(range(plan.distillations), range(plan.students)):
            cell = arm.artifact_cell(distillation, student)
            request = arm.evaluator.cls(arm.evaluator.options).artifact(student)
            if cell and request and cell.key not in seconds and plan.is_missing(cell, store):
                architecture = arm.resolve(request.architecture) if request.architecture else arm.architecture
                seconds[cell.key] = _student(arm, architecture)
    return seconds


def _student(arm: Arm, architecture: Resolved[Architecture[Any]]) -> float | None:
    problem = arm.source.problem
    images = arm.source.describe()["ipc"] * len(problem.classes)
    evaluator = arm.evaluator.cls(arm.evaluator.options)
    work = evaluator.work(problem, images)
    if work is None:
        return None
    return float(work * _flops(architecture, problem) / (_rate(problem.device) * EFFICIENCY))


def _flops(architecture: Resolved[Architecture[Any]], problem: Problem) -> float:
    return _counted(str(architecture), architecture, problem.shape, len(problem.classes))


_COUNTS: dict[tuple[str, Shape, int], float] = {}


def _counted(name: str, architecture: Resolved[Architecture[Any]], shape: Shape, classes: int) -> float:
    """Operations of one image's forward pass, counted without doing them."""
    if (name, shape, classes) not in _COUNTS:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network = architecture.cls(architecture.options).build(shape, classes, torch.Generator("cpu"))
            network.eval()(torch.zeros(1, *shape))
        _COUNTS[name, shape, classes] = float(counter.get_total_flops())
    return _COUNTS[name, shape, classes]


@cache
def _rate(device: torch.device) -> float:
    """Operations a second of a convolution like the ConvNet's second, measured for a fifth of a second."""
    weight, images = torch.randn(128, 128, 3, 3, device=device), torch.randn(32, 128, 16, 16, device=device)
    operations, repeats, started = 2.0 * 32 * 128 * 128 * 9 * 256, 0, time.perf_counter()
    torch.nn.functional.conv2d(images, weight, padding=1)
    started = time.perf_counter()
    while time.perf_counter() - started < 0.2:
        float(torch.nn.functional.conv2d(images, weight, padding=1)[0, 0, 0, 0])
        repeats += 1
    return repeats * operations / (time.perf_counter() - started)
