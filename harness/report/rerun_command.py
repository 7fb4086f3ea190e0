"""The ``ddbench`` command that computes a student's cell again, from the records alone."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.errors import DDBenchError
from harness.plugins.registry import Registry
from harness.store.records import Identity, StoredSet, StoredStudent
from harness.types.names import Name, parse_name
from harness.types.options import as_text


@dataclass(frozen=True)
class NoCommand(Exception):
    """Raised if no command computes a cell again; ``reason`` says why."""

    reason: str


class Commands:
    """Builds commands for records, with the components of one registry.

    Args:
        registry: finds the data sets, whose defaults for components may differ from the option in a record.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._defaults = cache(self._defaults_on)

    def line(
        self, student: StoredStudent, distilled: StoredSet | None, counts: tuple[int, int], hold_out: bool = False
    ) -> str:
        """Return the command that computes the student again; see `words`."""
        return shlex.join(["ddbench", "run", *self.words(student, distilled, counts, hold_out)])

    def words(
        self, student: StoredStudent, distilled: StoredSet | None, counts: tuple[int, int], hold_out: bool = False
    ) -> list[str]:
        """Return the options of the command that computes the student again, under the same key.

        Args:
            student: its record.
            distilled: the record of its set; None if the store has none.
            counts: numbers of distillations and students of the command, at least up to this student.
            hold_out: whether the set that was scored on test was distilled without the validation split.

        Raises:
            NoCommand: there is none.
        """
        if distilled is None:
            raise NoCommand(
                "the distilled set was read from a file, and only `ddbench eval FILE` with that file scores it again"
            )
        distillations, students = counts
        words = [*self._names(student, distilled), *_points(distilled)]
        words += ["--distillations", distillations, "--students", students, "--seed", student.result.seed]
        words += ["--keep-hold-out"] if hold_out else []
        if student.result.score_on != "test":
            words += ["--score-on", student.result.score_on]
        precision = distilled.identity.trajectory.precision
        if precision != "fp32":
            words += ["--precision", precision]
        words += [word for name in student.result.measured for word in ("--metric", name)]
        words += [word for text in self._set(student, distilled) for word in ("--set", text)]
        return list(map(str, words))

    def evaluation(self, student: StoredStudent, distilled: StoredSet | None, students: int) -> list[str]:
        """Return the options of the ``ddbench eval`` that scores a file of the set as this student was scored.

        Args:
            student: its record.
            distilled: the record of its set; None if the store has none.
            students: number of students that the command asks for.

        Raises:
            NoCommand: there is none.
        """
        result, identity = student.result, student.identity
        words = ["--dataset", str(parse_name(result.dataset))]
        for kind, text, own in (
            ("evaluator", result.evaluator, identity.evaluator),
            ("architecture", result.architecture, identity.architecture),
        ):
            words += [f"--{kind}", str(self._complete(parse_name(text), own, result.dataset))]
        words += ["--students", str(students), "--seed", str(result.seed)]
        return words + [word for text in self._set(student, distilled) for word in ("--set", text)]

    def _names(self, student: StoredStudent, distilled: StoredSet) -> Iterator[str]:
        result, trajectory = student.result, distilled.identity.trajectory
        yield from ("--dataset", str(parse_name(result.dataset)))
        components = (
            ("method", result.method, trajectory.method),
            ("pool", result.pool, trajectory.pool),
            ("evaluator", result.evaluator, student.identity.evaluator),
            ("architecture", result.architecture, student.identity.architecture),
        )
        for kind, text, identity in components:
            if text is not None:
                yield from (f"--{kind}", str(self._complete(parse_name(text), identity or {}, result.dataset)))

    def _complete(self, name: Name, identity: Identity, dataset: str) -> Name:
        """Return the name with every option written out for which the data set has a default of its own."""
        # A name that leaves such an option out gets the data set's default, which may differ from the record's value.
        defaults = self._defaults(dataset).get(identity["name"], {})
        options = identity["options"]
        return name.with_defaults({key: _as_text(options[key]) for key in defaults if key in options})

    def _defaults_on(self, dataset: str) -> Mapping[str, Mapping[str, str]]:
        try:
            return self._registry.resolve("dataset", dataset).make().traits.defaults.options  # type: ignore[no-any-return]
        except DDBenchError as error:
            raise NoCommand(f"its data set cannot be had here: {error}") from error

    def _set(self, student: StoredStudent, distilled: StoredSet | None) -> list[str]:
        """Return the options that were set for architectures inside other components."""
        # Those of all other components are part of the names already.
        texts = [*student.provenance.set, *(distilled.provenance.set if distilled else [])]
        known = {entry.name for entry in self._registry.of_kind("architecture")}
        return [text for text in dict.fromkeys(texts) if text.partition(".")[0].rpartition(":")[2] in known]


def _points(distilled: StoredSet) -> Iterator[object]:
    """Yield the options for images per class and iterations, if the method has them."""
    result = distilled.result
    if result.ipc is not None:
        yield from ("--ipc", result.ipc)
    if result.iterations is not None:
        # If the numbers depend on the last point of the trajectory, its identity holds that, and both are asked for.
        total = distilled.identity.trajectory.total
        points: Sequence[int] = sorted({result.iterations, total or result.iterations})
        yield from ("--iterations", ",".join(map(str, points)))


def _as_text(value: Any) -> str:  # noqa: ANN401
    """Format an option's value from JSON as it is typed."""
    return as_text(tuple(value) if isinstance(value, list) else value)
