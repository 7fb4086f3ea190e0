"""Reading stores for reports: scores, distilled sets, and where each record comes from."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from harness.errors import DDBenchError, few
from harness.plugins.registry import Registry
from harness.report.comparing.comparison import once
from harness.report.comparing.question import selected, value_of
from harness.report.rerun_command import Commands, NoCommand
from harness.report.scores import read_scores
from harness.store.cells import SHORT
from harness.store.packing import open_store
from harness.store.store import Store
from harness.types.distilled import DistilledSet
from harness.types.formats import load_distilled
from harness.types.plurals import counted, plural
from harness.types.report import Origin, Results, SetRecord
from harness.types.score import Score

Record = Mapping[str, Any]
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
"""What reading a record raises that is not as this ddbench writes them."""


def read_results(
    stores: Sequence[Path], registry: Registry, only: Mapping[str, Sequence[str]] | None = None
) -> Results:
    """What the stores hold; a cell that stands in several of them is taken from the first.

    Args:
        stores: their folders.
        registry: tells what commands have to say.
        only: by axis, the names that scores are restricted to, as ``ddbench compare`` takes them; methods that have no
            pool stand beside every pool.

    Raises:
        StoreError: a folder is no store, or cannot be read.
        UsageError: no score has one of the names.
    """
    kept: dict[tuple[str, str], Record] = {}

    def keep(store: str, record: Record) -> None:
        kept[store, record["key"]] = record

    read = read_scores(stores, keep)
    scores, notes = once(read.scores)
    for axis, given in (only or {}).items():
        if given:
            values = {*selected(scores, axis, given), None}
            scores = [score for score in scores if value_of(score, axis) in values]
    origins, lost = _origins(scores, kept, Commands(registry))
    scores = [score for score in scores if (score.store, score.key) in origins]
    sets, unusable = [], list[str]()
    opened = cache(lambda store: open_store(Path(store)))  # a packed file is unpacked once, when a set is read
    for place in dict.fromkeys((score.store, score.set_key) for score in scores):
        if place in kept:
            try:
                sets.append(_set(opened, place[0], kept[place]))
            except _MALFORMED as error:
                unusable.append(f"{place[1][:SHORT]} ({error})")
    notes += [_left_out(lost, "score", "where it comes from", "where they come from")] if lost else []
    if unusable:
        notes.append(f"{_left_out(len(unusable), 'set', 'its history', 'their histories')}: {few(unusable)}")
    choices = tuple(choice for choice in read.choices if any(choice.covers(score) for score in scores))
    return Results(tuple(scores), tuple(sets), (*read.notes, *notes), read.stores, origins, choices)


def _left_out(count: int, noun: str, single: str, several: str) -> str:
    silent = plural(count, f"its record does not tell {single}", f"their records do not tell {several}")
    return f"{counted(count, noun)} left out: {silent}"


def _origins(
    scores: Sequence[Score], kept: Mapping[tuple[str, str], Record], commands: Commands
) -> tuple[dict[tuple[str, str], Origin], int]:
    """By store and key, where the scores come from, and how many records do not tell."""
    counts, origins = _counts(scores), {}
    for score in scores:
        student, distilled = kept[score.store, score.key], kept.get((score.store, score.set_key))
        try:
            hold_out = score.score_on == "test" and score.hold_out is not None
            line, reason = _command(commands, student, distilled, counts[_arm(score)], hold_out)
            origins[score.store, score.key] = _origin(student, line, reason)
        except _MALFORMED:
            continue
    return origins, len(scores) - len(origins)


def _arm(score: Score) -> tuple[Any, ...]:
    """What the cells have in common that one command makes."""
    what = score.set_key if score.from_file else tuple(score.identities.items())
    return what, score.iterations, score.ipc, score.score_on, score.scored, score.precision, score.seed


def _counts(scores: Sequence[Score]) -> dict[tuple[Any, ...], tuple[int, int]]:
    """By arm, how many distillations and students to ask for."""
    counts: dict[tuple[Any, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for score in scores:
        distillations, students = counts[_arm(score)]
        counts[_arm(score)] = (max(distillations, score.distillation + 1), max(students, score.student + 1))
    return counts


def _command(
    commands: Commands,
    student: Record,
    distilled: Record | None,
    counts: tuple[int, int],
    hold_out: bool,
) -> tuple[str | None, str]:
    try:
        return commands.line(student, distilled, counts, hold_out), ""
    except NoCommand as error:
        return None, error.reason
    except DDBenchError as error:
        return None, f"its names cannot be typed here: {error}"


def _origin(record: Record, command: str | None, reason: str) -> Origin:
    provenance = record["provenance"]
    made_by = [*provenance["components"], provenance["dataset"]]
    return Origin(
        command=command,
        reason=reason,
        checksum=record["checksum"],
        finished=str(provenance["finished"]),
        versions={name: str(version) for name, version in provenance["versions"].items()},
        components={one["name"]: f"{one['distribution']} {one['distribution_version']}" for one in made_by},
        compute={key: str(value) for key, value in provenance["compute"].items()},
    )


def _set(opened: Callable[[str], Store], store: str, record: Record) -> SetRecord:
    result, history = record["result"], record["history"]
    told = ("dataset", "ipc", "iterations", "method", "pool", "seed", "distillation", "status", "seconds")
    return SetRecord(
        store=store,
        key=record["key"],
        **{key: result[key] for key in told},
        storage_floats=result["storage_floats"],
        scalars=history["scalars"],
        architectures=history["architectures"],
        draws=history["draws"],
        checksum=record["checksum"],
        load=partial(_load, opened, store, record["key"]),
    )


def _load(opened: Callable[[str], Store], store: str, key: str) -> DistilledSet:
    return load_distilled(opened(store).file(key, "set.safetensors"))
