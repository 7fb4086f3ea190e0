"""The contract of evaluators."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar
from unittest import SkipTest

import torch

from harness.errors import DDBenchError, UsageError
from harness.learning.artifacts.real_networks import RealNetwork
from harness.plugins.returns import metrics
from harness.testing.contract import Contract, architecture, finite, require, same_bits
from harness.testing.small import global_generators, real_network, small_problem, small_set
from harness.types.artifact import Artifact
from harness.types.data.labels import LABEL_KINDS, LabelKind
from harness.types.distilled import DistilledSet
from harness.types.evaluator import Evaluator, StudentRecord, check_takes
from harness.types.problem import Problem
from harness.types.seeds import Streams

SMALL_MLP = "mlp[width=8]"
_SMALL_CONVNET = "convnet[width=4]"
"""The students of evaluators that are not applicable to an MLP."""
_OF_TIME = ("seconds", "peak_memory")
_STUDENTS = (0, 1, 2)


class EvaluatorContract(Contract):
    """The obligations of every evaluator, on a set of six images of a problem of three classes.

    Attributes:
        student: the architecture of the students; of an evaluator that is not applicable to it, a small ConvNet's.
    """

    kind = "evaluator"
    student: ClassVar[str] = SMALL_MLP

    def test_protocol_is_one_line(self) -> None:
        """The protocol is one line of text, the same each time."""
        protocol = self.component().protocol(self.problem, self._architecture())
        require(isinstance(protocol, str) and protocol.strip(), f"protocol() gives {protocol!r}")
        require(len(protocol.splitlines()) == 1, f"protocol() gives several lines: {protocol!r}")
        require(
            protocol == self.component().protocol(self.problem, self._architecture()), "asked again, it gives another"
        )

    def test_protocols_have_constants(self) -> None:
        """The table of its protocols, if there is one, has the same constants in every row, and a source."""
        rows = self.component().protocols()
        names = [list(row) for row in rows]
        require(all(own == names[0] for own in names), f"protocols() has rows of {names}")
        texts = all(isinstance(text, str) for row in rows for text in row.values())
        require(texts, "protocols() has values that are not texts")
        ordered = all(own[0] == "protocol" and own[-1] == "source" for own in names)
        require(ordered, "a row of protocols() begins with the protocol and ends with its source")

    def test_students_come_in_order(self) -> None:
        """Every requested student is yielded, in order, with a record that makes sense."""
        require([record.student for record in self.scored] == list(_STUDENTS), f"students {self.scored}")
        for record in self.scored:
            require(isinstance(record, StudentRecord), f"evaluate() gives {type(record).__name__}")
            require(0 <= record.accuracy <= 1, f"the accuracy {record.accuracy} is not a fraction")
            require(math.isfinite(record.loss) or record.collapsed, f"the loss {record.loss} is not called collapsed")
            require(record.epochs >= 1 and record.seconds >= 0 and record.peak_memory >= 0, f"{record}")

    def test_accuracy_is_of_the_scored_images(self) -> None:
        """The accuracy is a multiple of one scored image."""
        for record in self.scored:
            right = record.accuracy * len(self.problem.score)
            require(abs(right - round(right)) < 1e-6, f"{record.accuracy} of {len(self.problem.score)} images")

    def test_metrics_are_named_numbers(self) -> None:
        """Metrics have names that can be typed, the same for every student, and are numbers."""
        # Students without a metric are left out of its comparison, so that a value which cannot be computed is NaN.
        names = [set(metrics(record.metrics, "evaluate(): metrics")) for record in self.scored]
        require(all(own == names[0] for own in names), f"the students' metrics are {[sorted(own) for own in names]}")

    def test_students_do_not_depend_on_each_other(self) -> None:
        """A student's numbers are the same bits, whichever others are trained beside it."""
        # A study that is extended trains only its new students, and they must fit the old ones.
        (alone,) = self.evaluated([1])
        require(self._same(alone, self.scored[1]), f"alone it is {alone}, among others {self.scored[1]}")

    def test_same_seed_same_numbers(self) -> None:
        """The same seed gives the same bits, whatever the global generators' state."""
        with global_generators(7):
            (again,) = self.evaluated([0])
        require(self._same(again, self.scored[0]), f"again it is {again}, before {self.scored[0]}")

    def test_another_seed_other_students(self) -> None:
        """Another seed gives other students."""
        others = self.evaluated(_STUDENTS[:2], seed=1)
        # One equal student may be chance, all of them are not.
        same = all(self._same(first, second) for first, second in zip(others, self.scored, strict=False))
        require(not same, "with another seed all students are the same: draw from the streams that are given")

    def test_the_set_is_left_alone(self) -> None:
        """Evaluation does not change the distilled set."""
        # The set is shared by all students, and by all evaluators of a run.
        before, _ = self.distilled.training_data()
        copy = before.clone()
        list(self.evaluated([0]))
        require(torch.equal(copy, self.distilled.training_data()[0]), "its images are changed")

    def test_soft_labels_and_step_sizes(self) -> None:
        """A set with soft labels and a learned step size is evaluated too, or refused in one line."""
        self._evaluated_or_refused(self._set("soft"))

    def test_kinds_of_labels(self) -> None:
        """Students train on every kind of labels that it declares, and a set of another kind is refused in one line."""
        for kind in LABEL_KINDS:
            if kind not in self.component().label_kinds:
                self._check_refused(kind, has_schedule=True)
            elif kind == "soft" and self.component().label_kinds is Evaluator.label_kinds:
                # Written before there were kinds to declare, it may refuse such a set by itself.
                self._evaluated_or_refused(self._set(kind))
            else:
                (record,) = self.evaluated([0], self._set(kind))
                require(math.isfinite(record.loss) or record.collapsed, f"on {kind} labels, the loss is {record.loss}")

    def test_schedules(self) -> None:
        """A set with a schedule is evaluated or refused in one line, and one without it is refused if it is needed."""
        kind = self.distilled.label_kind
        self._evaluated_or_refused(small_set(self.problem, 2, step_size=0.01, kind=kind, scheduled=True))
        if self.component().needs_schedule:
            self._check_refused(kind, has_schedule=False)

    def test_artifacts(self) -> None:
        """A requested artifact is described as JSON and made from its own seed, the same bits each time.

        A network on the real data is trained by the harness.
        """
        request = self.component().artifact(0)
        if request is None:
            raise SkipTest("it asks for nothing")
        json.dumps(request.identity, allow_nan=False)
        require(request == self.component().artifact(0), "asked again, it needs something else")
        with global_generators(9):
            again = self._make(0, self.distilled, 0)
        artifact = self.artifacts[0]
        require(finite(artifact.tensors), "the artifact is not finite")
        require(same_bits(artifact.tensors, again.tensors), "made again, it is another")

    def test_what_it_is_not_applicable_to(self) -> None:
        """It says in one line of what architecture it cannot train students, and is applicable to some."""
        for name in (self.student, _SMALL_CONVNET):
            reason = self._unsuited(name)
            require(reason is None or len(reason.splitlines()) == 1, f"unsuited() to {name} is {reason!r}")
        applicable = any(self._unsuited(name) is None for name in (self.student, _SMALL_CONVNET))
        require(applicable, "it is applicable to nothing")

    def test_real_data_is_declared(self) -> None:
        """Whether it uses real data is stated as a truth value, the same each time."""
        stated = self.component().uses_real_data
        require(isinstance(stated, bool), f"uses_real_data is {stated!r}")
        require(stated == self.component().uses_real_data, "asked again, it says otherwise")

    def test_work_is_a_number(self) -> None:
        """The work of a student, if it is known, is positive."""
        work = self.component().work(self.problem, len(self.distilled.images))
        require(work is None or (math.isfinite(work) and work > 0), f"work() is {work!r}")

    # --- what the checks are made of ---

    def component(self) -> Evaluator[Any]:
        """Return the evaluator."""
        evaluator: Evaluator[Any] = self.resolved().make()
        return evaluator

    @cached_property
    def problem(self) -> Problem:
        """A problem of three classes, with twelve training and six scored grey images of 16x16 each."""
        return small_problem()

    @cached_property
    def distilled(self) -> DistilledSet:
        """A distilled set of two images of each class, with hard labels if the evaluator takes them."""
        kinds = self.component().label_kinds
        return self._set("hard" if "hard" in kinds else kinds[0])

    @cached_property
    def scored(self) -> list[StudentRecord]:
        """The records of three students trained on the set."""
        return list(self.evaluated(_STUDENTS))

    @cached_property
    def artifacts(self) -> dict[int, Artifact]:
        """The artifacts of these students."""
        wanted = (student for student in _STUDENTS if self.component().artifact(student))
        return {student: self._make(student, self.distilled, 0) for student in wanted}

    @cached_property
    def _real_networks(self) -> dict[tuple[str, str, int], Artifact]:
        """The networks on the real data, by architecture, identity and seed."""
        return {}

    def evaluated(
        self, students: Sequence[int], distilled: DistilledSet | None = None, seed: int = 0
    ) -> list[StudentRecord]:
        """Train students and return their records."""
        if distilled is None and seed == 0:
            artifacts = {student: self.artifacts[student] for student in students if student in self.artifacts}
        else:
            wanted = (student for student in students if self.component().artifact(student))
            artifacts = {student: self._make(student, distilled or self.distilled, seed) for student in wanted}
        streams, chosen = Streams(seed), distilled or self.distilled
        return list(self.component().evaluate(chosen, self.problem, self._architecture(), students, artifacts, streams))

    def _set(self, kind: LabelKind) -> DistilledSet:
        """Return a set with labels of a kind, and with a schedule if the evaluator needs one."""
        return small_set(self.problem, 2, step_size=0.01, kind=kind, scheduled=self.component().needs_schedule)

    def _evaluated_or_refused(self, distilled: DistilledSet) -> None:
        try:
            (record,) = self.evaluated([0], distilled)
        except DDBenchError as error:
            require("\n" not in str(error), f"the error has more than one line: {error}")
        else:
            require(0 <= record.accuracy <= 1, f"the accuracy {record.accuracy} is not a fraction")

    def _check_refused(self, kind: LabelKind | None, *, has_schedule: bool) -> None:
        try:
            check_takes(self.component(), kind, has_schedule=has_schedule, sets="this set")
        except UsageError as error:
            require("\n" not in str(error), f"the refusal has more than one line: {error}")
        else:
            raise AssertionError(f"sets with {kind} labels, schedule {has_schedule}, are not refused")

    def _make(self, student: int, distilled: DistilledSet, seed: int) -> Artifact:
        evaluator = self.component()
        request = evaluator.artifact(student)
        require(request is not None, f"student {student} needs nothing, though others do")
        assert request is not None, "said above"
        if isinstance(request, RealNetwork):
            # Trained once, as in a run, where students may share it.
            name = (request.architecture, repr(request.identity), seed)
            if name not in self._real_networks:
                self._real_networks[name] = real_network(request, self.problem, architecture, seed)
            return self._real_networks[name]
        built = architecture(request.architecture).make() if request.architecture else None
        artifact = evaluator.make_artifact(request, distilled, self.problem, built, Streams(seed))
        require(isinstance(artifact, Artifact), f"make_artifact() gives {type(artifact).__name__}")
        return Artifact(artifact.tensors, artifact.scalars, built)

    def _architecture(self) -> Any:  # noqa: ANN401
        is_suited = self._unsuited(self.student) is None
        return architecture(self.student if is_suited else _SMALL_CONVNET).make()

    def _unsuited(self, student: str) -> str | None:
        request = self.component().artifact(0)
        needed = architecture(request.architecture).make() if request and request.architecture else None
        return self.component().unsuited(self.problem, architecture(student).make(), needed)

    def _same(self, first: StudentRecord, second: StudentRecord) -> bool:
        # As text, because NaN differs from itself; a collapsed student's loss is NaN both times.
        ones, others = ({name: repr(value) for name, value in asdict(record).items()} for record in (first, second))
        return all(ones[name] == others[name] for name in ones if name not in _OF_TIME)
