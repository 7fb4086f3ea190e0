"""Real images that a network on the real data is surest of: a method that draws no network and takes one step."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from acme_distill.tutors import TutorOptions, tutor
from harness import DistilledSet, Method, Networks, RealNetwork, Task, option, trained_network


class SurestOptions(TutorOptions):
    """Options of `Surest`."""

    network: str = option("convnet[width=4,depth=2]", "architecture that is asked")


class Surest(Method[SurestOptions]):
    """Chooses the images of each class with the largest probability of it."""

    Options = SurestOptions
    uses_pool = False
    iterates = False

    def __init__(self, task: Task, options: SurestOptions) -> None:
        super().__init__(task, options)
        self.chosen = torch.zeros(0, dtype=torch.int64)

    def needs(self, iteration: int, architecture: str | None) -> Sequence[RealNetwork]:
        """The network."""
        return [tutor(self.options.network, self.options)]

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Choose."""
        problem = self.task.problem
        (artifact,) = networks.needed(None)
        with torch.no_grad():
            sure = trained_network(artifact, problem)(problem.train_inputs).softmax(1).cpu()
        best = [
            members[sure[members, label].argsort(descending=True)] for label, members in enumerate(problem.of_class)
        ]
        self.chosen = torch.cat([members[: self.task.ipc] for members in best])
        return {}

    def distilled(self) -> DistilledSet:
        """The chosen images."""
        problem = self.task.problem
        return self.task.distilled(problem.train_inputs[self.chosen], problem.train.labels[self.chosen])

    def learned(self) -> Mapping[str, Tensor]:
        """Nothing is learned."""
        return {}

    def state(self) -> Mapping[str, Tensor]:
        """The indices."""
        return {"chosen": self.chosen}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take them up."""
        self.chosen = state["chosen"].clone()

    def work(self) -> float:
        """Its network is made before."""
        return 0.0
