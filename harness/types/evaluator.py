"""What the author of an evaluator subclasses."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from harness.types.artifact import Artifact, ArtifactRequest
from harness.types.distilled import DistilledSet
from harness.types.network import Architecture
from harness.types.options import Options
from harness.types.problem import Problem
from harness.types.seeds import Streams

O = TypeVar("O", bound=Options)  # noqa: E741


@dataclass(frozen=True)
class StudentRecord:
    """The score of one student.

    Attributes:
        student: its index.
        accuracy: fraction of the scored images that it classifies correctly.
        loss: its training loss over the last epoch.
        epochs: how many it trained.
        seconds: training and scoring, on the wall clock.
        peak_memory: bytes; of the process on a CPU, so shared by students that train side by side.
        collapsed: a non-finite loss, or one class predicted for at least 99 % of the scored images.
        losses: training loss after each tenth of the epochs.
        abreast: how many students were trained at once (on a GPU).
    """

    student: int
    accuracy: float
    loss: float
    epochs: int
    seconds: float
    peak_memory: int
    collapsed: bool
    losses: tuple[float, ...] = ()
    abreast: int = 1


class Evaluator(ABC, Generic[O]):
    """How students are trained on a distilled set and scored."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """Raised whenever the same options give other numbers."""

    def __init__(self, options: O) -> None:
        self.options = options

    @abstractmethod
    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """The recipe by name and version, with every departure from it: ``plain v1 + lr=0.0003``."""

    @abstractmethod
    def evaluate(
        self,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any],
        students: Sequence[int],
        artifacts: Mapping[int, Artifact],
        streams: Streams,
    ) -> Iterator[StudentRecord]:
        """Train the students with these indices from scratch on ``distilled`` and score them, yielding each when done.

        A student's numbers depend on its index and never on which others train beside it, but for their last bits on a
        GPU.
        """

    def artifact(self, student: int) -> ArtifactRequest | None:
        """The artifact that this student needs, if any."""
        return None

    def make_artifact(
        self,
        request: ArtifactRequest,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
    ) -> Artifact:
        """Make what `artifact` asked for."""
        raise TypeError(f"{type(self).__name__} asks for an artifact that it cannot make")

    def work(self, problem: Problem, images: int) -> float | None:
        """How many images pass forward through a network for one student (a backward pass counts as two), if known.

        Args:
            problem: gives the number of images to score.
            images: how many the distilled set has.
        """
        return None
