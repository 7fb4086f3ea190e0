"""What ``ddbench convert`` does: write a distilled set in another format, from a file or out of a store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.api.hub import is_shared
from harness.datasets.problems import known_facts, traits_of
from harness.errors import DataError, DDBenchError, StoreError, UsageError
from harness.planning.file_source import CompletedSet, complete, complete_alone
from harness.planning.planner import NO_DEFAULTS, Planner
from harness.planning.request import Request
from harness.planning.run import content_digest
from harness.plugins.discovery import plugins
from harness.plugins.set_formats import read_content, writer_for
from harness.plugins.stored_sets import load_stored
from harness.report.cards.dataset_card import CARD, dataset_card
from harness.report.cards.evaluations import Evaluation, evaluations_in, stored_evaluations
from harness.report.cards.public_facts import shareable
from harness.store.cells import SHORT, is_prefix, key_of
from harness.store.packing import open_store
from harness.store.records import Record, StoredArtifact, StoredSet, StoredStudent, StudentResult
from harness.store.store import Store
from harness.system.whole_files import beside
from harness.types.distilled import DistilledSet
from harness.types.formats import ABOUT, SCORES, Reading, display_name
from harness.types.plurals import counted

RECIPE = "recipe"
"""Key in a set's provenance: the protocols by which its accuracies were measured."""


@dataclass(frozen=True, eq=False)
class Conversion:
    """A set that was written in another format.

    Attributes:
        lost: what the format cannot hold, in words.
        notes: what the user should know of the file that was read.
    """

    distilled: DistilledSet
    path: Path
    lost: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        shape = "x".join(map(str, self.distilled.images.shape[1:]))
        classes = counted(len(self.distilled.classes), "class", "classes")
        content = f"{counted(len(self.distilled.images), 'image')} of {shape} in {classes}"
        loss = f"lost: {'; '.join(self.lost)}" if self.lost else "nothing is lost"
        schedule = self.distilled.schedule
        steps = f", a schedule of {counted(len(schedule.steps), 'step')}" if schedule else ""
        return f"wrote {self.path}: {content}, {self.distilled.label_kind} labels{steps}; {loss}"


def convert(
    source: str,
    target: Path,
    *,
    to: str | None = None,
    reading: Reading = Reading(),  # noqa: B008
    dataset: str | None = None,
    store: Path | None = None,
    force: bool = False,
) -> Conversion:
    """Write a set from a file, a folder or a store in another format.

    Args:
        source: a file, a folder, or the beginning of a key.
        target: the file or folder to write: whole or not at all.
        to: the format, by default the one of the suffix.
        reading: how the source is read, if its content does not say.
        dataset: completes what the source does not say.
        store: the source is the beginning of a key in this store; by default it is one if no file has that name.
        force: replace the target; a folder only if ddbench wrote it.

    Raises:
        UsageError: an argument is wrong.
        DataError: the source cannot be used, or the format cannot hold it.
        StoreError: the store or a record cannot be read.
    """
    write = writer_for(target, to)
    _check_free(target, force)
    if store is not None or _is_key(source):
        _refuse_reading(reading, dataset)
        read = set_of_cell(open_store(store or Request.store), source)
    else:
        read = set_of_file(Path(source), reading, dataset, None)
    distilled = read.distilled
    try:
        with beside(target) as temporary:
            lost = write(distilled, temporary)
            if temporary.is_dir():
                card = dataset_card(read.shareable(), display_name(target), licence=read.licence, rounded=True)
                (temporary / CARD).write_text(card, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror}; free it or give another name") from None
    return Conversion(distilled, target, lost, read.notes)


@dataclass(frozen=True, eq=False)
class ReadSet:
    """A set with what is known of it.

    Attributes:
        distilled: the set, with its record and the scores of its students in its provenance.
        notes: what the user should know when the set is used.
        record: its record; None if it was read from a file.
        store: the store that may hold students on it; None if there is none.
        key: its key in such a store.
    """

    distilled: DistilledSet
    notes: tuple[str, ...]
    record: StoredSet | None
    store: Store | None
    key: str

    def shareable(self) -> DistilledSet:
        """Return the set with all that is known of its origin and its students, and nothing private."""
        rows: list[Evaluation] = []
        if self.store is not None:
            rows, _ = stored_evaluations(self.store, self.key, plugins().registry)
        return shareable(self.distilled, rows or evaluations_in(self.distilled.provenance), self.record)

    @property
    def licence(self) -> str | None:
        """The licence of the source data; None if it is not known."""
        name = self.distilled.provenance.get("dataset")
        try:
            dataset = plugins().registry.resolve("dataset", name) if isinstance(name, str) else None
            return traits_of(dataset).licence if dataset else None
        except DDBenchError:  # a file may name a data set that nobody here has
            return None


def read_set(source: str, reading: Reading, dataset: str | None, store: Path | None) -> ReadSet:
    """Return the set that a key of a store or a file holds; of a file, with students that the store holds on it.

    Args:
        source: a file or a folder, or the beginning of a key.
        reading: how a file is read, if its content does not say.
        dataset: completes what a file does not say.
        store: the store; None for the usual one, if it is there.

    Raises:
        UsageError: an argument is wrong.
        DataError: the source cannot be used.
        StoreError: the store or a record cannot be read.
    """
    if _is_key(source):
        _refuse_reading(reading, dataset)
        return set_of_cell(open_store(store or Request.store), source)
    place = store or Request.store
    if store is not None and not store.exists():
        raise UsageError(f"there is no store {store}: name the folder or file that holds students on the set")
    students = open_store(place) if place.exists() else None
    return set_of_file(Path(source), reading, dataset, students)


def _is_key(source: str) -> bool:
    return is_prefix(source) and not Path(source).exists()


def set_of_file(path: Path, reading: Reading, dataset: str | None, store: Store | None) -> ReadSet:
    """Return the set in a file; its students lie in the store under the digest of its content.

    Raises:
        UsageError: an argument is wrong.
        DataError: the file cannot be used.
    """
    if is_shared(path):
        raise UsageError(f"{path} is on the hub, where `ddbench eval` alone reads it: give a file, or a key of a store")
    if not path.exists():
        raise UsageError(
            f"{str(path)!r}: there is no such file, and it is not the beginning of a key (0 to 9, a to f): "
            "`ddbench results list` shows the keys of a store"
        )
    distilled, notes = _from_file(path, reading, dataset)
    if dataset is not None:
        distilled = replace(distilled, provenance={"dataset": dataset, **distilled.provenance})
    return ReadSet(distilled, notes, None, store, key_of({"kind": "distilled", "file": content_digest(distilled)}))


def set_of_cell(store: Store, prefix: str) -> ReadSet:
    """Return a set of a store.

    Raises:
        UsageError: no cell or several begin with ``prefix``, or it is not a distilled set's.
        StoreError: a record or the set cannot be read, or was altered.
    """
    key = store.find(prefix)
    record = store.record(key)
    if not isinstance(record, StoredSet):
        raise _no_set(prefix, record)
    distilled = load_stored(store.file(key, "set.safetensors"))
    written = record.provenance.as_json()
    origin = {name: written.get(name) for name in ("versions", "compute", "finished")}
    students, unread = _students(store, key)
    whole = {**distilled.provenance, "record": record.checksum, **origin, **_scores(students)}
    note = f"{counted(unread, 'record')} cannot be read, and scores of this set may be there: `ddbench results verify`"
    return ReadSet(replace(distilled, provenance=whole), (note,) if unread else (), record, store, key)


def _no_set(prefix: str, record: Record | None) -> UsageError:
    """Return the error for a key that is not of a distilled set, with the key of the set if the record has it."""
    kind = record.kind if record else "that failed"
    key = record.set if isinstance(record, StoredStudent | StoredArtifact) else None
    remedy = f"its set is {key[:SHORT]}" if key else "`ddbench results list` shows the sets"
    return UsageError(f"{prefix} is a cell of kind {kind}, not a distilled set: {remedy}")


def _students(store: Store, key: str) -> tuple[list[StudentResult], int]:
    """Return the results of all students of a set, and how many records could not be read."""
    results, unread = [], 0
    for cell in store.attempts():
        # A damaged record may be of this set or of any other: the set can be written without it, with a note.
        try:
            record = store.record(cell)
        except StoreError:
            unread += 1
            continue
        if isinstance(record, StoredStudent) and record.set == key:
            results.append(record.result)
    return results, unread


def _scores(results: Sequence[StudentResult]) -> dict[str, Any]:
    """Return the accuracies on test by architecture, and the protocols that gave them."""
    scored = [result for result in results if result.score_on == "test"]
    recipe = {result.evaluator: result.protocol for result in scored}
    scores: dict[str, list[float]] = {}
    for result in sorted(scored, key=lambda result: result.student):
        several = f"{result.evaluator} " if len(recipe) > 1 else ""
        scores.setdefault(f"{several}{result.architecture}", []).append(result.accuracy)
    return {SCORES: scores, RECIPE: recipe} if scored else {}


def _from_file(path: Path, reading: Reading, dataset: str | None) -> tuple[DistilledSet, tuple[str, ...]]:
    if dataset is not None:
        completed = _with_dataset(path, reading, dataset)
        return completed.distilled, completed.notes
    content = read_content(path, reading)
    if content.preprocessing is None:
        what = "how its images are to be" if content.pixels else "how its images were"
        raise DataError(f"{content.where} does not say {what} normalised: say --dataset cifar10, or another")
    completed = complete_alone(content, reading)
    return completed.distilled, completed.notes


def _with_dataset(path: Path, reading: Reading, name: str) -> CompletedSet:
    planner = Planner(Request(dataset=(name,)), plugins().registry)
    datasets = planner.names("dataset", (name,), NO_DEFAULTS)
    if len(datasets) != 1:
        raise UsageError(f"--dataset {name} stands for {len(datasets)} data sets: give one")
    (dataset,) = datasets
    # Reading the images may take minutes: it is done only if the facts do not say enough, and then once.
    facts, load = known_facts(dataset), cache(lambda: planner.problem(dataset))
    content = read_content(path, reading, lambda: (facts or load()).shape)
    if facts and (facts.preprocessing or content.preprocessing):
        return complete(content, reading, dataset, facts)
    try:
        problem = load()
    except DataError as error:
        computed = f"the preprocessing of {name} is computed from its training images: " if facts else ""
        raise DataError(f"{computed}{error}") from None
    return complete(content, reading, dataset, problem)


def _refuse_reading(reading: Reading, dataset: str | None) -> None:
    is_set: Mapping[str, bool] = {
        "--entry": reading.entry != Reading.entry,
        "--from": reading.format is not None,
        "--step-size": reading.step_size is not None,
        "--dataset": dataset is not None,
    }
    for option, was_set in is_set.items():
        if was_set:
            raise UsageError(f"a set of a store says everything itself: leave out {option}")


def _check_free(target: Path, force: bool) -> None:
    # A link to nowhere does not "exist", and would be replaced without a word.
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise UsageError(f"{target} is there already: give another name, or --force to replace it")
    # Only what ddbench wrote: a mistyped target may be the user's own folder of pictures.
    if target.is_dir() and any(target.iterdir()) and not (target / ABOUT).is_file():
        raise UsageError(f"{display_name(target)} is a folder that ddbench did not write: --force does not replace it")
