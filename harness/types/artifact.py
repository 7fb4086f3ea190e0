"""Artifacts: tensors that several cells share and that are made once (a teacher, an expert trajectory)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from harness.types.network import Architecture


@dataclass(frozen=True)
class ArtifactRequest:
    """A request for an artifact that a component needs before its own work.

    Attributes:
        kind: the kind of artifact, in one word.
        index: its number within its kind; for an evaluator, the index of the student that it belongs to.
        architecture: the name of an architecture that has to be built for it; None if it needs no network.
        identity: as JSON, everything that decides its numbers beside the problem, the seed and, for an evaluator,
            the distilled set.
        copies: how many times it holds the network's weights; used only to estimate its size on disk.
        work: number of forward passes of one image while it is made (a backward pass counts as two), or None if
            unknown; used only to estimate the time.
    """

    kind: str
    index: int
    architecture: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    copies: int = 1
    work: float | None = None


@dataclass(frozen=True)
class SharedRequest(ArtifactRequest):
    """A request for an artifact that the harness makes itself, and that all components which ask for it share.

    Its key is the same whoever asks: it depends on the problem, the architecture, the seed and ``identity`` alone.
    """


@dataclass(frozen=True, eq=False)
class Artifact:
    """A finished artifact: its tensors, scalars worth recording, and the architecture that the request named."""

    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, float] = field(default_factory=dict)
    architecture: Architecture[Any] | None = None


class Scratch(Protocol):
    """A place where the finished parts of a long artifact are stored, so that an interrupted attempt can resume."""

    def get(self, part: str) -> dict[str, Tensor] | None:
        """Return the tensors of a stored part, or None if the part is not stored."""
        ...

    def put(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Store a part as a whole; an interruption leaves either all of it or nothing."""
        ...
