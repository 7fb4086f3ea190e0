"""The accuracy of a student under attacks that know it: FGSM (Goodfellow et al., 2015) and PGD (Madry et al., 2018).

Attacks move pixel values, in units of 1 of 255 and within a largest distance (the maximum norm), up the gradient of the
cross-entropy of the true label; images stay in [0, 255]. The network sees them through the problem's preprocessing.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from harness import Metric, Network, Options, Problem, Streams, option

_AT_ONCE = {"cpu": 128, "cuda": 1024}
"""Images that are attacked at once, by device type."""


class FGSMOptions(Options):
    """Options of `FGSM`."""

    strength: float = option(
        8.0, "largest change of a pixel value, of 255", source="Madry et al., 2018, on CIFAR-10", gt=0, le=255
    )


class PGDOptions(FGSMOptions):
    """Options of `PGD`."""

    steps: int = option(7, "steps of the attack", source="Madry et al., 2018, on CIFAR-10", ge=1)
    step_size: float = option(
        2.0, "change of a pixel value in a step, of 255", source="Madry et al., 2018, on CIFAR-10", gt=0, le=255
    )
    start: bool = option(True, "start at a random point within the strength", source="Madry et al., 2018")


O = TypeVar("O", bound=FGSMOptions)  # noqa: E741


class _Attack(Metric[O]):
    """The accuracy on attacked images; subclasses define `attacked`."""

    @abstractmethod
    def attacked(self, images: Tensor, gradient: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
        """Return attacked images.

        Args:
            images: (n, channels, height, width), float32, 0 to 255.
            gradient: returns the gradient of the loss by such images.
            generator: the random stream of these images.
        """

    def measure(self, network: Network, problem: Problem, streams: Streams) -> Mapping[str, float]:
        """Return the accuracy under the attack, a fraction of the scored images."""
        size, right = _AT_ONCE[problem.device.type], 0
        parts = zip(torch.split(problem.score.images, size), torch.split(problem.score.labels, size), strict=True)
        for index, (pixels, labels) in enumerate(parts):
            own = labels.to(problem.device)

            def gradient(images: Tensor, own: Tensor = own) -> Tensor:
                leaf = images.detach().requires_grad_()
                # The sum: an image's gradient must not depend on how many are attacked at once.
                loss = functional.cross_entropy(_logits(network, problem, leaf), own, reduction="sum")
                return torch.autograd.grad(loss, leaf)[0]

            generator = streams.generator("attack", index)
            images = self.attacked(pixels.to(problem.device).float(), gradient, generator)
            with torch.no_grad():
                right += int((_logits(network, problem, images).argmax(1) == own).sum())
        return {"all": right / len(problem.score)}


class FGSM(_Attack[FGSMOptions]):
    """The accuracy under the fast gradient sign method: one step of the whole strength by the gradient's sign."""

    Options = FGSMOptions

    def attacked(self, images: Tensor, gradient: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
        """Return the images after the step."""
        return (images + self.options.strength * gradient(images).sign()).clamp(0, 255)

    def work(self, problem: Problem) -> float:
        """Return the passes: three for the gradient, one for the score."""
        return 4.0 * len(problem.score)


class PGD(_Attack[PGDOptions]):
    """The accuracy under projected gradient descent: steps by the gradient's sign, brought back to the strength."""

    Options = PGDOptions

    def attacked(self, images: Tensor, gradient: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
        """Return the images after all steps."""
        strength, moved = self.options.strength, images
        if self.options.start:
            noise = torch.rand(images.shape, generator=generator).to(images)
            moved = (images + strength * (2 * noise - 1)).clamp(0, 255)
        for _ in range(self.options.steps):
            moved = moved + self.options.step_size * gradient(moved).sign()
            moved = moved.clamp(images - strength, images + strength).clamp(0, 255)
        return moved

    def work(self, problem: Problem) -> float:
        """Return the passes: three for the gradient of each step, one for the score."""
        return (3.0 * self.options.steps + 1) * len(problem.score)


def _logits(network: Network, problem: Problem, images: Tensor) -> Tensor:
    """Return the logits of images with values from 0 to 255."""
    logits: Tensor = network(problem.resident.preprocessing.apply(images / 255))
    return logits
