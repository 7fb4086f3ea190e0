"""The feature network of methods that select real images, trained once on the real data and shared by them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness import (
    SLICE,
    Architecture,
    Artifact,
    ArtifactRequest,
    DDBenchError,
    DistilledSet,
    Lesson,
    Network,
    Options,
    Problem,
    Recipe,
    Streams,
    option,
    train_network,
)


class FeatureOptions(Options):
    """Options of methods that compare images by a trained network's features."""

    network: str = option(
        "convnet",
        "architecture whose features are compared; trained on all real images",
        source="own choice: the papers do not say",
    )
    epochs: int = option(
        20, "passes over the real images, by DC's recipe (lr 0.01, tenfold lower half-way); 0: as initialised",
        source="own choice: the papers do not say", ge=0,
    )  # fmt: skip

    def recipe(self) -> Recipe:
        """Return how the network is trained."""
        return Recipe(epochs=self.epochs)


def feature_request(options: FeatureOptions, problem: Problem) -> ArtifactRequest:
    """Request the feature network; its work includes the pass in which images are compared."""
    work = (3.0 * options.epochs + 1) * len(problem.train)
    return ArtifactRequest("features", 0, options.network, {"recipe": options.recipe().identity()}, work=work)


def train_features(
    options: FeatureOptions, problem: Problem, architecture: Architecture[Any], streams: Streams
) -> Artifact:
    """Train the feature network on all real images, without augmentation.

    Raises:
        DDBenchError: the loss is not finite.
    """
    # The real data is a distilled set of hard labels, so that the students' training serves here as well.
    real = DistilledSet(problem.train_inputs, problem.train.labels, problem.classes, problem.preprocessing)
    lesson = Lesson(real, options.recipe(), streams, "features")
    network, losses = train_network(lesson, problem, architecture, 0)
    if not all(map(math.isfinite, losses)):
        raise DDBenchError(f"the feature network diverged in epoch {len(losses)}: use another one (network=...)")
    return Artifact(network.state_dict(), {"loss": losses[-1]} if losses else {})


def feature_map(artifact: Artifact, problem: Problem) -> Callable[[Tensor], Tensor]:
    """Return a function from stored pixels (n, c, h, w), uint8, to features (n, dimension).

    Features are float64 on the CPU, computed in float32 and in evaluation mode.
    """
    network = _loaded(artifact, problem)

    @torch.inference_mode()
    def features(pixels: Tensor) -> Tensor:
        # In slices, so that a class of any size takes little memory. float64, because sums of squares of almost equal
        # features decide between images.
        parts = (problem.preprocessing.to_inputs(part.to(problem.device)) for part in torch.split(pixels, SLICE))
        return torch.cat([network.features(part).cpu() for part in parts]).double()

    return features


def _loaded(artifact: Artifact, problem: Problem) -> Network:
    if artifact.architecture is None:
        raise TypeError("the artifact of a feature network has no architecture to build it with")
    network = artifact.architecture.build(problem.shape, len(problem.classes), torch.Generator())
    network.load_state_dict(dict(artifact.tensors))
    return network.to(problem.device).eval()
