"""Images that wander to their class's mean: a method that draws no network and needs no gradient."""

from collections.abc import Mapping

import torch
from torch import Tensor

from harness import DistilledSet, Method, Networks, Options, Task, option


class CentroidOptions(Options):
    """Options of `Centroid`."""

    share: float = option(0.5, "how far an image goes to the batch's mean at each step", gt=0, le=1)
    batch: int = option(8, "real images of each class a step", ge=1)


class Centroid(Method[CentroidOptions]):
    """Moves every image a share of the way to the mean of a real batch of its class."""

    Options = CentroidOptions
    uses_pool = False

    def __init__(self, task: Task, options: CentroidOptions) -> None:
        super().__init__(task, options)
        self.labels = torch.arange(len(task.problem.classes)).repeat_interleave(task.ipc)
        self.images = torch.cat([self._real(label, task.ipc, "init") for label in range(len(task.problem.classes))])

    def _real(self, label: int, count: int, role: str, *index: int) -> Tensor:
        generator = self.task.streams.generator(role, *index, label)
        return self.task.problem.real_batch(label, count, generator)

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Go there."""
        means = [
            self._real(label, self.options.batch, "real", iteration).mean(0)
            for label in range(len(self.task.problem.classes))
        ]
        change = torch.stack(means).repeat_interleave(self.task.ipc, dim=0) - self.images
        self.images += self.options.share * change
        return {"distance": change.square().mean().item()}

    def distilled(self) -> DistilledSet:
        """The images as they stand."""
        return self.task.distilled(self.images, self.labels)

    def learned(self) -> Mapping[str, Tensor]:
        """The images."""
        return {"images": self.images}

    def state(self) -> Mapping[str, Tensor]:
        """The images: there is nothing else."""
        return {"images": self.images}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take them up."""
        self.images = state["images"].clone()

    def work(self) -> float:
        """No network is asked."""
        return 0.0
