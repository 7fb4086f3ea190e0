"""Base class of model pools."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from harness.types.options import Options

O = TypeVar("O", bound=Options)  # noqa: E741


class Pool(ABC, Generic[O]):
    """A policy that chooses the architecture of each fresh network of a method; the harness does the drawing."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same options give another distribution."""

    def __init__(self, options: O) -> None:
        self.options = options

    @abstractmethod
    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the probability of each architecture (a name with options) at an iteration from 0; they sum to 1."""

    @property
    def main(self) -> str | None:
        """The main architecture; None if the policy has none."""
        return None

    @property
    def adapts(self) -> bool:
        """Whether the distribution depends on what was observed, so that no draw is known ahead."""
        return type(self).observe is not Pool.observe

    def observe(self, architecture: str, scalars: Mapping[str, float]) -> None:
        """Receive the scalars of a step that drew ``architecture``; for pools that adapt."""

    def state(self) -> Mapping[str, Any]:
        """Return what an adaptive pool has learned so far, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
