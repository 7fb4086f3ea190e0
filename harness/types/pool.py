"""What the author of a model-pool policy subclasses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from harness.types.options import Options

O = TypeVar("O", bound=Options)  # noqa: E741


class Pool(ABC, Generic[O]):
    """Which architecture a method gets at each fresh network. The harness does the drawing."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """Raised whenever the same options give another distribution."""

    def __init__(self, options: O) -> None:
        self.options = options

    @abstractmethod
    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Probability of each architecture (a name with options) at an iteration counted from 0; they sum to 1."""

    @property
    def main(self) -> str | None:
        """The main architecture, where the policy has one."""
        return None

    @property
    def adapts(self) -> bool:
        """Whether the distribution depends on what was observed, so that no draw is known ahead."""
        return type(self).observe is not Pool.observe

    def observe(self, architecture: str, scalars: Mapping[str, float]) -> None:
        """Hear what a step logged after it drew ``architecture``; for pools that adapt."""

    def state(self) -> Mapping[str, Any]:
        """What an adaptive pool has learned so far, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
