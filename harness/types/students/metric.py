"""Base class of metrics: what a run measures of its students beside the accuracy (``--metric``)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from harness.types.network import Network
from harness.types.options import Options
from harness.types.seeds import Streams

if TYPE_CHECKING:
    from harness.types.problem import Problem

O = TypeVar("O", bound=Options)  # noqa: E741
WHOLE = "all"
"""The part of a metric that stands under the metric's own name."""


class Metric(ABC, Generic[O]):
    """A measurement of a trained student.

    A run measures what ``--metric`` names, of every student right after it was scored; without the network nothing can
    be measured later. The record of a student holds the values by the metric's full name, options in brackets included,
    and what was measured with provider, version and every option. A student whose record lacks a metric that a run asks
    for is trained again, under the same key and with the same numbers.
    """

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same options give other numbers."""

    def __init__(self, options: O) -> None:
        self.options = options

    def check(self, problem: "Problem") -> None:
        """Refuse a problem on which it cannot be measured, before any work; by default, none.

        Raises:
            DataError: one line with the reason.
        """
        return

    @abstractmethod
    def measure(self, network: Network, problem: "Problem", streams: Streams) -> Mapping[str, float]:
        """Measure a student.

        Args:
            network: the trained network, in evaluation mode, on the problem's device.
            problem: provides the scored images, the training images, the classes and the preprocessing.
            streams: random streams of the run's seed, the same for all students, so that all see the same noise.

        Returns:
            Numbers by part: `WHOLE` is the metric itself, any other part is called ``METRIC.PART``. The parts are the
            same for every student of the problem. A part consists of letters, digits and any of ``. _ -``. A value that
            cannot be computed is NaN.
        """

    def work(self, problem: "Problem") -> float | None:
        """Return the forward passes of one image for one student (a backward pass counts as two), or None.

        Only for the estimate of time before a run.
        """
        return None
