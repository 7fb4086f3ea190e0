"""How good a set is: the accuracies of its students in a store, and how far other distillations of the kind differ."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness.errors import StoreError
from harness.plugins.registry import Registry
from harness.report.rerun_command import Commands, NoCommand
from harness.store.cells import canonical_json
from harness.store.records import Fraction, StoredSet, StoredStudent
from harness.store.store import Store
from harness.types.formats import SCORES
from harness.types.formats.scores import scores_of

EVALUATIONS = "evaluations"
"""Key of the evaluations in a shared set's provenance."""
_MOST = 1000
_OPTIONS = {"--dataset", "--evaluator", "--architecture", "--students", "--seed", "--set"}
_Text = Annotated[str, Field(max_length=2000)]


class Evaluation(BaseModel):
    """The accuracies on test of students of one architecture under one evaluator.

    Attributes:
        evaluator: None if the file does not say which.
        architecture: of the students.
        protocol: the evaluator's recipe; None if the file does not say it.
        accuracies: of the students on this set, fractions by their index.
        set_means: the mean of each distillation of the same method, pool and iterations, this one included.
        real_data: whether the evaluator used real training images beside the set.
        device: where the students were trained.
        options: of the ``ddbench eval`` that repeats them; empty if no command does.
        repeatable: whether that command draws the same random numbers, so that it gives the same accuracies.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    evaluator: _Text | None
    architecture: _Text
    protocol: _Text | None
    accuracies: Annotated[list[Fraction], Field(min_length=1, max_length=_MOST)]
    set_means: Annotated[list[Fraction], Field(max_length=_MOST)] = []
    real_data: bool = False
    device: _Text | None = None
    options: Annotated[list[_Text], Field(max_length=_MOST)] = []
    repeatable: bool = False

    @field_validator("options")
    @classmethod
    def _pairs_of_known_options(cls, options: list[str]) -> list[str]:
        # A file that comes from anybody must not put another option into a command that people copy.
        if len(options) % 2 or not set(options[::2]) <= _OPTIONS:
            raise ValueError(f"they are pairs of {', '.join(sorted(_OPTIONS))} and their values")
        return options

    @property
    def option_pairs(self) -> list[tuple[str, str]]:
        """The options with their values."""
        return list(zip(self.options[::2], self.options[1::2], strict=True))

    @property
    def mean(self) -> float:
        """The mean of the students on this set."""
        return statistics.fmean(self.accuracies)

    @property
    def std_students(self) -> float | None:
        """The standard deviation between the students on this set (ddof 1); None of a single one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def std_distillations(self) -> float | None:
        """The standard deviation of the means of distillations (ddof 1); None if there is only one."""
        return statistics.stdev(self.set_means) if len(self.set_means) > 1 else None


def stored_evaluations(store: Store, key: str, registry: Registry) -> tuple[list[Evaluation], int]:
    """Return the evaluations on test of a set, in the order of their names, and how many records cannot be read.

    Args:
        store: the store that holds its students.
        key: of the set, which the store need not hold itself: a set from a file is in none.
        registry: finds the components that commands name.
    """
    students: dict[tuple[str, str], dict[str, list[StoredStudent]]] = defaultdict(lambda: defaultdict(list))
    sets, scored, unread = dict[str, StoredSet](), list[StoredStudent](), 0
    for cell in store.attempts():
        try:
            record = store.record(cell)
        except StoreError:
            unread += 1
            continue
        if isinstance(record, StoredSet):
            sets[record.key] = record
        elif isinstance(record, StoredStudent) and record.result.score_on == "test":
            scored.append(record)
    own = sets.get(key)
    alike = {key} if own is None else {other for other, record in sets.items() if _settings(record) == _settings(own)}
    for student in scored:
        if student.set in alike and _is_of_this_file(student, sets.get(student.set)):
            students[_recipe(student)][student.set].append(student)
    commands = Commands(registry)
    rows = [_evaluation(of_sets, key, own, commands) for of_sets in students.values() if key in of_sets]
    return sorted(rows, key=lambda row: (row.evaluator or "", row.architecture)), unread


def evaluations_in(provenance: Mapping[str, Any]) -> list[Evaluation]:
    """Return the evaluations that a file states: ours, otherwise the bare accuracies by architecture.

    A file may come from anybody: what is no evaluation is left out.
    """
    stated = provenance.get(EVALUATIONS)
    rows = []
    for part in stated[:_MOST] if isinstance(stated, list) else []:
        try:
            rows.append(Evaluation.model_validate(part))
        except ValidationError:
            continue
    if rows:
        return rows
    bare = {name: values for name, values in scores_of(provenance.get(SCORES)).items() if _are_fractions(values)}
    return [Evaluation(evaluator=None, architecture=name, protocol=None, accuracies=bare[name]) for name in bare]


def _are_fractions(values: Sequence[float]) -> bool:
    return 0 < len(values) <= _MOST and all(0 <= value <= 1 for value in values)


def _is_of_this_file(student: StoredStudent, distilled: StoredSet | None) -> bool:
    """Return whether a student was trained on the set as the store holds it, which may have been distilled again."""
    return distilled is None or student.set_file in (None, distilled.files.get("set.safetensors"))


def _settings(record: StoredSet) -> str:
    """Return all that distillations of one kind have in common, as text: everything but their index."""
    identity = record.identity.trajectory.as_json()
    return canonical_json({**identity, "distillation": None, "iterations": record.identity.iterations})


def _recipe(student: StoredStudent) -> tuple[str, str]:
    """Return what students that are summarised together have in common, beside their sets; names come first."""
    identity = student.identity
    parts = [identity.evaluator, identity.architecture, identity.augmentations, identity.score]
    return f"{student.result.evaluator} {student.result.architecture}", canonical_json([parts, student.result.seed])


def _evaluation(
    of_sets: Mapping[str, Sequence[StoredStudent]], key: str, distilled: StoredSet | None, commands: Commands
) -> Evaluation:
    by_set = {place: sorted(students, key=lambda each: each.result.student) for place, students in of_sets.items()}
    mine = by_set[key]
    first, indices = mine[0], [each.result.student for each in mine]
    try:
        options = commands.evaluation(first, distilled, max(indices) + 1)
    except NoCommand:
        options = []
    # A file has no index of a distillation: its students draw what those of the first one do.
    same_draws = first.result.distillation == 0 and indices == list(range(len(indices)))
    return Evaluation(
        evaluator=first.result.evaluator,
        architecture=first.result.architecture,
        protocol=first.result.protocol,
        accuracies=[each.result.accuracy for each in mine],
        set_means=[statistics.fmean(each.result.accuracy for each in students) for students in by_set.values()],
        real_data=first.result.real_data,
        device=first.provenance.compute.device,
        options=options,
        repeatable=bool(options) and same_draws,
    )
