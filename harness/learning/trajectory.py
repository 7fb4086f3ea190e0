"""A distillation in progress: the outer loop around a method's step."""

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from harness.compute.machine import Compute
from harness.compute.precision import float32_products
from harness.compute.process_group import joined_group
from harness.errors import PluginError
from harness.learning.networks.live import PREFIX
from harness.learning.networks.pool_networks import PoolNetworks
from harness.plugins.returns import call_of, scalars, tensors, usable_set
from harness.types.distilled import DistilledSet
from harness.types.method import Method, check_declared
from harness.types.problem import Problem
from harness.types.seeds import Streams, global_rng_from

DIVERGED_ABOVE = 1e3
"""Largest magnitude of a learned value; beyond it, or if a value is not finite, the trajectory has diverged."""
BLOWN_UP_ABOVE = 8.0
"""Factor by which a set's largest value exceeds the real data's when it is marked as blown up; it goes on."""

OnStep = Callable[[int, Mapping[str, float]], None]
"""Called after each step with the number of steps done and what the step logged."""


@dataclass
class History:
    """Holds what happened so far, as JSON: part of a record, and of what resuming needs.

    Attributes:
        iterations: number of updates done.
        diverged_at: number of the update that left the finite range; None if none did. No update follows it.
        seconds: time spent in steps, over all processes that took part.
        scalars: values that the steps logged, by name.
        architectures: names of the architectures drawn, in the order of their first draw.
        draws: for each iteration, indices into ``architectures``.
        pool: state of an adaptive pool.
        compute: compute modes of the steps, one entry per change; ``since`` is the first iteration in that mode.
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
        """Return how often each architecture was drawn."""
        flat = [index for draws in self.draws for index in draws]
        return {name: flat.count(index) for index, name in enumerate(self.architectures)}


class Trajectory:
    """Runs a method's steps one by one, checks that they stay finite, and owns all state that the next steps depend on.

    Args:
        method: the method, at its initial set.
        networks: provides the method with networks.
        problem: provides the real data and the device.
        streams: random streams of this distillation.
    """

    def __init__(self, method: Method[Any], networks: PoolNetworks, problem: Problem, streams: Streams) -> None:
        self.method, self.networks, self.problem, self.streams = method, networks, problem, streams
        self.history = History()

    def state(self) -> tuple[dict[str, Tensor], History]:
        """Return copies of the tensors and the history, from which `restore` continues bit for bit."""
        self.history.pool = self.networks.pool_state()
        copies = {name: tensor.detach().cpu().clone() for name, tensor in self._state().items()}
        return {**copies, **self.networks.live_sets.state()}, copy.deepcopy(self.history)

    def restore(self, state: Mapping[str, Tensor], history: History) -> None:
        """Continue from what `state` returned."""
        is_live = {name: name.startswith(PREFIX) for name in state}
        of_method = {name: tensor for name, tensor in state.items() if not is_live[name]}
        self.method.restore({name: tensor.to(self.problem.device) for name, tensor in of_method.items()})
        self.networks.live_sets.restore({name: tensor for name, tensor in state.items() if is_live[name]})
        self.history = copy.deepcopy(history)
        self.networks.restore_pool(self.history.pool)

    def mode_changes(self) -> list[str]:
        """Return how the compute mode of the next step differs from the last one's, such as ``threads 2 -> 1``."""
        before = self.history.compute[-1] if self.history.compute else {}
        changed = {name: value for name, value in self._mode().items() if before.get(name, value) != value}
        return [f"{name} {before[name]} -> {value}" for name, value in changed.items()]

    def advance(
        self, iterations: int, on_step: OnStep | None = None, before_step: Callable[[], None] | None = None
    ) -> DistilledSet:
        """Take steps until exactly ``iterations`` updates are done, or the trajectory has diverged.

        Args:
            iterations: number of updates since the start of the trajectory.
            on_step: called after each step; None for nothing.
            before_step: called before each step; None for nothing.

        Returns:
            The distilled set after these updates; after a divergence, the last one that was in range.

        Raises:
            PluginError: the method returns anything but a set of its problem that can be read again.
        """
        while self.history.iterations < iterations and self.history.diverged_at is None:
            if before_step:
                before_step()
            logged = self.iterate()
            if on_step:
                on_step(self.history.iterations, logged)
        what = call_of(self.method, "distilled")
        distilled = usable_set(self.method.distilled(), self.problem, what)
        check_declared(distilled, self.method, what)
        return distilled

    def status(self, distilled: DistilledSet) -> str:
        """Return ``done``, ``blown up`` or ``diverged`` for the set that `advance` returned."""
        if self.history.diverged_at is not None:
            return "diverged"
        blown_up = distilled.statistics()["largest"] > BLOWN_UP_ABOVE * self.problem.real_extreme
        return "blown up" if blown_up else "done"

    def _state(self) -> dict[str, Tensor]:
        what = call_of(self.method, "state")
        state = tensors(self.method.state(), what)
        if taken := [name for name in state if name.startswith(PREFIX)]:
            raise PluginError(f"{what}: {taken[0]!r}: names that begin with {PREFIX!r} are those of live networks")
        return state

    def _mode(self) -> dict[str, Any]:
        mode, group = dataclasses.asdict(Compute.of(self.problem.device)), joined_group()
        # On a CPU, each class has the same bits whichever process takes it.
        if group and self.method.spreads_classes and self.problem.device.type != "cpu":
            mode["device"] = f"{mode['device']} x{group.size}"
        return mode

    def iterate(self) -> Mapping[str, float]:
        """Take one step, and return what it logged; after a divergence, restore the last state in range."""
        iteration = self.history.iterations
        before = {name: tensor.detach().clone() for name, tensor in self._state().items()}
        started = time.perf_counter()
        self.networks.begin(iteration)
        # Libraries may draw from the process-wide generators. Seeded by the iteration, they draw the same whatever ran
        # before in this process: otherwise a resumed trajectory would differ.
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
            # Back to the last set in range. The step has changed the set in place, so it was copied beforehand.
            self.method.restore(before)
            # No step follows that would need them, and they may hold values that are not finite.
            self.networks.live_sets.restore({})
        return logged


def _in_range(tensor: Tensor) -> bool:
    # NaN fails the comparison, too.
    return bool((tensor.detach().abs() <= DIVERGED_ABOVE).all()) if tensor.numel() else True
