"""Base class of reports, and the results that a report receives."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.types.distilled import DistilledSet
from harness.types.options import Options
from harness.types.score import ChoiceRecord, Score

O = TypeVar("O", bound=Options)  # noqa: E741


@dataclass(frozen=True, eq=False)
class SetRecord:
    """The record of one distilled set.

    Attributes:
        store: the store's folder as it was typed.
        key: key of the set's cell, `Score.set_key` of its students.
        dataset, ipc, iterations, method, pool: as tables show them; None if they do not apply.
        status: ``done``, ``blown up`` or ``diverged``.
        seconds: time spent in the method's steps, and in finding the pool's distributions.
        storage_floats: number of values that the set stores.
        scalars: by name, the values that each step logged; None for a value that was not finite.
        architectures: names of the architectures drawn; ``draws`` holds indices into it for each iteration.
        checksum: of the record.
        load: reads the set and checks it against its digest; raises `StoreError` or `DataError`.
        path: the file of the set; None in a packed store.
        main: full name of the pool's main architecture; None if it has none, or the record does not say.
        probes: of a pool that asks for them, each probe's iteration and, by architecture, the students' accuracies on
            the validation split.
        search_seconds: of ``seconds``, those that it took to find the pool's distributions; 0 of other pools.
        set_options: options that were set by component, as ``--set`` takes them, which names do not show.
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
    path: Path | None = None
    main: str | None = None
    probes: Sequence[tuple[int, Mapping[str, Sequence[float]]]] = ()
    search_seconds: float = 0.0
    set_options: tuple[str, ...] = ()

    def __repr__(self) -> str:
        through = f" through {self.pool}" if self.pool else ""
        return f"<SetRecord {self.key[:8]}: {self.method}{through} #{self.distillation}, {self.dataset}>"


@dataclass(frozen=True)
class Origin:
    """The origin of a student's record, and how to make it again.

    Attributes:
        command: a command line that makes the cell again, under the same key; None if there is none.
        reason: why there is no such command.
        checksum: of the record.
        finished: time in UTC at which the cell was done.
        versions: versions of Python, ddbench and the libraries that its numbers rest on.
        components: by component, the distribution that provides it with its version.
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
class DataRecord:
    """The description of the real data that scores rest on.

    Attributes:
        classes: class names; label i is ``classes[i]``.
        train, scored: numbers of training and of scored images by label.
        score_on: whether the scored images are the ``test`` set or a ``validation`` split.
        shape: channels, height and width of an image.
        mean, std: of each channel of the training images, of pixels in [0, 1].
        preprocessing: name of the map from pixels to network inputs.
        images: of each of the first classes, its first training images (n, height, width, 1 or 3), scaled down if they
            are large; empty if the store does not hold them.
    """

    classes: tuple[str, ...]
    train: tuple[int, ...]
    scored: tuple[int, ...]
    score_on: str
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: str
    images: tuple[NDArray[np.uint8], ...] = ()


@dataclass(frozen=True, eq=False)
class Results:
    """The results in all stores that a report was asked for.

    Attributes:
        scores: the scores of all students.
        sets: all distilled sets.
        notes: lines for people about what was left out or is doubtful.
        stores: the folders as they were typed.
        origins: origins of the scores, by store and key.
        choices: the choices on validation that concern one of the scores.
        data: descriptions of the real data, by the fingerprints of the problem and of the scored images; stores of
            older versions have none.
    """

    scores: tuple[Score, ...]
    sets: tuple[SetRecord, ...] = ()
    notes: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    origins: Mapping[tuple[str, str], Origin] = field(default_factory=dict)
    choices: tuple[ChoiceRecord, ...] = ()
    data: Mapping[tuple[str, str], DataRecord] = field(default_factory=dict)

    def origin(self, score: Score) -> Origin:
        """Return the origin of a score."""
        return self.origins[score.store, score.key]

    def data_of(self, score: Score) -> DataRecord | None:
        """Return the description of the real data that a score rests on; None if no store describes it."""
        identity = score.identities.get("dataset")
        # A set from a file does not say what it was distilled from: then the scored images alone have to decide.
        problem = json.loads(identity)[0] if identity else None
        fitting = [
            record
            for (fingerprint, scored), record in self.data.items()
            if scored == score.scored and problem in (fingerprint, None)
        ]
        return fitting[0] if len(fitting) == 1 else None


class Report(ABC, Generic[O]):
    """A report renders results as one file: a page, a table, a picture."""

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same options give other content."""
    suffix: ClassVar[str] = ".txt"
    """The suffix of the file's name."""

    def __init__(self, options: O) -> None:
        self.options = options

    @abstractmethod
    def render(self, results: Results) -> str | bytes:
        """Return the file's content.

        All names in ``results`` (of plugins, classes, folders) come from elsewhere: they are data, never markup.

        Raises:
            UsageError: the results lack what the report is about; one line that names it and the remedy.
        """
