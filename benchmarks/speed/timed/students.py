"""Times students of one architecture as the harness trains and scores them: a line of JSON for each evaluator."""

import dataclasses
import time

from subjects import STREAMS, answer, real_problem, real_set, report, resolve, with_options

from harness.compute.machine import prepare_process
from harness.compute.parallel import side_by_side
from harness.types.artifact import Artifact

WARM = 512
"""Scored images of the students that warm up."""


def students(dataset, ipc, architecture, evaluators, counts, policy):
    """Seconds a student by each evaluator, for each of ``counts`` students side by side; and of one epoch alone.

    Networks are compiled by ``policy``.
    """
    prepare_process(policy)
    problem = real_problem(dataset)
    few = dataclasses.replace(problem, score=problem.score[: min(WARM, len(problem.score))])
    distilled = real_set(problem, ipc)
    for evaluator in evaluators:
        artifacts, seconds = teachers(evaluator, distilled, problem, range(max(counts)))
        if artifacts:
            report(evaluator=evaluator, teacher=seconds)
        short = with_options(evaluator, epochs=1)
        _, start = train(short, distilled, few, architecture, max(counts), artifacts)
        for count in counts:
            records, whole = train(evaluator, distilled, problem, architecture, count, artifacts)
            _, scoring = train(short, distilled, problem, architecture, count, artifacts)
            report(
                evaluator=evaluator, students=count, seconds=whole / count, scoring=scoring / count, start=start,
                epochs=records[0].epochs,
            )  # fmt: skip


def teachers(evaluator, distilled, problem, indices):
    """The artifacts that students need, made side by side, and seconds for each."""
    component = resolve("evaluator", evaluator).make()
    requests = [component.artifact(index) for index in indices]
    if requests[0] is None:
        return {}, 0.0
    architecture = resolve("architecture", requests[0].architecture).make()

    def make(index):
        return component.make_artifact(requests[index], distilled, problem, architecture, STREAMS)

    begun = time.perf_counter()
    parts = list(side_by_side(make, indices, problem.device))
    seconds = (time.perf_counter() - begun) / len(parts)
    whole = (Artifact(part.tensors, part.scalars, architecture) for part in parts)
    return dict(zip(indices, whole, strict=True)), seconds


def train(evaluator, distilled, problem, architecture, count, artifacts):
    """The records of ``count`` students, and the seconds of all."""
    component, network = resolve("evaluator", evaluator).make(), resolve("architecture", architecture).make()
    begun = time.perf_counter()
    records = list(component.evaluate(distilled, problem, network, range(count), artifacts, STREAMS))
    return records, time.perf_counter() - begun


if __name__ == "__main__":
    answer(students)
