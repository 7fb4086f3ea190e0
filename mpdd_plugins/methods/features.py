"""The feature network of methods that choose real images: trained once on the real data, and shared."""

import math
from collections.abc import Callable
from dataclasses import asdict
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
    """Options of methods that compare images by the features of a trained network."""

    network: str = option(
        "convnet",
        "architecture whose features are compared; trained on all real images",
        source="own choice: the papers do not tell",
    )
    epochs: int = option(
        20, "passes over the real images, by DC's recipe (lr 0.01, tenfold lower half-way); 0: as initialised",
        source="own choice: the papers do not tell", ge=0,
    )  # fmt: skip

    def recipe(self) -> Recipe:
        """How the network is trained."""
        return Recipe(epochs=self.epochs)


def feature_request(options: FeatureOptions, problem: Problem) -> ArtifactRequest:
    """Ask for the network. Its work counts the one pass in which images are compared, too."""
    work = (3.0 * options.epochs + 1) * len(problem.train)
    return ArtifactRequest("features", 0, options.network, {"recipe": asdict(options.recipe())}, work=work)


def train_features(
    options: FeatureOptions, problem: Problem, architecture: Architecture[Any], streams: Streams
) -> Artifact:
    """Train the network on all real images, without augmentation.

    Raises:
        DDBenchError: the loss is not finite.
    """
    real = DistilledSet(problem.train_inputs, problem.train.labels, problem.classes, problem.preprocessing)
    lesson = Lesson(real, options.recipe(), streams, "features")
    network, losses = train_network(lesson, problem, architecture, 0)
    if not all(map(math.isfinite, losses)):
        raise DDBenchError(f"the feature network diverged in epoch {len(losses)}: use another one (network=...)")
    return Artifact(network.state_dict(), {"loss": losses[-1]} if losses else {})


def feature_map(artifact: Artifact, problem: Problem) -> Callable[[Tensor], Tensor]:
    """The network as a function from stored pixels (n, channels, height, width), uint8, to features (n, dimension).

    Features are float64 on the CPU, computed in float32 and in evaluation mode.
    """
    network = _loaded(artifact, problem)

    @torch.inference_mode()
    def features(pixels: Tensor) -> Tensor:
        parts = (problem.preprocessing.to_inputs(part.to(problem.device)) for part in torch.split(pixels, SLICE))
        return torch.cat([network.features(part).cpu() for part in parts]).double()

    return features


def _loaded(artifact: Artifact, problem: Problem) -> Network:
    if artifact.architecture is None:
        raise TypeError("a feature network comes with its architecture")
    network = artifact.architecture.build(problem.shape, len(problem.classes), torch.Generator())
    network.load_state_dict(dict(artifact.tensors))
    return network.to(problem.device).eval()
