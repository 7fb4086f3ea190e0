"""Feature means matched on networks whose weights lie between the start and the end of a real training."""

from collections.abc import Mapping, Sequence

import torch

from acme_distill.tutors import TutorOptions, tutor
from harness import Networks, PixelMethod, PixelOptions, RealNetwork, option, snapshot, trained_network


class WarmOptions(TutorOptions, PixelOptions):
    """Options of `Warm`."""

    batch: int = option(8, "real images of each class a step", ge=1)


class Warm(PixelMethod[WarmOptions]):
    """Matches the mean features of each class on a network of the drawn architecture."""

    Options = WarmOptions

    def needs(self, iteration: int, architecture: str | None) -> Sequence[RealNetwork]:
        """A network of each architecture that is drawn."""
        assert architecture is not None, "it draws networks"
        return [tutor(architecture, self.options)]

    def step(self, iteration: int, networks: Networks) -> Mapping[str, float]:
        """Match on weights at a random place of the way."""
        problem, streams = self.task.problem, self.task.streams
        (artifact,) = networks.needed(networks.draw())
        network = trained_network(artifact, problem)
        place = float(torch.rand((), generator=streams.generator("place", iteration)))
        for name, weight in network.named_parameters():
            weight.lerp_(snapshot(artifact.tensors, 0, problem.device)[name], place)
        loss = self.images.new_zeros(())
        for label in range(self.classes):
            real = problem.real_batch(label, self.options.batch, streams.generator("real", iteration, label))
            own = self.images[self.labels == label]
            loss = loss + (network.features(own).mean(0) - network.features(real).mean(0)).square().sum()
        (self.images.grad,) = torch.autograd.grad(loss, [self.images])
        self.optimizer.step()
        return {"loss": float(loss.detach())}
