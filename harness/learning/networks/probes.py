"""Probes: a few students trained shortly on a set in the making, and scored on a validation split for its pool."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.errors import PluginError, UsageError
from harness.plugins.registry import Resolved
from harness.plugins.returns import call_of, returned, student_record, text, whole_number
from harness.types.distilled import DistilledSet
from harness.types.evaluator import Evaluator, StudentRecord, check_takes
from harness.types.network import Architecture
from harness.types.pool import Pool, Probe, ProbeResult
from harness.types.problem import Problem
from harness.types.seeds import Streams


def checked_probe(pool: Pool[Any]) -> Probe | None:
    """Return what a pool asks of its probes; None if it asks for none.

    Raises:
        PluginError: a value in it cannot be used.
    """
    what = f"{getattr(pool, 'ddbench_name', type(pool).__name__)}: probe"
    if pool.probe is None:
        return None
    probe = returned(pool.probe, Probe, what)
    panel = returned(probe.architectures, tuple, f"{what}: architectures")
    names = [text(name, f"{what}: an architecture", 2000) for name in panel]
    if not names or len(set(names)) < len(names):
        raise PluginError(f"{what} names the architectures {names}: name at least one, each once")
    whole_number(probe.students, f"{what}: students", 1)
    text(probe.evaluator, f"{what}: evaluator", 2000)
    if type(pool).probed is Pool.probed:
        raise PluginError(f"{what} asks for probes, but {type(pool).__name__} has no probed() that hears of them")
    return probe


@dataclass(frozen=True, eq=False)
class Panel:
    """The students of a pool's probes: all that decides their numbers beside the probed set.

    Attributes:
        probe: what the pool asks for.
        evaluator: trains and scores the students.
        architectures: the students' architectures by name, as the pool names them.
        problem: its scored images are the validation split, which is not among its training images.
    """

    probe: Probe
    evaluator: Resolved[Evaluator[Any]]
    architectures: Mapping[str, Resolved[Architecture[Any]]]
    problem: Problem

    @property
    def components(self) -> list[Resolved[Any]]:
        """The evaluator and the architectures."""
        return [self.evaluator, *self.architectures.values()]

    def identity(self) -> dict[str, Any]:
        """Return, for keys, all that decides a probe's numbers beside the set."""
        return {
            "evaluator": self.evaluator.identity(),
            "architectures": [architecture.identity() for architecture in self.architectures.values()],
            "students": self.probe.students,
            "score": self.problem.score.fingerprint,
        }

    def check(self, pool: str, label_kind: Any, *, has_schedule: bool, sets: str) -> None:  # noqa: ANN401
        """Check before any work that the evaluator can make the probes.

        Args:
            pool: the pool, for messages.
            label_kind: the kind of labels that the method declares; None if it declares none.
            has_schedule: whether its sets have a schedule.
            sets: whose sets are probed, for messages.

        Raises:
            UsageError: it needs an artifact, is not applicable to the panel, or does not take such sets.
        """
        evaluator = self.evaluator.make()
        check_takes(evaluator, label_kind, has_schedule=has_schedule, sets=sets)
        if evaluator.artifact(0) is not None:
            needs = f"the probes of {pool} cannot use {self.evaluator}, which needs a trained network"
            raise UsageError(f"{needs}: choose another evaluator, such as plain")
        for architecture in self.architectures.values():
            if reason := evaluator.unsuited(self.problem, architecture.make(), None):
                raise UsageError(
                    f"the probes of {pool}: {self.evaluator} is not applicable to {architecture}: {reason}"
                )


class Prober:
    """Makes the probes of one distillation.

    Args:
        panel: the students.
        streams: random streams of the distillation. All its probes train their students from the same initial weights
            on the same batches, so that two probes differ by the set alone; no scored student has these weights.
    """

    def __init__(self, panel: Panel, streams: Streams) -> None:
        self.panel = panel
        self._streams = Streams(streams.number("probe"), streams.distillation)

    @cached_property
    def _architectures(self) -> dict[str, Architecture[Any]]:
        return {name: architecture.make() for name, architecture in self.panel.architectures.items()}

    def is_whole(self, accuracies: Mapping[str, Sequence[float]]) -> bool:
        """Return whether accuracies, by architecture, are those of a whole probe."""
        return all(len(accuracies.get(name, ())) >= self.panel.probe.students for name in self._architectures)

    def result(self, iteration: int, accuracies: Mapping[str, Sequence[float]]) -> ProbeResult:
        """Return the outcome of a whole probe, with the architectures in the pool's order."""
        # A probe that was interrupted comes back from a file, which does not keep the order.
        return ProbeResult(iteration, {name: tuple(accuracies[name]) for name in self._architectures})

    def measure(
        self, distilled: DistilledSet, done: Mapping[str, Sequence[float]]
    ) -> Iterator[tuple[str, StudentRecord]]:
        """Train and score the students that a probe still lacks, and yield each with its architecture when it is done.

        Args:
            distilled: the set that is probed.
            done: by architecture, the accuracies of the first students, which are left out.

        Raises:
            PluginError: the evaluator returns anything but the students that it is asked for.
        """
        for name, architecture in self._architectures.items():
            students = list(range(len(done.get(name, ())), self.panel.probe.students))
            if not students:
                continue
            evaluator = self.panel.evaluator.make()
            what = call_of(evaluator, "evaluate")
            answers = evaluator.evaluate(distilled, self.panel.problem, architecture, students, {}, self._streams)
            for student in students:
                yield name, student_record(next(answers, None), student, what)
