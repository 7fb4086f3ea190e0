"""What several cells share and is made only once: a teacher, an expert trajectory, a feature network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from harness.types.network import Architecture


@dataclass(frozen=True)
class ArtifactRequest:
    """What a component needs made before its work.

    Attributes:
        kind: what it is, in one word.
        index: which one of its kind; for an evaluator the index of the student that it belongs to.
        architecture: the name of an architecture that it needs built, if any.
        identity: as JSON, all that decides its numbers beside the problem, the seed and, of an evaluator's, the
            distilled set.
        copies: how many times it holds the network's weights; only for telling its size on disk.
        work: how many images pass forward through the network while it is made (a backward pass counts as two), if
            known; only for the estimate of time.
    """

    kind: str
    index: int
    architecture: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    copies: int = 1
    work: float | None = None


@dataclass(frozen=True, eq=False)
class Artifact:
    """A made artifact: its tensors, and scalars worth recording. The harness adds the architecture asked for."""

    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, float] = field(default_factory=dict)
    architecture: Architecture[Any] | None = None


class Scratch(Protocol):
    """Where parts of a long artifact are kept while it is made, so that a later try goes on from there."""

    def get(self, part: str) -> dict[str, Tensor] | None:
        """A part that was kept, or None."""
        ...

    def put(self, part: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a part, whole or not at all."""
        ...
