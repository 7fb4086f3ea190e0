"""The contract of metrics."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from harness.errors import DDBenchError
from harness.learning.networks.measuring import checked_parts
from harness.testing.contract import Contract, architecture, require
from harness.testing.small import global_generators, small_problem
from harness.types.network import Network
from harness.types.problem import Problem
from harness.types.seeds import Streams
from harness.types.students.metric import Metric

SHAPES = ((1, 16, 16), (3, 16, 16), (2, 16, 16))
"""Shapes of images on which it is measured: grey, colour, and neither."""
_STUDENT = "convnet[width=4,depth=2]"
_STEPS = 20


class MetricContract(Contract):
    """The obligations of every metric, on networks of three classes that were trained for a few steps."""

    kind = "metric"

    def test_numbers_by_part(self) -> None:
        """It gives numbers by part, one of them as a whole, with the same parts for every student."""
        first, second = self.measured(self.problem), self.measured(self.problem, seed=1)
        require(first.keys() == second.keys(), f"students have {sorted(first)} and {sorted(second)}")
        require(all(map(math.isfinite, first.values())), f"of a network with finite outputs it gives {first}")

    def test_same_seed_same_numbers(self) -> None:
        """The same seed gives the same numbers, whatever the global generators' state."""
        with global_generators(1):
            first = self.measured(self.problem)
        with global_generators(2):
            second = self.measured(self.problem)
        require(first == second, f"again it is {second}, before {first}")

    def test_the_student_is_left_alone(self) -> None:
        """It changes no weight, and leaves no gradient at one."""
        network = self._trained(self.problem)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.component().measure(network.eval(), self.problem, Streams(0))
        same = all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        require(same, "it changes the network's weights or statistics: measure in evaluation mode")

    def test_images_are_left_alone(self) -> None:
        """It changes no image of the problem."""
        before = self.problem.score.images.clone(), self.problem.train.images.clone()
        self.measured(self.problem)
        require(torch.equal(before[0], self.problem.score.images), "it changes the scored images: copy them")
        require(torch.equal(before[1], self.problem.train.images), "it changes the training images: copy them")

    def test_shapes(self) -> None:
        """It is measured on grey and colour images and others, or refuses them in one line before any work."""
        for shape in SHAPES:
            problem = small_problem(shape=shape)
            try:
                self.component().check(problem)
            except DDBenchError as error:
                require("\n" not in str(error), f"the refusal has more than one line: {error}")
            else:
                self.measured(problem)

    def test_lost_students(self) -> None:
        """Of a student whose weights are NaN it gives numbers, which may be NaN."""
        network = self._trained(self.problem)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(math.nan)
        self._checked(self.component().measure(network.eval(), self.problem, Streams(0)))

    def test_work_is_a_number(self) -> None:
        """The work of a student, if it is known, is not negative."""
        work = self.component().work(self.problem)
        require(work is None or (math.isfinite(work) and work >= 0), f"work() is {work!r}")

    # --- what the checks are made of ---

    def component(self) -> Metric[Any]:
        """Return the metric."""
        metric: Metric[Any] = self.resolved().make()
        return metric

    @cached_property
    def problem(self) -> Problem:
        """A problem of three classes of grey images."""
        return small_problem()

    def measured(self, problem: Problem, seed: int = 0) -> Mapping[str, float]:
        """Return what it measures of a network that was trained for a few steps."""
        return self._checked(self.component().measure(self._trained(problem, seed).eval(), problem, Streams(0)))

    def _checked(self, parts: object) -> dict[str, float]:
        return checked_parts(parts, "measure()")

    def _trained(self, problem: Problem, seed: int = 0) -> Network:
        generator = torch.Generator().manual_seed(seed)
        network = architecture(_STUDENT).make().build(problem.shape, len(problem.classes), generator)
        optimizer = torch.optim.SGD(network.parameters(), 0.05)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(problem.train_inputs), problem.train.labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return network
