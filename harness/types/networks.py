"""Where a method gets its networks from."""

from collections.abc import Sequence
from typing import Protocol

from harness.types.artifact import Artifact
from harness.types.network import Network


class Networks(Protocol):
    """The harness's side of a step: it draws from the pool, and hands out what was made before."""

    def draw(self) -> Network:
        """A freshly initialised network, in training mode, of an architecture drawn for this iteration."""
        ...

    def needed(self) -> Sequence[Artifact]:
        """What the method's `needs` asks for at this iteration and for the architecture drawn last."""
        ...
