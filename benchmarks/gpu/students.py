"""Seconds of one student and of twenty: `python benchmarks/gpu/students.py DATA`.

Six architectures, plain and kd, by the protocol itself, on a set of real images at 1 and 10 images a class.
"""

from functools import partial

import torch
from bench import ARCHITECTURES, Bench, architecture, make

from harness import Artifact, DistilledSet, Streams
from harness.compute.precision import float32_products

STREAMS = Streams(0)
EVALUATORS = ("plain", "kd")
MANY = 20


def set_of(problem, ipc):
    """Real images, as they are drawn to begin a distillation with."""
    drawn = [
        problem.real_batch(label, ipc, STREAMS.generator("init", 0, label)).cpu()
        for label in range(len(problem.classes))
    ]
    labels = torch.arange(len(drawn)).repeat_interleave(ipc)
    return DistilledSet(torch.cat(drawn), labels, problem.classes, problem.preprocessing)


def evaluator_of(bench, name, epochs=None):
    options = ["epochs=2"] if bench.quick or epochs else []
    options += ["teacher=mlp"] if bench.quick and name == "kd" else []
    return make("evaluator", f"{name}[{','.join(options)}]" if options else name)


def teacher_of(bench, distilled):
    """One teacher, for all students alike."""
    evaluator = evaluator_of(bench, "kd")
    request = evaluator.artifact(0)
    built = architecture(request.architecture).make()
    artifact = evaluator.make_artifact(request, distilled, bench.problem, built, STREAMS)
    return Artifact(artifact.tensors, artifact.scalars, built)


def seconds_of(bench, distilled, evaluator, name, count, teacher):
    """Training and scoring of ``count`` students, after one for two epochs to get warm, with their mean accuracy."""

    def students(evaluator, count):
        teachers = dict.fromkeys(range(count), teacher)
        built = architecture(name).make()
        return list(evaluator.evaluate(distilled, bench.problem, built, range(count), teachers, STREAMS))

    records = []
    students(evaluator_of(bench, evaluator, epochs=2), 1)
    cost = bench.timed(lambda: records.extend(students(evaluator_of(bench, evaluator), count)))
    return {**cost, "accuracy": sum(record.accuracy for record in records) / count}


def main(argv=None):
    bench = Bench("students", __doc__, argv)
    many = 3 if bench.quick else MANY
    with float32_products("fp32"):
        for ipc in (1,) if bench.quick else (1, 10):
            distilled = set_of(bench.problem, ipc)
            teacher = teacher_of(bench, distilled)
            bench.measure(f"teacher, ipc {ipc}", bench.timed, partial(teacher_of, bench, distilled))
            for evaluator in EVALUATORS:
                for name in ("mlp", "lenet") if bench.quick else ARCHITECTURES:
                    key = f"{evaluator}, {name}, ipc {ipc}"
                    single, twenty = (
                        bench.measure(f"{key}, {n} students", seconds_of, bench, distilled, evaluator, name, n, teacher)
                        for n in (1, many)
                    )
                    if single and twenty:
                        bench.say(
                            f"{key}: {many} take {twenty['seconds'] / single['seconds']:.2f} times as long as one"
                        )
    bench.save()


if __name__ == "__main__":
    main()
