"""Base class of model pools, and the probes that a pool may ask for."""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from harness.types.artifact import ArtifactRequest
from harness.types.network import Network
from harness.types.options import Options

O = TypeVar("O", bound=Options)  # noqa: E741

COSINE = "main_cosine"
"""Name of the scalar that holds the cosine of a step's image gradient and the main architecture's running mean."""

MAIN_PROBABILITY = "main_probability"
"""Name of the scalar that holds the main architecture's probability at a step, logged for pools that adapt."""


@dataclass(frozen=True)
class Probe:
    """A request for probes: a few students, trained shortly on the set in the making and scored on a validation split.

    Attributes:
        architectures: names of the students' architectures, the panel; each once, at least one.
        evaluator: trains and scores the students, by name with options. It may need no artifact.
        students: number of students of each architecture, at least 1.
    """

    architectures: tuple[str, ...]
    evaluator: str = "plain[protocol=quick]"
    students: int = 2


@dataclass(frozen=True)
class ProbeResult:
    """The outcome of a probe.

    Attributes:
        iteration: number of updates that the set had when it was probed.
        accuracies: by architecture as the request names it, the accuracy of each student on the validation split, from
            0 to 1. They are never of test images.
    """

    iteration: int
    accuracies: Mapping[str, Sequence[float]]

    @property
    def mean(self) -> float:
        """The mean over architectures of the mean over students, from 0 to 1."""
        return statistics.fmean(statistics.fmean(scores) for scores in self.accuracies.values())


class Pool(ABC, Generic[O]):
    """A policy that chooses the architecture of each fresh network of a method; the harness does the drawing."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same options give another distribution."""

    def __init__(self, options: O) -> None:
        self.options = options

    @abstractmethod
    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the probability of each architecture (a name with options) at an iteration from 0; they sum to 1.

        A pool that adapts lists, before it has observed anything, every architecture that it may ever draw with a
        probability above 0: a set's key holds them.
        """

    def distribution_of(self, iteration: int, draw: int) -> Mapping[str, float]:
        """Return the probabilities of one draw of an iteration, by default those of all.

        Args:
            iteration: counted from 0.
            draw: the number of the draw in its iteration, from 0.
        """
        return self.distribution(iteration)

    @property
    def together(self) -> int:
        """The number of networks that a step matches at once; a method that takes one only is refused beforehand."""
        return 1

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the gradient of an update from those that networks of the same step gave the images.

        Args:
            gradients: one for each of `together` networks, by the training images (n, c, h, w).
        """
        return torch.stack(list(gradients)).mean(0)

    def starts_from(self, architecture: str, iteration: int, draw: int) -> ArtifactRequest | None:
        """Return a `harness.RealNetwork` whose last weights a fresh network starts from; None for its initial ones.

        It is a function of its arguments and the options alone: what a whole run needs is made before it.

        Args:
            architecture: full name of the architecture that was drawn, which is that of the real network.
            iteration: iteration of the draw, from 0.
            draw: the number of the draw in its iteration, from 0.
        """
        return None

    def prepare(self, network: Network, generator: torch.Generator) -> None:
        """Change a fresh network in place before the method gets it; by default, nothing.

        Args:
            network: on the CPU, with its initial weights or those of `starts_from`.
            generator: a random stream of this distillation, iteration and draw.
        """

    @property
    def main(self) -> str | None:
        """The main architecture; None if the policy has none."""
        return None

    @property
    def adapts(self) -> bool:
        """Whether the distribution depends on what was observed, so that no draw is known ahead."""
        return type(self).observe is not Pool.observe or type(self).probed is not Pool.probed

    def observe(self, architecture: str, scalars: Mapping[str, float]) -> None:
        """Receive the scalars of a step that drew ``architecture``; for pools that adapt.

        Args:
            architecture: its name as `distribution` lists it; the first, if it lists one architecture by several names.
            scalars: what the step logged, any value of which may be NaN. If the pool `watches_gradients`,
                ``main_cosine`` is among them.
        """

    @property
    def watches_gradients(self) -> bool:
        """Whether `observe` needs ``main_cosine``; a method that cannot measure it is refused before any work.

        It is the cosine of the gradient that the step's network gave the images and the running mean of the gradients
        that the main architecture gave them before: from -1 to 1, NaN before the main architecture was drawn for the
        first time, or if the step drew several architectures.
        """
        return False

    @property
    def probe(self) -> Probe | None:
        """What the pool asks of its probes; None if it asks for none."""
        return None

    def probes_at(self, iteration: int) -> bool:
        """Return whether a probe is due before the step of an iteration from 0: a function of the options alone."""
        return False

    def probed(self, result: ProbeResult, generator: torch.Generator) -> None:
        """Receive the outcome of a probe, before the step of ``result.iteration``.

        Args:
            result: the students' accuracies.
            generator: a random stream of this distillation and iteration, for a pool that draws.
        """

    @property
    def replays(self) -> bool:
        """Whether the distributions that probes have led to are replayed on the whole training set.

        Probes need a validation split, which is held out of the distillation. By default the set that is scored is
        distilled again from all training images, with the same distribution at each iteration and without probes. If
        False, the set that was probed is scored itself, distilled from fewer images.

        In the replay the pool hears of the search's probes once more, each before its iteration, and observes no step:
        `distribution_of`, `combine` and `prepare` may depend on probes, but not on observed steps.
        """
        return True

    def state(self) -> Mapping[str, Any]:
        """Return what an adaptive pool has learned so far, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
