"""Students held near the logits of an anchor: an evaluator that asks for an artifact."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness import (
    Architecture,
    Artifact,
    ArtifactRequest,
    Batch,
    DistilledSet,
    Evaluator,
    Lesson,
    Loss,
    Options,
    Problem,
    Recipe,
    Streams,
    StudentRecord,
    cross_entropy,
    option,
    train_network,
    train_students,
)


class AnchoredOptions(Options):
    """Options of `Anchored`."""

    epochs: int = option(50, "epochs of anchor and students", ge=1)
    pull: float = option(0.1, "weight of the squared distance to the anchor's logits", ge=0)
    anchor: str = option("mlp", "architecture of the anchor")


class Anchored(Evaluator[AnchoredOptions]):
    """Trains an anchor for each student index on the distilled set, then students that stay near its logits."""

    Options = AnchoredOptions

    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """``anchored v1`` with departures."""
        return "".join(["anchored v1", *(f" + {key}={value}" for key, value in self.options.changed().items())])

    def artifact(self, student: int) -> ArtifactRequest:
        """An anchor."""
        return ArtifactRequest("anchor", student, self.options.anchor, {"epochs": self.options.epochs})

    def make_artifact(
        self,
        request: ArtifactRequest,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
    ) -> Artifact:
        """Train it."""
        assert architecture is not None, "the request names one"
        lesson = Lesson(distilled, Recipe(epochs=self.options.epochs), streams, "anchor")
        network, _ = train_network(lesson, problem, architecture, request.index)
        images, _ = distilled.training_data()
        with torch.no_grad():
            return Artifact({"logits": network.eval()(images.to(problem.device))})

    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train and score; how far the loss fell stands beside the accuracy."""

        def loss_of(student: int) -> Loss:
            logits = artifacts[student].tensors["logits"].to(problem.device)

            def loss(batch: Batch) -> Tensor:
                return cross_entropy(batch) + self.options.pull * functional.mse_loss(batch.logits, logits[batch.index])

            return loss

        lesson = Lesson(distilled, Recipe(epochs=self.options.epochs), streams, loss=loss_of)
        for record in train_students(lesson, problem, architecture, students):
            yield replace(record, metrics={"loss_ratio": record.losses[-1] / record.losses[0]})
