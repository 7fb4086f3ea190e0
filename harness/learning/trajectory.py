"""One distillation in progress: the outer loop around a method's step."""

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from harness.compute.machine import Compute
from harness.compute.precision import float32_products
from harness.learning.pool_networks import PoolNetworks
from harness.plugins.returns import call_of, scalars, tensors, usable_set
from harness.types.distilled import DistilledSet
from harness.types.method import Method
from harness.types.problem import Problem
from harness.types.seeds import Streams, global_rng_from

DIVERGED_ABOVE = 1e3
"""A learned value beyond this ends a trajectory, as one that is not finite does."""
BLOWN_UP_ABOVE = 8.0
"""A set whose largest value exceeds the real data's by this factor is flagged; it goes on."""

OnStep = Callable[[int, Mapping[str, float]], None]


@dataclass
class History:
    """What happened so far, as JSON: part of a record, and of what resuming needs.

    Attributes:
        iterations: updates done.
        diverged_at: the update that left the finite range, if any; no update follows it.
        seconds: spent in steps, over all processes that had a part in it.
        scalars: by name, what each step logged.
        architectures: names of the architectures drawn; ``draws`` holds, for each iteration, indices into it.
        pool: the state of an adaptive pool.
        compute: the compute modes of the steps, one entry a change; ``since`` is the first iteration in that mode.
    """

    iterations: int = 0
    diverged_at: int | None = None
    seconds: float = 0.0
    scalars: dict[str, list[float]] = field(default_factory=dict)
    architectures: list[str] = field(default_factory=list)
    draws: list[list[int]] = field(default_factory=list)
    pool: dict[str, Any] = field(default_factory=dict)
    compute: list[dict[str, Any]] = field(default_factory=list)

    def note(self, drawn: list[str], scalars: Mapping[str, float]) -> None:
        """Add what one iteration drew and logged."""
        for name in drawn:
            if name not in self.architectures:
                self.architectures.append(name)
        self.draws.append([self.architectures.index(name) for name in drawn])
        for name, value in scalars.items():
            self.scalars.setdefault(name, []).append(float(value))

    def realised_mix(self) -> dict[str, int]:
        """How often each architecture was drawn."""
        flat = [index for draws in self.draws for index in draws]
        return {name: flat.count(index) for index, name in enumerate(self.architectures)}


class Trajectory:
    """Runs a method's steps one by one, watches that they stay finite, and owns all state that decides the rest."""

    def __init__(self, method: Method[Any], networks: PoolNetworks, problem: Problem, streams: Streams) -> None:
        self.method, self.networks, self.problem, self.streams = method, networks, problem, streams
        self.history = History()

    def state(self) -> tuple[dict[str, Tensor], History]:
        """Tensors and history from which `restore` goes on bit for bit: a copy, which later steps leave alone."""
        self.history.pool = self.networks.pool_state()
        copies = {name: tensor.detach().cpu().clone() for name, tensor in self._state().items()}
        return copies, copy.deepcopy(self.history)

    def restore(self, state: Mapping[str, Tensor], history: History) -> None:
        """Take up what `state` gave."""
        self.method.restore({name: tensor.to(self.problem.device) for name, tensor in state.items()})
        self.history = copy.deepcopy(history)
        self.networks.restore_pool(self.history.pool)

    def mode_changes(self) -> list[str]:
        """In what the steps to come are computed otherwise than those before, as ``threads 2 -> 1``."""
        before = self.history.compute[-1] if self.history.compute else {}
        changed = {name: value for name, value in self._mode().items() if before.get(name, value) != value}
        return [f"{name} {before[name]} -> {value}" for name, value in changed.items()]

    def advance(self, iterations: int, on_step: OnStep | None = None) -> DistilledSet:
        """Go on until exactly ``iterations`` updates are done, or the trajectory has diverged.

        Returns:
            The distilled set after these updates; of a diverged trajectory the last one that was in range.

        Raises:
            PluginError: the method hands over something else than a set of its problem that can be read again.
        """
        while self.history.iterations < iterations and self.history.diverged_at is None:
            logged = self._iterate(self.history.iterations)
            if on_step:
                on_step(self.history.iterations, logged)
        return usable_set(self.method.distilled(), self.problem, call_of(self.method, "distilled"))

    def status(self, distilled: DistilledSet) -> str:
        """``done``, ``blown up`` or ``diverged``."""
        if self.history.diverged_at is not None:
            return "diverged"
        blown_up = distilled.statistics()["largest"] > BLOWN_UP_ABOVE * self.problem.real_extreme
        return "blown up" if blown_up else "done"

    def _state(self) -> dict[str, Tensor]:
        return tensors(self.method.state(), call_of(self.method, "state"))

    def _mode(self) -> dict[str, Any]:
        return dataclasses.asdict(Compute.of(self.problem.device))

    def _iterate(self, iteration: int) -> Mapping[str, float]:
        before = {name: tensor.detach().clone() for name, tensor in self._state().items()}
        started = time.perf_counter()
        self.networks.begin(iteration)
        library = self.streams.generator("library", iteration)
        with global_rng_from(library), float32_products(self.method.task.precision):
            answer = self.method.step(iteration, self.networks)
        logged = scalars(answer, call_of(self.method, "step"))
        self.history.seconds += time.perf_counter() - started
        if self.mode_changes() or not self.history.compute:
            self.history.compute.append({"since": iteration, **self._mode()})
        self.history.iterations += 1
        self.history.note(self.networks.drawn, logged)
        self.networks.observe(logged)
        learned = tensors(self.method.learned(), call_of(self.method, "learned"))
        if not all(_in_range(tensor) for tensor in learned.values()):
            self.history.diverged_at = self.history.iterations
            self.method.restore(before)
        return logged


def _in_range(tensor: Tensor) -> bool:
    return bool((tensor.detach().abs() <= DIVERGED_ABOVE).all()) if tensor.numel() else True
