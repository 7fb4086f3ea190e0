"""Students as `Plain` trains them, beside the accuracy of kernel ridge regression on the same set (KIP)."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from harness import (
    Architecture,
    Artifact,
    BlockedKernel,
    DistilledSet,
    Problem,
    Streams,
    StudentRecord,
    centred_one_hot,
    kernel_named,
    option,
    ridge_predictions,
)
from mpdd_plugins.evaluators.plain import Plain, PlainOptions
from mpdd_plugins.methods.kip import KERNELS, MEGABYTE, KernelName

METRIC = "kernel_accuracy"
"""The name of the metric."""


class KernelOptions(PlainOptions):
    """Options of `Kernel`."""

    kernel: KernelName = option("fc", KERNELS, source="KIP, notebook")
    ridge: float = option(1e-6, "lambda, relative to the mean of the kernel's diagonal", source="KIP, notebook", gt=0)
    memory: float = option(1024.0, "megabytes that a block of the kernel may take", source="own choice", gt=0)


class Kernel(Plain):
    """Trains students as `Plain` does, and reports the accuracy of kernel ridge regression as a metric.

    The metric ``kernel_accuracy`` is that of the regression from the set to the scored images: a property of the set
    and the kernel alone, the same for all students.
    """

    Options = KernelOptions
    options: KernelOptions

    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train and score students, each with the metric."""
        accuracy = self.kernel_accuracy(distilled, problem)
        for record in super().evaluate(distilled, problem, architecture, students, artifacts, streams):
            yield dataclasses.replace(record, metrics={**record.metrics, METRIC: accuracy})

    def kernel_accuracy(self, distilled: DistilledSet, problem: Problem) -> float:
        """Return the share of the scored images whose class the regression predicts."""
        options, here = self.options, problem.resident
        images, labels = (tensor.to(problem.device) for tensor in distilled.training_data())
        values = centred_one_hot(labels, len(problem.classes)) if labels.ndim == 1 else labels
        kernel = BlockedKernel(kernel_named(options.kernel), MEGABYTE * options.memory)
        with torch.no_grad():
            scored = problem.inputs_of(here.score.images)
            cross, own = kernel.matrix(scored, images), kernel.matrix(images, images, own=True)
            predicted = ridge_predictions(cross, own, values, options.ridge).argmax(1)
        return float((predicted == here.score.labels).double().mean())
