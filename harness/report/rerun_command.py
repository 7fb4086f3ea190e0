"""The line of ``ddbench`` that makes a student's cell again, from the records alone."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.errors import DDBenchError
from harness.plugins.registry import Registry
from harness.types.names import Name, parse_name
from harness.types.options import as_text

Record = Mapping[str, Any]
KINDS = ("dataset", "method", "pool", "evaluator", "architecture")


@dataclass(frozen=True)
class NoCommand(Exception):
    """There is no such line; ``reason`` says why."""

    reason: str


class Commands:
    """Makes commands for records of one registry's plugins.

    Args:
        registry: tells what a data set makes the default of components: what a name leaves out may mean something else
            on it than the record's option says.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._defaults = cache(self._defaults_on)

    def line(self, student: Record, distilled: Record | None, counts: tuple[int, int], hold_out: bool = False) -> str:
        """Return the command that makes the student again; see `words`."""
        return shlex.join(["ddbench", "run", *self.words(student, distilled, counts, hold_out)])

    def words(
        self, student: Record, distilled: Record | None, counts: tuple[int, int], hold_out: bool = False
    ) -> list[str]:
        """Return the options of the command that makes the student again under its key, with others up to the counts.

        Args:
            student: its record.
            distilled: the record of its set; None where the store has none.
            counts: distillations and students to ask for.
            hold_out: whether the set that was scored on test was distilled without the validation split.

        Raises:
            NoCommand: there is none.
        """
        if distilled is None:
            raise NoCommand("its distilled set lies in a file of its own: ddbench eval FILE makes it again")
        distillations, students = counts
        words = [*self._names(student, distilled), *_points(distilled)]
        words += ["--distillations", distillations, "--students", students, "--seed", student["identity"]["seed"]]
        words += ["--keep-hold-out"] if hold_out else []
        if student["identity"]["score_on"] != "test":
            words += ["--score-on", student["identity"]["score_on"]]
        precision = distilled["identity"]["trajectory"]["precision"]
        if precision != "fp32":
            words += ["--precision", precision]
        words += [word for text in self._set(student, distilled) for word in ("--set", text)]
        return list(map(str, words))

    def _names(self, student: Record, distilled: Record) -> Iterator[str]:
        told, trajectory = student["result"], distilled["identity"]["trajectory"]
        identities = {**student["identity"], **trajectory}
        for kind in KINDS:
            if told[kind] is None:
                continue
            name = parse_name(told[kind])
            if kind != "dataset":
                name = self._complete(name, identities[kind], told["dataset"])
            yield from (f"--{kind}", str(name))

    def _complete(self, name: Name, identity: Record, dataset: str) -> Name:
        """The name with the options that it would get another value for on the data set."""
        defaults = self._defaults(dataset).get(identity["name"], {})
        options = identity["options"]
        return name.with_defaults({key: _as_text(options[key]) for key in defaults if key in options})

    def _defaults_on(self, dataset: str) -> Mapping[str, Mapping[str, str]]:
        try:
            return self._registry.resolve("dataset", dataset).make().traits.defaults.options  # type: ignore[no-any-return]
        except DDBenchError as error:
            raise NoCommand(f"its data set cannot be had here: {error}") from error

    def _set(self, student: Record, distilled: Record) -> list[str]:
        """Options that were set for architectures that other components name; all others stand in the names."""
        texts = [*student["provenance"].get("set", ()), *distilled["provenance"].get("set", ())]
        known = {entry.name for entry in self._registry.of_kind("architecture")}
        return [text for text in dict.fromkeys(texts) if text.partition(".")[0].rpartition(":")[2] in known]


def _points(distilled: Record) -> Iterator[object]:
    """Images per class and iterations, where the method asks; the total too, where it decides the numbers."""
    told = distilled["result"]
    if told["ipc"] is not None:
        yield from ("--ipc", told["ipc"])
    if told["iterations"] is not None:
        total = distilled["identity"]["trajectory"].get("total")
        points: Sequence[int] = sorted({told["iterations"], total or told["iterations"]})
        yield from ("--iterations", ",".join(map(str, points)))


def _as_text(value: Any) -> str:  # noqa: ANN401
    """An option's value in JSON, as it is typed."""
    return as_text(tuple(value) if isinstance(value, list) else value)
