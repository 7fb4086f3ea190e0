"""Results for reports: the scores and distilled sets of stores, and the origin of each record."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from harness.errors import DDBenchError, few
from harness.plugins.registry import Registry
from harness.plugins.stored_sets import load_stored
from harness.report.comparing.arm_labels import with_labels
from harness.report.comparing.comparison import without_duplicates
from harness.report.comparing.question import selected_values, value_of
from harness.report.data_records import DataRecords, read_data
from harness.report.rerun_command import Commands, NoCommand
from harness.report.scores import read_scores
from harness.store.cells import SHORT
from harness.store.packing import open_store
from harness.store.records import Record, StoredSet, StoredStudent
from harness.store.store import Store
from harness.system.home import expand_home
from harness.types.distilled import DistilledSet
from harness.types.plurals import counted, plural
from harness.types.report import Origin, Results, SetRecord
from harness.types.score import Score

SET_FILE = "set.safetensors"
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
"""Errors raised by the identity of a component that this version of ddbench would write differently."""


class _Incomplete(Exception):
    """Raised if a record lacks its origin or its history; the message says which."""


def read_results(
    stores: Sequence[Path],
    registry: Registry,
    only: Mapping[str, Sequence[str]] | None = None,
    labels: Sequence[str] = (),
    keys: Collection[str] | None = None,
) -> Results:
    """Return the results in stores; a cell that is in several of them is taken from the first.

    Args:
        stores: their folders.
        registry: finds the components that commands name.
        only: by axis, the names that scores are restricted to, as ``ddbench compare`` takes them; methods without a
            pool are listed beside every pool.
        labels: ``LABEL=NAME``; the label stands in place of the name.
        keys: of the cells that are read; None for all.

    Raises:
        StoreError: a folder is not a store, or cannot be read.
        UsageError: no score has one of the names.
    """
    records: dict[tuple[str, str], Record] = {}

    def keep(store: str, record: Record) -> None:
        records[store, record.key] = record

    data, damages = DataRecords(), list[str]()

    def describe(store: Store) -> None:
        described, lost = read_data(store)
        # Of several stores the first that has it.
        data.update({place: record for place, record in described.items() if place not in data})
        damages.extend(lost)

    read = with_labels(read_scores(stores, keep, keys, describe), labels)
    scores, notes = without_duplicates(read.scores)
    for axis, names in (only or {}).items():
        if names:
            values = {*selected_values(scores, axis, names), None}
            scores = [score for score in scores if value_of(score, axis) in values]
    origins, lost = _origins(scores, records, Commands(registry))
    scores = [score for score in scores if (score.store, score.key) in origins]
    sets, unusable = [], list[str]()
    opened = cache(lambda store: open_store(Path(store)))  # a packed file is unpacked once, when a set is read
    for place in dict.fromkeys((score.store, score.set_key) for score in scores):
        record = records.get(place)
        if isinstance(record, StoredSet):
            try:
                sets.append(_set(opened, place[0], record))
            except _Incomplete as error:
                unusable.append(f"{place[1][:SHORT]} ({error})")
    notes += [_left_out(lost, "score", "its origin", "their origins")] if lost else []
    if unusable:
        notes.append(f"{_left_out(len(unusable), 'set', 'its history', 'their histories')}: {few(unusable)}")
    choices = tuple(choice for choice in read.choices if any(choice.covers(score) for score in scores))
    notes += damages
    return Results(tuple(scores), tuple(sets), (*read.notes, *notes), read.stores, origins, choices, data)


def _left_out(count: int, noun: str, single: str, several: str) -> str:
    reason = plural(count, f"its record does not contain {single}", f"their records do not contain {several}")
    return f"{counted(count, noun)} left out: {reason}"


def _origins(
    scores: Sequence[Score], records: Mapping[tuple[str, str], Record], commands: Commands
) -> tuple[dict[tuple[str, str], Origin], int]:
    """Return the origins of scores by store and key, and the number of records that do not contain theirs."""
    counts, origins = _counts(scores), {}
    for score in scores:
        student, distilled = records[score.store, score.key], records.get((score.store, score.set_key))
        assert isinstance(student, StoredStudent), "a score is read from the record of a student"
        try:
            hold_out = score.score_on == "test" and score.hold_out is not None
            of_set = distilled if isinstance(distilled, StoredSet) else None
            line, reason = _command(commands, student, of_set, counts[_arm(score)], hold_out)
            origins[score.store, score.key] = _origin(student, line, reason)
        except (_Incomplete, *_MALFORMED):
            continue
    return origins, len(scores) - len(origins)


def _arm(score: Score) -> tuple[Any, ...]:
    """Return the fields that all cells of one command have in common."""
    what = score.set_key if score.from_file else tuple(score.identities.items())
    return what, score.iterations, score.ipc, score.score_on, score.scored, score.precision, score.seed


def _counts(scores: Sequence[Score]) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Return by arm the numbers of distillations and students that its command asks for."""
    # One command for all cells of an arm, and not one for each: so the report repeats what a person would type.
    counts: dict[tuple[Any, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for score in scores:
        distillations, students = counts[_arm(score)]
        counts[_arm(score)] = (max(distillations, score.distillation + 1), max(students, score.student + 1))
    return counts


def _command(
    commands: Commands,
    student: StoredStudent,
    distilled: StoredSet | None,
    counts: tuple[int, int],
    hold_out: bool,
) -> tuple[str | None, str]:
    try:
        return commands.line(student, distilled, counts, hold_out), ""
    except NoCommand as error:
        return None, error.reason
    except DDBenchError as error:
        return None, f"its names cannot be typed here: {error}"


def _origin(record: StoredStudent, command: str | None, reason: str) -> Origin:
    provenance = record.provenance
    if provenance.components is None or provenance.dataset is None or provenance.versions is None:
        raise _Incomplete("its components or versions are unknown")
    if not provenance.finished:
        raise _Incomplete("when it was made is unknown")
    made_by = [*provenance.components, provenance.dataset]
    return Origin(
        command=command,
        reason=reason,
        checksum=record.checksum,
        finished=provenance.finished,
        versions=provenance.versions,
        components={part.name: f"{part.distribution} {part.distribution_version}" for part in made_by},
        compute={key: str(value) for key, value in provenance.compute.as_json().items()},
    )


def _set(opened: Callable[[str], Store], store: str, record: StoredSet) -> SetRecord:
    result, history, search = record.result, record.history, record.result.search
    if not history.is_whole:
        raise _Incomplete("its scalars, architectures or draws are unknown")
    fields = ("dataset", "ipc", "iterations", "method", "pool", "seed", "distillation", "status", "seconds")
    return SetRecord(
        store=store,
        key=record.key,
        **{field: getattr(result, field) for field in fields},
        storage_floats=result.storage_floats,
        scalars=history.scalars,
        architectures=history.architectures,
        draws=history.draws,
        checksum=record.checksum,
        load=partial(_load, opened, store, record.key),
        path=_path(opened, store, record.key),
        main=result.main,
        probes=[(probe.iteration, probe.accuracies) for probe in search.probes] if search else (),
        search_seconds=search.seconds if search else 0.0,
        set_options=tuple(record.provenance.set),
    )


def _path(opened: Callable[[str], Store], store: str, key: str) -> Path | None:
    if expand_home(store).is_file():
        return None
    folder = opened(store).folder(key)
    return folder and folder / SET_FILE


def _load(opened: Callable[[str], Store], store: str, key: str) -> DistilledSet:
    return load_stored(opened(store).file(key, SET_FILE))
