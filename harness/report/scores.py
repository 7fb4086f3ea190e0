"""Scores in stores: one for each student, with all that decides with which others it may be compared."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.report.comparing.code_versions import Digests, digests_of
from harness.report.tables.hold_outs import with_known_hold_outs
from harness.store.cells import SHORT, canonical_json
from harness.store.files.folders import key_of_attempt
from harness.store.packing import open_store
from harness.store.record_files import remedy
from harness.store.records import (
    HoldOutResult,
    Provenance,
    Record,
    StoredArtifact,
    StoredChoice,
    StoredSet,
    StoredStudent,
)
from harness.store.run_labels import labels_of_runs
from harness.store.store import Store
from harness.system.home import expand_home
from harness.types.data.hold_out import HoldOut
from harness.types.plurals import counted
from harness.types.score import CONDITION, ChoiceRecord
from harness.types.score import Score as Score

UNKNOWN = "unknown"
"""The precision of a set that was distilled elsewhere."""
_NAMED = 3
"""Records that cannot be used are named up to this number; the others of a store are counted."""
OnRecord = Callable[[str, Record], None]
OnStore = Callable[[Store], None]
_OF_A_STUDENT = (
    "dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture", "protocol", "score_on", "seed",
    "distillation", "student", "accuracy", "collapsed", "seconds", "peak_memory", "loss", "like", "preprocessing",
    "training_images", "epochs", "metrics", "real_data",
)  # fmt: skip
"""The fields that a score copies from a student's result."""


@dataclass(frozen=True)
class Scores:
    """The scores and choices in stores.

    Attributes:
        scores: by store in the order of the arguments, then by key.
        notes: a line for each thing that was left out or is doubtful.
        stores: the folders that were read, as the user wrote them, each once.
        choices: the choices that were made on validation.
        labels: by name, the label that the runs of the stores gave it.
    """

    scores: tuple[Score, ...]
    notes: tuple[str, ...]
    stores: tuple[str, ...]
    choices: tuple[ChoiceRecord, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def read_scores(
    stores: Sequence[Path],
    on_record: OnRecord | None = None,
    keys: Collection[str] | None = None,
    on_store: OnStore | None = None,
) -> Scores:
    """Return the newest score of every student in the stores; a store that is listed twice is read once.

    Records that cannot be read or used are named in the notes and counted.

    Args:
        stores: their folders.
        on_record: called with each record that could be read, and its store.
        keys: of the cells that are read; None for all.
        on_store: called with each store after its records.

    Raises:
        StoreError: a folder is not a store, or cannot be read.
    """
    folders: dict[Path, Path] = {}
    for path in stores:
        folders.setdefault(expand_home(path).resolve(), path)
    scores: list[Score] = []
    choices: list[ChoiceRecord] = []
    notes: list[str] = []
    labels: dict[str, str] = {}
    for folder in folders.values():
        # Of a packed store only the records are unpacked: tensors may take minutes, and no score needs them.
        store = open_store(folder, notes.append, records_only=True)
        stored, chosen, lost = _read_store(folder, store, on_record, keys)
        if on_store:
            on_store(store)
        labels = {**labels_of_runs(store), **labels}
        scores += stored
        choices += chosen
        notes += _lost_notes(folder, lost)
    names = tuple(map(str, folders.values()))
    return Scores(tuple(with_known_hold_outs(scores)), tuple(notes), names, tuple(choices), labels)


def _read_store(
    folder: Path, store: Store, on_record: OnRecord | None, keys: Collection[str] | None
) -> tuple[list[Score], list[ChoiceRecord], list[str]]:
    """Return the scores and choices of one store, and a line for each record that cannot be used."""
    if store.is_new():
        raise StoreError(f"{folder} holds no store: `ddbench run --store {folder}` makes one")
    store.check_schema()
    students: list[StoredStudent] = []
    dependencies = _Dependencies({}, {})
    choices: list[ChoiceRecord] = []
    lost: list[str] = []
    for cell in store.folders():
        if keys is not None and key_of_attempt(cell) not in keys:
            continue
        try:
            record = store.read(cell)
        except StoreError as error:
            lost.append(str(error))
            continue
        if on_record:
            on_record(str(folder), record)
        if isinstance(record, StoredStudent):
            students.append(record)
        elif isinstance(record, StoredChoice):
            choices.append(_choice(str(folder), record))
        else:
            dependencies.add(record)
    # After all records were read, since a student's key may come before that of its set or teacher.
    scores: list[Score] = []
    codes: dict[tuple[Any, ...], Digests] = {}
    for student in students:
        try:
            score = _score(str(folder), student, dependencies)
            # Thousands of students share a few digests: one dictionary for all of them saves most of the memory.
            scores.append(replace(score, code=codes.setdefault(tuple(score.code.items()), score.code)))
        except LookupError as error:
            key = student.key
            lost.append(f"{folder}: student {key[:SHORT]} cannot be used: {error!r}: {remedy(key)}")
    return scores, choices, lost


def _choice(store: str, record: StoredChoice) -> ChoiceRecord:
    """Return a choice from its record; one of an earlier version has neither condition nor split."""
    result, stored = record.result, record.condition
    condition = {field: getattr(stored, field) for field in CONDITION} if stored else {}
    split = _hold_out(record.validation)
    return ChoiceRecord(
        store, record.key, result.option, result.value, result.curve, condition, split, tuple(result.probed)
    )


def _hold_out(part: HoldOutResult | None) -> HoldOut | None:
    return HoldOut(part.images, part.of, part.seed) if part else None


def _lost_notes(folder: Path, lost: Sequence[str]) -> Iterator[str]:
    yield from lost[:_NAMED]
    if lost:
        more = f"{len(lost) - _NAMED} more and " if len(lost) > _NAMED else ""
        yield f"{more}in all {counted(len(lost), 'record')} of {folder} left out"


def _text(part: Any) -> str:  # noqa: ANN401
    """Return JSON of which equal texts share one object, because stores repeat the same parts thousands of times."""
    return sys.intern(canonical_json(part))


@dataclass(frozen=True)
class _Set:
    """The fields of a set's record that the scores of its students need."""

    status: str
    precision: str
    device: str
    seconds: float
    main: str | None
    drawn: Mapping[str, int]
    identities: Mapping[str, str]
    storage: int | None
    set_options: tuple[str, ...]
    provenance: Provenance

    @classmethod
    def of(cls, record: StoredSet) -> "_Set":
        trajectory, result = record.identity.trajectory, record.result
        texts = {
            "dataset": [trajectory.problem, trajectory.augmentations],
            "method": [trajectory.method, trajectory.settings],
            "total": trajectory.total,
            "pool": trajectory.pool,
            "drawn": record.identity.architectures,
        }
        return cls(
            status=result.status,
            precision=trajectory.precision,
            device=record.provenance.compute.device,
            seconds=result.seconds,
            main=result.main,
            drawn=result.draws or {},
            identities={part: _text(value) for part, value in texts.items()},
            storage=result.storage_floats,
            set_options=tuple(record.provenance.set),
            provenance=record.provenance,
        )


@dataclass(frozen=True)
class _Teacher:
    """The fields of an artifact's record that the scores of its students need."""

    architecture: str
    provenance: Provenance


@dataclass(frozen=True)
class _Dependencies:
    """The sets and teachers that the students of a store depend on, by key."""

    sets: dict[str, _Set]
    teachers: dict[str, _Teacher]

    def add(self, record: StoredSet | StoredArtifact) -> None:
        """Add the record of a set or of an artifact."""
        if isinstance(record, StoredSet):
            self.sets[record.key] = _Set.of(record)
        else:
            self.teachers[record.key] = _Teacher(_text(record.identity.architecture), record.provenance)


def _with_extra(storage: int | None, bits: int) -> int | None:
    """Return the storage of a set in numbers of 32 bits with that of its evaluator; None if the set's is unknown."""
    return None if storage is None else storage + -(-bits // 32)


def _score(store: str, record: StoredStudent, dependencies: _Dependencies) -> Score:
    """Return the score of a student from its record, that of its set (none for a set from a file) and of its artifact.

    Raises:
        LookupError: its set was distilled here, and has no record.
    """
    result, identity = record.result, record.identity
    of_set = dependencies.sets.get(record.set)
    teacher = dependencies.teachers.get(identity.artifact) if identity.artifact else None
    precision = of_set.precision if of_set else result.precision
    # Sets from files have no precision: this set was distilled here, and its record is lost.
    if of_set is None and precision is not None:
        raise LookupError("the record of its set is not there")
    parts: Mapping[str, str] = of_set.identities if of_set else {"method": _text(record.set)}
    own = {part: _text(getattr(identity, part)) for part in ("evaluator", "architecture", "augmentations")}
    own |= {"artifact": teacher.architecture} if teacher else {}
    return Score(
        store=store,
        key=record.key,
        set_key=record.set,
        **{name: getattr(result, name) for name in _OF_A_STUDENT},
        scored=identity.score,
        precision=precision or UNKNOWN,
        status=of_set.status if of_set else result.set_status or "done",
        device=record.provenance.compute.device,
        losses=tuple(result.losses),
        checksum=record.checksum,
        set_device=of_set.device if of_set else None,
        set_seconds=of_set.seconds if of_set else None,
        main=of_set.main if of_set else None,
        drawn=of_set.drawn if of_set else {},
        from_file=of_set is None,
        hold_out=_hold_out(result.hold_out),
        identities={**parts, **own},
        storage=_with_extra(of_set.storage if of_set else result.set_storage, result.extra_bits),
        set_options=of_set.set_options if of_set else (),
        code=digests_of(record, of_set.provenance if of_set else None, teacher.provenance if teacher else None),
    )
