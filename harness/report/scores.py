"""Scores as they stand in stores: one a student, with all that decides with which others it may be compared."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.report.comparing.code_versions import Digests, digests_of
from harness.report.tables.hold_outs import hold_outs_known
from harness.store.cells import SHORT, canonical_json
from harness.store.packing import open_store
from harness.store.record_files import remedy
from harness.system.home import expand_home
from harness.types.hold_out import HoldOut
from harness.types.plurals import counted
from harness.types.score import CONDITION, ChoiceRecord
from harness.types.score import Score as Score

UNKNOWN = "unknown"
"""The precision of a set that was distilled elsewhere."""
_NAMED = 3
"""Records that cannot be used are named up to this number; the others of a store are counted."""
Record = Mapping[str, Any]
Hear = Callable[[str, Record], None]
_OF_A_STUDENT = (
    "dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture", "protocol", "score_on", "seed",
    "distillation", "student", "accuracy", "collapsed", "seconds", "peak_memory", "loss",
)  # fmt: skip
"""What a score takes from a student's result as it is."""
_MALFORMED = (LookupError, TypeError, AttributeError, ValueError, OverflowError)
"""What reading a record raises that is not as this ddbench writes them."""


@dataclass(frozen=True)
class Scores:
    """What stores hold.

    Attributes:
        scores: by store in the order given, then by key.
        notes: what was left out or is doubtful, a line each.
        stores: the folders that were read, as they were given, each once.
        choices: what was chosen on validation.
    """

    scores: tuple[Score, ...]
    notes: tuple[str, ...]
    stores: tuple[str, ...]
    choices: tuple[ChoiceRecord, ...] = ()


def read_scores(stores: Sequence[Path], hear: Hear | None = None) -> Scores:
    """The newest score of every student in the stores; a store that is given twice is read once.

    Records that cannot be read or used are named in the notes and counted.

    Args:
        stores: their folders.
        hear: is told of each record that could be read, with its store.

    Raises:
        StoreError: a folder is no store, or cannot be read.
    """
    folders: dict[Path, Path] = {}
    for path in stores:
        folders.setdefault(expand_home(path).resolve(), path)
    scores: list[Score] = []
    choices: list[ChoiceRecord] = []
    notes: list[str] = []
    for folder in folders.values():
        found, chosen, lost = _read_store(folder, hear, notes.append)
        scores += found
        choices += chosen
        notes += _lost_notes(folder, lost)
    names = tuple(map(str, folders.values()))
    return Scores(tuple(hold_outs_known(scores)), tuple(notes), names, tuple(choices))


def _read_store(
    folder: Path, hear: Hear | None, notice: Callable[[str], object]
) -> tuple[list[Score], list[ChoiceRecord], list[str]]:
    """The scores and choices of one store, and what is wrong with the records that give none."""
    store = open_store(folder, notice, records_only=True)
    if store.is_new():
        raise StoreError(f"{folder} holds no store: `ddbench run --store {folder}` makes one")
    store.check_schema()
    students: list[Record] = []
    beneath = _Beneath({}, {})
    choices: list[ChoiceRecord] = []
    lost: list[str] = []
    for cell in store.folders():
        try:
            record = store.read(cell)
            if hear:
                hear(str(folder), record)
            if record["kind"] == "student":
                students.append(record)
            elif record["kind"] == "choice":
                choices.append(_choice(str(folder), record))
            else:
                beneath.add(record)
        except StoreError as error:
            lost.append(str(error))
        except _MALFORMED as error:
            lost.append(f"{cell}/record.json cannot be used: {error!r}")
    scores: list[Score] = []
    codes: dict[tuple[Any, ...], Digests] = {}
    for student in students:
        try:
            score = _score(str(folder), student, beneath)
            scores.append(replace(score, code=codes.setdefault(tuple(score.code.items()), score.code)))
        except _MALFORMED as error:
            key = str(student.get("key"))
            lost.append(f"{folder}: student {key[:SHORT]} cannot be used: {error!r}: {remedy(key)}")
    return scores, choices, lost


def _choice(store: str, record: Record) -> ChoiceRecord:
    """A choice from its record; one of an earlier version tells neither condition nor split."""
    result, stored = record["result"], record.get("condition")
    condition = {field: stored[field] for field in CONDITION} if stored else {}
    curve = {str(name): mean for name, mean in result["curve"].items()}
    hold_out = HoldOut.from_json(record.get("validation"))
    return ChoiceRecord(store, record["key"], str(result["option"]), str(result["value"]), curve, condition, hold_out)


def _lost_notes(folder: Path, lost: Sequence[str]) -> Iterator[str]:
    yield from lost[:_NAMED]
    if lost:
        more = f"{len(lost) - _NAMED} more and " if len(lost) > _NAMED else ""
        yield f"{more}in all {counted(len(lost), 'record')} of {folder} left out"


def _text(part: Any) -> str:  # noqa: ANN401
    """As JSON, kept once: stores repeat the same parts thousands of times."""
    return sys.intern(canonical_json(part))


@dataclass(frozen=True)
class _Set:
    """What a set's record tells of its students."""

    status: str
    precision: str
    device: str
    seconds: float
    main: str | None
    drawn: Mapping[str, int]
    identities: Mapping[str, str]
    storage: int | None
    set_options: tuple[str, ...]
    provenance: Record

    @classmethod
    def of(cls, record: Record) -> "_Set":
        trajectory, result = record["identity"]["trajectory"], record["result"]
        texts = {
            "dataset": [trajectory["problem"], trajectory["augmentations"]],
            "method": [trajectory["method"], trajectory.get("settings")],
            "total": trajectory["total"],
            "pool": trajectory["pool"],
            "drawn": record["identity"]["architectures"],
        }
        return cls(
            status=result["status"],
            precision=str(trajectory["precision"]),
            device=str(record["provenance"]["compute"]["device"]),
            seconds=result["seconds"],
            main=result.get("main"),
            drawn=result.get("draws") or {},
            identities={part: _text(value) for part, value in texts.items()},
            storage=result.get("storage_floats"),
            set_options=tuple(map(str, record["provenance"].get("set") or ())),
            provenance=record["provenance"],
        )


@dataclass(frozen=True)
class _Teacher:
    """What an artifact's record tells of the students that it teaches."""

    architecture: str
    provenance: Record


@dataclass(frozen=True)
class _Beneath:
    """What the students of a store rest on, by key."""

    sets: dict[str, _Set]
    teachers: dict[str, _Teacher]

    def add(self, record: Record) -> None:
        """Take up what is the record of a set or of an artifact."""
        if record["kind"] == "distilled":
            self.sets[record["key"]] = _Set.of(record)
        elif record["kind"] == "artifact":
            architecture = _text(record["identity"]["architecture"])
            self.teachers[record["key"]] = _Teacher(architecture, record["provenance"])


def _score(store: str, record: Record, beneath: _Beneath) -> Score:
    """A score from a student's record, what its set's tells (a set from a file has none) and its artifact's."""
    result, identity = record["result"], record["identity"]
    found, teacher = beneath.sets.get(record["set"]), beneath.teachers.get(identity["artifact"])
    precision = found.precision if found else result.get("precision")
    if found is None and precision is not None:
        raise LookupError("the record of its set is not there")
    parts: Record = found.identities if found else {"method": _text(record["set"])}
    own = {part: _text(identity[part]) for part in ("evaluator", "architecture", "augmentations")}
    own |= {"artifact": teacher.architecture} if teacher else {}
    provenances = ({"provenance": one.provenance} if one else None for one in (found, teacher))
    return Score(
        store=store,
        key=record["key"],
        set_key=record["set"],
        **{name: result[name] for name in _OF_A_STUDENT},
        scored=identity["score"],
        precision=precision or UNKNOWN,
        status=found.status if found else result.get("set_status") or "done",
        device=str(record["provenance"]["compute"]["device"]),
        losses=tuple(result.get("losses") or ()),
        checksum=record["checksum"],
        set_device=found.device if found else None,
        set_seconds=found.seconds if found else None,
        like=result.get("like"),
        preprocessing=result.get("preprocessing"),
        main=found.main if found else None,
        drawn=found.drawn if found else {},
        from_file=found is None,
        training_images=result.get("training_images"),
        hold_out=HoldOut.from_json(result.get("hold_out")),
        identities={**parts, **own},
        storage=found.storage if found else result.get("set_storage"),
        epochs=result.get("epochs"),
        set_options=found.set_options if found else (),
        code=digests_of(record, *provenances),
    )
