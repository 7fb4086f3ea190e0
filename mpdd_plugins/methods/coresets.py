"""Baselines that choose real training images instead of learning new ones: coresets, and the whole set."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from harness import (
    Architecture,
    Artifact,
    ArtifactRequest,
    DistilledSet,
    Method,
    Networks,
    Options,
    Problem,
    Scratch,
    Streams,
    Task,
)
from mpdd_plugins.methods.features import FeatureOptions, feature_map, feature_request, train_features

O = TypeVar("O", bound=Options)  # noqa: E741


class Coreset(Method[O]):
    """Chooses training images, class by class, in one step; subclasses define `choices`.

    Attributes:
        chosen: indices of training images (n,), int64, on the CPU; none before the step.
    """

    uses_pool: ClassVar[bool] = False
    iterates: ClassVar[bool] = False

    def __init__(self, task: Task, options: O) -> None:
        super().__init__(task, options)
        self.chosen = torch.empty(0, dtype=torch.int64)

    @abstractmethod
    def choices(self, networks: Networks) -> Iterator[Tensor]:
        """For each class, indices of training images (ipc,) in the order in which they are chosen."""

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Choose."""
        self.chosen = torch.cat(list(self.choices(networks)))
        return {}

    def distilled(self) -> DistilledSet:
        """The chosen images with their labels.

        Raises:
            RuntimeError: none is chosen yet.
        """
        if not len(self.chosen):
            raise RuntimeError(f"{type(self).__name__} chooses its images in its first step, which is not done yet")
        problem = self.task.problem
        images = problem.preprocessing.to_inputs(problem.train.images[self.chosen])
        return self.task.distilled(images, problem.train.labels[self.chosen])

    def learned(self) -> Mapping[str, Tensor]:
        """Nothing is learned."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """Which images are chosen."""
        return {"chosen": self.chosen}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up which images are chosen."""
        self.chosen = state["chosen"].to("cpu", copy=True)

    def work(self) -> float:
        """No training; the pass in which images are compared is counted with their feature network."""
        return 0.0


class Random(Coreset[Options]):
    """Draws uniformly without replacement: the images that ``init=real`` starts from, so that one sees what is added.

    The choice for fewer images per class is the beginning of that for more.
    """

    def choices(self, networks: Networks) -> Iterator[Tensor]:
        """The beginning of a random order of each class."""
        for label, members in enumerate(self.task.problem.of_class):
            generator = self.task.streams.generator("init", 0, label)
            yield members[torch.randperm(len(members), generator=generator)[: self.task.ipc]]


class Whole(Coreset[Options]):
    """Takes all training images: what a distilled set is measured against."""

    uses_ipc: ClassVar[bool] = False

    def choices(self, networks: Networks) -> Iterator[Tensor]:
        """All images of each class."""
        yield from self.task.problem.of_class


class FeatureCoreset(Coreset[FeatureOptions]):
    """Chooses by the features of a network trained on the real data; subclasses define `order`."""

    Options = FeatureOptions

    @staticmethod
    @abstractmethod
    def order(features: Tensor, count: int) -> list[int]:
        """Which of one class's images (rows of ``features``, float64) are chosen, one after the other."""

    def choices(self, networks: Networks) -> Iterator[Tensor]:
        """Each class's images in `order`."""
        (artifact,) = networks.needed(None)
        features, problem = feature_map(artifact, self.task.problem), self.task.problem
        for members in problem.of_class:
            yield members[self.order(features(problem.train.images[members]), self.task.ipc)]

    def needs(self, iteration: int, architecture: str | None) -> Sequence[ArtifactRequest]:
        """The feature network."""
        return [feature_request(self.options, self.task.problem)]

    def make_artifact(
        self,
        request: ArtifactRequest,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
        scratch: Scratch,
    ) -> Artifact:
        """Train the feature network, anew if it was interrupted: a few epochs are soon done again."""
        assert architecture is not None, "the request names one"
        return train_features(self.options, problem, architecture, streams)


class Herding(FeatureCoreset):
    """Takes the image with which the mean of those taken comes nearest to the class's mean (Welling, ICML 2009).

    As iCaRL (Rebuffi et al., CVPR 2017) has it: no image is taken twice.
    """

    @staticmethod
    def order(features: Tensor, count: int) -> list[int]:
        """Minimise ``|s + x|`` over images x, where features are centred at their mean and s sums those taken.

        That is the distance of the two means, times how many are taken. The first of equals is taken.
        """
        centred = features - features.mean(0)
        squares = centred.square().sum(1)
        taken, total = list[int](), torch.zeros_like(centred[0])
        for _ in range(count):
            distances = squares + 2 * (centred @ total)  # without |s|^2, which is the same for all
            distances[taken] = torch.inf
            taken.append(int(distances.argmin()))
            total += centred[taken[-1]]
        return taken


class KCenter(FeatureCoreset):
    """Takes the image farthest from all those taken (greedy k-center: Sener and Savarese, ICLR 2018)."""

    @staticmethod
    def order(features: Tensor, count: int) -> list[int]:
        """Begin with the image nearest the mean; each next one is farthest from its nearest centre.

        The first of equals is taken.
        """
        squares = features.square().sum(1)
        taken = [int((features - features.mean(0)).square().sum(1).argmin())]
        nearest = torch.full_like(squares, torch.inf)
        while len(taken) < count:
            centre = taken[-1]
            nearest = torch.minimum(nearest, squares + squares[centre] - 2 * (features @ features[centre]))
            nearest[taken] = -torch.inf
            taken.append(int(nearest.argmax()))
        return taken
