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
from harness.learning.networks import alignment
from harness.learning.networks import live as live_networks
from harness.learning.networks.alignment import Alignment
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.networks.probes import Prober
from harness.learning.networks.recorded_pool import RecordedPool
from harness.plugins.returns import call_of, scalars, tensors, usable_set
from harness.types.distilled import DistilledSet
from harness.types.method import Method, check_declared
from harness.types.pool import COSINE, MAIN_PROBABILITY, Pool
from harness.types.problem import Problem
from harness.types.seeds import Streams, global_rng_from

DIVERGED_ABOVE = 1e3
"""Largest magnitude of a learned value; beyond it, or if a value is not finite, the trajectory has diverged."""
BLOWN_UP_ABOVE = 8.0
"""Factor by which a set's largest value exceeds the real data's when it is marked as blown up; it goes on."""
RESERVED = {live_networks.PREFIX: "those of live networks", alignment.PREFIX: "that of the main's image gradient"}
"""What names in a trajectory's state begin with that are not a method's, and what they are."""

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
        probes: the probes of an adaptive pool, each with its ``iteration``, the ``accuracies`` of the students by
            architecture, and ``seconds``; the last one may lack some students.
        schedule: if the pool is probed, its distributions, one entry per change; ``since`` is the first iteration of
            each, ``names`` and ``probabilities`` are as the pool lists them.
        compute: compute modes of the steps, one entry per change; ``since`` is the first iteration in that mode.
    """

    iterations: int = 0
    diverged_at: int | None = None
    seconds: float = 0.0
    scalars: dict[str, list[float]] = field(default_factory=dict)
    architectures: list[str] = field(default_factory=list)
    draws: list[list[int]] = field(default_factory=list)
    pool: dict[str, Any] = field(default_factory=dict)
    probes: list[dict[str, Any]] = field(default_factory=list)
    schedule: list[dict[str, Any]] = field(default_factory=list)
    compute: list[dict[str, Any]] = field(default_factory=list)

    def note(self, drawn: list[str], scalars: Mapping[str, float]) -> None:
        """Add what one iteration drew and logged."""
        for name in drawn:
            if name not in self.architectures:
                self.architectures.append(name)
        self.draws.append([self.architectures.index(name) for name in drawn])
        for name, value in scalars.items():
            self.scalars.setdefault(name, []).append(float(value))

    def as_json(self) -> dict[str, Any]:
        """Return the history as records hold it: without probes and schedule, unless the pool is probed."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value or name not in ("probes", "schedule")}

    def probe_at(self, iteration: int) -> dict[str, Any]:
        """Return the entry of the probe at an iteration, which is begun if there is none."""
        if not self.probes or self.probes[-1]["iteration"] != iteration:
            self.probes.append({"iteration": iteration, "accuracies": {}, "seconds": 0.0})
        return self.probes[-1]

    def note_distribution(self, iteration: int, distribution: Mapping[str, float]) -> None:
        """Add a distribution to the schedule if it differs from that of the iteration before."""
        entry = {"names": list(distribution), "probabilities": list(distribution.values())}
        if not self.schedule or {**self.schedule[-1], **entry} != self.schedule[-1]:
            self.schedule.append({"since": iteration, **entry})

    @property
    def probe_seconds(self) -> float:
        """Seconds that all probes took."""
        return float(sum(entry["seconds"] for entry in self.probes))

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
        prober: makes the probes that the pool asks for; None if it asks for none, or if they are not made here.
    """

    def __init__(
        self,
        method: Method[Any],
        networks: PoolNetworks,
        problem: Problem,
        streams: Streams,
        prober: Prober | None = None,
    ) -> None:
        self.method, self.networks, self.problem, self.streams = method, networks, problem, streams
        self.prober, self.history = prober, History()
        self._alignment = self._new_alignment()

    def _new_alignment(self) -> Alignment | None:
        """Return what measures the cosines of image gradients if the pool watches them; otherwise None."""
        pool = self.networks.pool
        if pool is None or not pool.watches_gradients:
            return None
        watch = self.method.watch_images()
        if watch is None:
            raise PluginError(f"{call_of(self.method, 'watch_images')} gives nothing, but the pool watches gradients")
        return Alignment(watch, self.networks.main)

    def state(self) -> tuple[dict[str, Tensor], History]:
        """Return copies of the tensors and the history, from which `restore` continues bit for bit."""
        self.history.pool = self.networks.pool_state()
        copies = {name: tensor.detach().cpu().clone() for name, tensor in self._state().items()}
        of_alignment = self._alignment.state() if self._alignment else {}
        return {**copies, **self.networks.live_sets.state(), **of_alignment}, copy.deepcopy(self.history)

    def restore(self, state: Mapping[str, Tensor], history: History) -> None:
        """Continue from what `state` returned."""
        of_method = {name: tensor for name, tensor in state.items() if not name.startswith(tuple(RESERVED))}
        self.method.restore({name: tensor.to(self.problem.device) for name, tensor in of_method.items()})
        live = {name: tensor for name, tensor in state.items() if name.startswith(live_networks.PREFIX)}
        self.networks.live_sets.restore(live)
        if self._alignment:
            self._alignment.restore(state, self.problem.device)
        self.history = copy.deepcopy(history)
        self.networks.restore_pool(self.history.pool)

    @property
    def can_be_followed(self) -> bool:
        """Whether other processes can take the same steps: they have neither artifacts, nor what probes have shown."""
        pool = self.networks.pool
        draws_alike = pool is None or type(pool).starts_from is Pool.starts_from
        probes = self.prober is not None or isinstance(pool, RecordedPool)
        return self.method.spreads_classes and draws_alike and not probes

    def mode_changes(self) -> list[str]:
        """Return how the compute mode of the next step differs from the last one's, such as ``threads 2 -> 1``."""
        before = self.history.compute[-1] if self.history.compute else {}
        changed = {name: value for name, value in self._mode().items() if before.get(name, value) != value}
        return [f"{name} {before[name]} -> {value}" for name, value in changed.items()]

    def advance(
        self,
        iterations: int,
        on_step: OnStep | None = None,
        on_probe: Callable[[], None] | None = None,
        before_step: Callable[[], None] | None = None,
    ) -> DistilledSet:
        """Take steps until exactly ``iterations`` updates are done, or the trajectory has diverged.

        Args:
            iterations: number of updates since the start of the trajectory.
            on_step: called after each step; None for nothing.
            on_probe: called after each student of a probe; None for nothing.
            before_step: called before each step; None for nothing.

        Returns:
            The distilled set after these updates; after a divergence, the last one that was in range.

        Raises:
            PluginError: the method returns anything but a set of its problem that can be read again.
        """
        while self.history.iterations < iterations and self.history.diverged_at is None:
            self._probe_if_due(self.history.iterations, on_probe)
            if before_step:
                before_step()
            logged = self.iterate()
            if on_step:
                on_step(self.history.iterations, logged)
        return self._distilled()

    def _distilled(self) -> DistilledSet:
        what = call_of(self.method, "distilled")
        distilled = usable_set(self.method.distilled(), self.problem, what)
        check_declared(distilled, self.method, what)
        return distilled

    def _probe_if_due(self, iteration: int, on_probe: Callable[[], None] | None) -> None:
        """Make the probe that the pool asks for before an iteration, as far as it is not done yet."""
        pool = self.networks.pool
        if self.prober is None or pool is None or not pool.probes_at(iteration):
            return
        entry = self.history.probe_at(iteration)
        accuracies = entry["accuracies"]
        if self.prober.is_whole(accuracies):
            return
        started = time.perf_counter()
        for architecture, student in self.prober.measure(self._distilled(), accuracies):
            accuracies.setdefault(architecture, []).append(student.accuracy)
            entry["seconds"] += time.perf_counter() - started
            started = time.perf_counter()
            # Before anybody saves the state: a whole probe is one that the pool has heard of.
            if self.prober.is_whole(accuracies):
                self.networks.probed(self.prober.result(iteration, accuracies))
            if on_probe:
                on_probe()

    def status(self, distilled: DistilledSet) -> str:
        """Return ``done``, ``blown up`` or ``diverged`` for the set that `advance` returned."""
        if self.history.diverged_at is not None:
            return "diverged"
        blown_up = distilled.statistics()["largest"] > BLOWN_UP_ABOVE * self.problem.real_extreme
        return "blown up" if blown_up else "done"

    def _state(self) -> dict[str, Tensor]:
        what = call_of(self.method, "state")
        state = tensors(self.method.state(), what)
        if taken := [name for name in state if name.startswith(tuple(RESERVED))]:
            prefix = next(prefix for prefix in RESERVED if taken[0].startswith(prefix))
            raise PluginError(f"{what}: {taken[0]!r}: names that begin with {prefix!r} are {RESERVED[prefix]}")
        return state

    def _mode(self) -> dict[str, Any]:
        mode, group = dataclasses.asdict(Compute.of(self.problem.device)), joined_group()
        # On a CPU, each class has the same bits whichever process takes it.
        if group and self.can_be_followed and self.problem.device.type != "cpu":
            mode["device"] = f"{mode['device']} x{group.size}"
        return mode

    def iterate(self) -> Mapping[str, float]:
        """Take one step, and return what it logged; after a divergence, restore the last state in range."""
        iteration = self.history.iterations
        before = {name: tensor.detach().clone() for name, tensor in self._state().items()}
        started = time.perf_counter()
        self.networks.begin(iteration)
        main_probability = self.networks.main_probability()
        if self._alignment:
            self._alignment.begin()
        # Libraries may draw from the process-wide generators. Seeded by the iteration, they draw the same whatever ran
        # before in this process: otherwise a resumed trajectory would differ.
        library = self.streams.generator("library", iteration)
        with global_rng_from(library), float32_products(self.method.task.precision):
            answer = self.method.step(iteration, self.networks)
        logged = self._with_cosine(scalars(answer, call_of(self.method, "step")))
        self.history.seconds += time.perf_counter() - started
        if self.mode_changes() or not self.history.compute:
            self.history.compute.append({"since": iteration, **self._mode()})
        self.history.iterations += 1
        if self.prober:
            self.history.note_distribution(iteration, self.networks.distribution(iteration))
        self.networks.observe(logged)
        if main_probability is not None:
            logged = {**logged, MAIN_PROBABILITY: main_probability}
        self.history.note(self.networks.drawn, logged)
        learned = tensors(self.method.learned(), call_of(self.method, "learned"))
        if not all(_in_range(tensor) for tensor in learned.values()):
            self.history.diverged_at = self.history.iterations
            # Back to the last set in range. The step has changed the set in place, so it was copied beforehand.
            self.method.restore(before)
            # No step follows that would need them, and they may hold values that are not finite.
            self.networks.live_sets.restore({})
        return logged

    def _with_cosine(self, logged: Mapping[str, float]) -> Mapping[str, float]:
        """Return what a step logged, with the cosine of its image gradient if the pool watches gradients."""
        if self._alignment is None:
            return logged
        cosine = self._alignment.end(self.networks.drawn)
        if cosine is None:
            raise PluginError(f"{call_of(self.method, 'step')} passed no gradient on to what watch_images() gave")
        return {**logged, COSINE: cosine}


def _in_range(tensor: Tensor) -> bool:
    # NaN fails the comparison, too.
    return bool((tensor.detach().abs() <= DIVERGED_ABOVE).all()) if tensor.numel() else True
