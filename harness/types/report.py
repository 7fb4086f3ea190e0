"""What the author of a report subclasses, and what a report is given."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from harness.types.distilled import DistilledSet
from harness.types.options import Options
from harness.types.score import ChoiceRecord, Score

O = TypeVar("O", bound=Options)  # noqa: E741


@dataclass(frozen=True, eq=False)
class SetRecord:
    """One distilled set, as its record tells.

    Attributes:
        store: the store's folder as it was given.
        key: of the set's cell; `Score.set_key` of its students.
        dataset, ipc, iterations, method, pool: as they stand in tables; None where they do not apply.
        status: ``done``, ``blown up`` or ``diverged``.
        seconds: spent in the method's steps.
        storage_floats: how many numbers the set takes.
        scalars: by name, what each step logged; None in place of what was not finite.
        architectures: names of those drawn; ``draws`` holds, for each iteration, indices into it.
        checksum: of the record.
        load: reads the set, checked against its digest; raises `StoreError` or `DataError`.
    """

    store: str
    key: str
    dataset: str
    ipc: int | None
    iterations: int | None
    method: str
    pool: str | None
    seed: int
    distillation: int
    status: str
    seconds: float
    storage_floats: int
    scalars: Mapping[str, Sequence[float | None]]
    architectures: Sequence[str]
    draws: Sequence[Sequence[int]]
    checksum: str
    load: Callable[[], DistilledSet]


@dataclass(frozen=True)
class Origin:
    """Where a student's record comes from, and how to make it again.

    Attributes:
        command: a line of ``ddbench`` that makes the cell again, under the same key; None where there is none.
        reason: then, why there is none.
        checksum: of the record.
        finished: when, in UTC.
        versions: of Python, ddbench and what its numbers rest on.
        components: by name, the distribution that provides it, with its version.
        compute: device, threads and machine.
    """

    command: str | None
    reason: str
    checksum: str
    finished: str
    versions: Mapping[str, str]
    components: Mapping[str, str]
    compute: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Results:
    """All that the stores hold, as a report is given it.

    Attributes:
        scores: of every student.
        sets: every distilled set.
        notes: what was left out or is doubtful, in lines for people.
        stores: the folders as they were given.
        origins: by store and key, the origins of the scores.
        choices: what was chosen on validation, as far as one of the scores is of it.
    """

    scores: tuple[Score, ...]
    sets: tuple[SetRecord, ...] = ()
    notes: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    origins: Mapping[tuple[str, str], Origin] = field(default_factory=dict)
    choices: tuple[ChoiceRecord, ...] = ()

    def origin(self, score: Score) -> Origin:
        """Where a score comes from."""
        return self.origins[score.store, score.key]


class Report(ABC, Generic[O]):
    """Tells about the results in one file: a page, a table, a picture."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """Raised whenever the same options tell something else."""
    suffix: ClassVar[str] = ".txt"
    """Of the file's name."""

    def __init__(self, options: O) -> None:
        self.options = options

    @abstractmethod
    def render(self, results: Results) -> str | bytes:
        """The file's content.

        All names in ``results`` (of plugins, classes, folders) come from elsewhere: they are data, never markup.

        Raises:
            UsageError: the results lack what the report is about; one line that says what, and how to get it.
        """
