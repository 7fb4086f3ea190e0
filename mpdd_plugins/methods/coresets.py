"""Baselines that select real training images instead of learning new ones: coresets, and the whole set."""

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
    """Selects training images, class by class, in one step; subclasses define `choices`.

    Attributes:
        chosen: indices of training images (n,), int64, on the CPU; empty before the step.
    """

    uses_pool: ClassVar[bool] = False
    iterates: ClassVar[bool] = False

    def __init__(self, task: Task, options: O) -> None:
        super().__init__(task, options)
        self.chosen = torch.empty(0, dtype=torch.int64)

    @abstractmethod
    def choices(self, networks: Networks) -> Iterator[Tensor]:
        """Yield for each class the indices of training images (ipc,), in the order of selection."""

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Select the images of all classes."""
        self.chosen = torch.cat(list(self.choices(networks)))
        return {}

    def distilled(self) -> DistilledSet:
        """Return the selected images with their labels.

        Raises:
            RuntimeError: the step is not done yet.
        """
        if not len(self.chosen):
            raise RuntimeError(f"{type(self).__name__} selects its images in its first step, which is not done yet")
        problem = self.task.problem
        images = problem.preprocessing.to_inputs(problem.train.images[self.chosen])
        return self.task.distilled(images, problem.train.labels[self.chosen])

    def learned(self) -> Mapping[str, Tensor]:
        """Return no tensors: nothing is learned."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """Return the indices of the selected images."""
        return {"chosen": self.chosen}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the selected images to those that `state` returned."""
        # A copy, also on a CPU: the caller may go on using its tensor.
        self.chosen = state["chosen"].to("cpu", copy=True)

    def work(self) -> float:
        """Return 0: the pass in which images are compared is counted with their feature network."""
        return 0.0


class Random(Coreset[Options]):
    """Selects images uniformly without replacement.

    They are the images that ``init=real`` starts from, so that a comparison shows what learning adds. The selection of
    fewer images per class is the beginning of that of more.
    """

    def choices(self, networks: Networks) -> Iterator[Tensor]:
        """Yield the beginning of a random order of each class."""
        # The stream of `PixelMethod`'s initial images, from which `Problem.real_batch` draws in the same way.
        for label, members in enumerate(self.task.problem.of_class):
            generator = self.task.streams.generator("init", 0, label)
            yield members[torch.randperm(len(members), generator=generator)[: self.task.ipc]]


class Whole(Coreset[Options]):
    """Selects all training images: the upper bound that a distilled set is compared with."""

    uses_ipc: ClassVar[bool] = False

    def choices(self, networks: Networks) -> Iterator[Tensor]:
        """Yield all images of each class."""
        yield from self.task.problem.of_class


class FeatureCoreset(Coreset[FeatureOptions]):
    """Selects by the features of a network trained on the real data; subclasses define `order`."""

    Options = FeatureOptions

    @staticmethod
    @abstractmethod
    def order(features: Tensor, count: int) -> list[int]:
        """Return which images of a class are selected, in order.

        Args:
            features: one row for each image of the class (n, dimension), float64.
            count: number of images to select, at most n.
        """

    def choices(self, networks: Networks) -> Iterator[Tensor]:
        """Yield each class's images in `order`."""
        (artifact,) = networks.needed(None)
        features, problem = feature_map(artifact, self.task.problem), self.task.problem
        for members in problem.of_class:
            yield members[self.order(features(problem.train.images[members]), self.task.ipc)]

    def needs(self, iteration: int, architecture: str | None) -> Sequence[ArtifactRequest]:
        """Request the feature network."""
        return [feature_request(self.options, self.task.problem)]

    def make_artifact(
        self,
        request: ArtifactRequest,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
        scratch: Scratch,
    ) -> Artifact:
        """Train the feature network."""
        # From the beginning even after an interruption, without `scratch`: a few epochs are soon repeated.
        assert architecture is not None, "the request names one"
        return train_features(self.options, problem, architecture, streams)


class Herding(FeatureCoreset):
    """Selects the image that brings the mean of those selected nearest to the class's mean (Welling, ICML 2009).

    As in iCaRL (Rebuffi et al., CVPR 2017), no image is selected twice.
    """

    @staticmethod
    def order(features: Tensor, count: int) -> list[int]:
        """Select the image x that minimises ``|s + x|``, with features centred at their mean, and s their selected sum.

        Among equals, the first is selected.
        """
        # iCaRL minimises |mean - (s' + x) / k| with features that are not centred. Centred at the mean, and times k,
        # that is |s + x|; and k is the same for all x.
        centred = features - features.mean(0)
        squares = centred.square().sum(1)
        taken, total = list[int](), torch.zeros_like(centred[0])
        for _ in range(count):
            distances = squares + 2 * (centred @ total)  # without |s|^2, which is the same for all
            distances[taken] = torch.inf  # no image twice
            taken.append(int(distances.argmin()))
            total += centred[taken[-1]]
        return taken


class KCenter(FeatureCoreset):
    """Selects the image farthest from all those selected (greedy k-center: Sener and Savarese, ICLR 2018)."""

    @staticmethod
    def order(features: Tensor, count: int) -> list[int]:
        """Select the image nearest the mean, then each time the one that is farthest from its nearest centre.

        Among equals, the first is selected.
        """
        squares = features.square().sum(1)
        taken = [int((features - features.mean(0)).square().sum(1).argmin())]
        nearest = torch.full_like(squares, torch.inf)
        while len(taken) < count:
            # Only the newest centre can be nearer: O(n) for each selection, and no (n, n) matrix of distances.
            centre = taken[-1]
            nearest = torch.minimum(nearest, squares + squares[centre] - 2 * (features @ features[centre]))
            nearest[taken] = -torch.inf
            taken.append(int(nearest.argmax()))
        return taken
