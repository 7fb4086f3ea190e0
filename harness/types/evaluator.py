"""Base class of evaluators, and the record of a student."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from harness.errors import PluginError, UsageError
from harness.types.artifact import Artifact, ArtifactRequest
from harness.types.data.labels import LABEL_KINDS, LabelKind, listed
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
        student: index of the student.
        accuracy: fraction of the scored images that the student classifies correctly, from 0 to 1.
        loss: training loss over the last epoch.
        epochs: number of epochs of the training.
        seconds: wall-clock time of training and scoring.
        peak_memory: in bytes; on a CPU that of the process, which students that train side by side share.
        collapsed: a non-finite loss, or one class predicted for at least 99 % of the scored images.
        losses: training loss after each tenth of the epochs.
        abreast: number of students that were trained at once (on a GPU).
        extra_bits: storage that the training needs beside the set's, such as soft labels of every epoch, in bits.
        metrics: any other measurements by name, such as ``{"nll": 0.31}``; a name consists of letters, digits and any
            of ``. _ -``, begins with a letter, and is not ``accuracy``.
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
    extra_bits: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


class Evaluator(ABC, Generic[O]):
    """A recipe that trains students on a distilled set and scores them."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same options give other numbers."""
    label_kinds: ClassVar[Sequence[LabelKind]] = ("hard", "soft")
    """The kinds of labels that it trains students on; a set of another kind is refused before any work."""

    check_options: ClassVar[str] = ""
    """Options, ``"epochs=2"``, by which the contract kit checks it where its defaults would take minutes."""

    def __init__(self, options: O) -> None:
        self.options = options

    @property
    def needs_schedule(self) -> bool:
        """Whether it trains by a set's schedule, so that a set without one is refused before any work."""
        return False

    @property
    def uses_real_data(self) -> bool:
        """Whether anything that it trains students by has seen real training images, beside the set itself.

        Tables mark such scores, and never set them against those of evaluators that have seen none. An evaluator that
        asks for a `harness.RealNetwork` uses real data whatever this says.
        """
        return False

    def unsuited(
        self, problem: Problem, architecture: Architecture[Any], needed: Architecture[Any] | None
    ) -> str | None:
        """Return why it is not applicable to students of an architecture, as a phrase; None if it is.

        A plan leaves such students out, and says so.

        Args:
            problem: provides the shape of the images and the classes.
            architecture: architecture of the students.
            needed: architecture that the artifact of the first student names; None if it needs none.
        """
        return None

    def protocols(self) -> Sequence[Mapping[str, str]]:
        """Return a row for each of its protocols: constants by name, as text, ``protocol`` first and ``source`` last.

        ``ddbench evaluators show NAME`` prints them; every row has the same names. Empty if it has a single one.
        """
        return ()

    @abstractmethod
    def protocol(self, problem: Problem, architecture: Architecture[Any]) -> str:
        """Return the recipe's name and version with every departure from it: ``plain v1 + lr=0.0003``."""

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
        """Train students from scratch on ``distilled``, score them and yield the record of each when it is done.

        A student's numbers depend on its index and never on which others train beside it, except for their last bits
        on a GPU.
        """

    def artifact(self, student: int) -> ArtifactRequest | None:
        """Return the request for the artifact that this student needs; None if it needs none.

        A network trained on the real data is requested by `harness.RealNetwork`, and made by the harness before any
        set; any other artifact belongs to one student of one set, and `make_artifact` makes it.
        """
        return None

    def make_artifact(
        self,
        request: ArtifactRequest,
        distilled: DistilledSet,
        problem: Problem,
        architecture: Architecture[Any] | None,
        streams: Streams,
    ) -> Artifact:
        """Make the artifact that `artifact` requested; the same seed must give the same bits."""
        raise TypeError(f"{type(self).__name__} asks for an artifact that it cannot make")

    def work(self, problem: Problem, images: int) -> float | None:
        """Return the number of forward passes of one image for one student (a backward pass counts as two), or None.

        Args:
            problem: the problem, which has the number of images to score.
            images: number of images of the distilled set.
        """
        return None


def check_takes(evaluator: Evaluator[Any], label_kind: LabelKind | None, *, has_schedule: bool, sets: str) -> None:
    """Check that an evaluator can train students on sets of a kind, before any work.

    Args:
        evaluator: the evaluator.
        label_kind: the kind of the sets' labels; None if it is not known yet, and then not checked.
        has_schedule: whether the sets have a schedule.
        sets: whose sets they are, for the message.

    Raises:
        UsageError: it does not take such labels, or needs a schedule that the sets do not have.
        PluginError: it does not declare kinds of labels as a tuple of their names.
    """
    name, kinds = getattr(evaluator, "ddbench_name", type(evaluator).__name__), evaluator.label_kinds
    if isinstance(kinds, str) or not kinds or not set(kinds) <= set(LABEL_KINDS):
        raise PluginError(f"{name} declares label_kinds = {kinds!r:.80}: it has to be a tuple of {listed(LABEL_KINDS)}")
    if label_kind is not None and label_kind not in kinds:
        takes = f"{name} trains on {listed(tuple(kinds))} labels, but those of {sets} are {label_kind}"
        raise UsageError(f"{takes}: choose another --evaluator")
    if evaluator.needs_schedule and not has_schedule:
        raise UsageError(f"{name} trains by a set's schedule, but {sets} has none: choose another protocol")
