"""The contract of distillation methods."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar
from unittest import SkipTest

import torch
from torch import Tensor

from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import History, Trajectory
from harness.testing.awkward import BATCH_NORM, DROPOUT, WATCHED, Reordered, WatchedConvNet, resolve
from harness.testing.contract import Contract, finite, require, same_bits
from harness.testing.fresh import in_fresh_process
from harness.testing.small import ArtifactCache, global_generators, small_problem, supply
from harness.types.artifact import Artifact
from harness.types.distilled import DistilledSet
from harness.types.formats.own import tensors_of
from harness.types.method import Method, Task
from harness.types.pool import Pool
from harness.types.problem import Problem
from harness.types.seeds import Streams

SMALL_CONVNET = "convnet[width=4,depth=2]"
OTHER_ARCHITECTURE = "mlp[width=8]"
OTHER_IMAGES = (3, 32, 32)
_MANY = 80
"""Number of real images of a class: more than pass through a network at once."""
_NO_EFFECT = 0.005
"""Upper limit of the relative change of a step by rounding alone."""


class EqualArchitectures(Pool[Any]):
    """A pool that draws some architectures with equal probability, whatever pools are installed."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the same probability for each architecture."""
        return dict.fromkeys(self.names, 1 / len(self.names))


@dataclass(frozen=True)
class _Steps:
    """Some steps of a distillation.

    Attributes:
        trajectory: after the last step.
        first: the set before any step; None if the method chooses its images in its first.
        sets: the set after each step.
        learned_before: copies of what the method learns, from before the first step.
    """

    trajectory: Trajectory
    first: DistilledSet | None
    sets: Sequence[DistilledSet]
    learned_before: Mapping[str, Tensor]


class MethodContract(Contract):
    """The obligations of every method, on a problem of three classes of twelve images.

    Attributes:
        steps: number of iterations in checks that need several.
        ipc: images per class.
        draws: the architecture of the networks that the method receives.
    """

    kind = "method"
    steps: ClassVar[int] = 2
    ipc: ClassVar[int] = 1
    draws: ClassVar[str] = SMALL_CONVNET

    def test_begins_with_a_whole_set(self) -> None:
        """Before any step there is a set with ipc images of each class, with the problem's preprocessing."""
        if not self.cls.iterates:
            raise SkipTest("it chooses its images in its first step")
        for ipc in (1, 3):
            self._check_set(self.started(ipc=ipc).advance(0), ipc=ipc)

    def test_a_step_changes_the_images(self) -> None:
        """Every step changes the images, and leaves ipc images of each class."""
        before = self._some_steps.first
        for iteration, after in enumerate(self._some_steps.sets):
            self._check_set(after)
            same = before is not None and same_bits(tensors_of(before), tensors_of(after))
            require(not same, f"step {iteration} leaves all images as they were")
            before = after

    def test_gradients_are_finite(self) -> None:
        """Learned tensors, their gradients and logged scalars stay finite."""
        trajectory = self._some_steps.trajectory
        learned = trajectory.method.learned()
        require(finite(learned), f"not finite: {', '.join(learned)}")
        gradients = {name: tensor.grad for name, tensor in learned.items() if tensor.grad is not None}
        require(finite(gradients), f"gradients that are not finite: {', '.join(gradients)}")
        for name, values in trajectory.history.scalars.items():
            require(all(map(math.isfinite, values)), f"it logs {name} = {values}")

    def test_learned_images_are_the_sets(self) -> None:
        """``learned()`` holds the very tensors that steps change, so that the harness can watch them."""
        before, now = self._some_steps.learned_before, self._some_steps.trajectory.method.learned()
        if not before:
            raise SkipTest("it learns no tensors")
        require(now.keys() == before.keys(), f"learned() has other names after a step: {', '.join(now)}")
        require(not same_bits(before, now), "no learned tensor is changed by a step")

    def test_same_seed_same_numbers(self) -> None:
        """The same seed gives the same bits, whatever the global generators' state."""
        first = self._some_steps.sets[-1]
        with global_generators(2):
            second = self.finished()
        require(self._same(first, second), "with the global generators in another state, the set is another")

    def test_distillations_are_independent(self) -> None:
        """Another distillation starts from other images or draws others, unless nothing is drawn at all."""
        first, second = self._some_steps.sets[-1], self.finished(distillation=1)
        if self._same(first, second):
            raise SkipTest("it gives the same set in every distillation: its numbers do not depend on a seed")

    def test_state_round_trips(self) -> None:
        """A state that is restored into a new method continues with the same bits."""
        (whole, wanted), first, second = self._twice_as_many_steps, self.started(), self.started()
        first.advance(self.length)
        tensors, history = first.state()
        # A method may return its own buffers as its state; later steps must not reach the copy that is compared.
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        second.restore(tensors, history)
        require(same_bits(second.state()[0], copies), "state() after restore() is not what was restored")
        got = second.advance(2 * self.steps if self.cls.iterates else 1)
        require(self._same(wanted, got), "restored, it goes on to other images")
        require(whole.history.scalars == second.history.scalars, "restored, it logs other scalars")
        require(same_bits(tensors, copies), "what was restored from is changed by later steps: copy it in restore()")

    def test_state_is_all_there_is(self) -> None:
        """A state that is restored in a fresh process continues with the same bits: ``state()`` holds everything."""
        (whole, wanted), stopped = self._twice_as_many_steps, self._some_steps.trajectory
        asked = (self.name, self.ipc, self.usual_draws, self.problem)
        got, history = in_fresh_process(_gone_on, *asked, *stopped.state(), whole.history.iterations)
        elsewhere = "what decides its steps is kept elsewhere than in state(): in a global or a cache of its module"
        require(self._same(wanted, got), f"restored in a fresh process, it goes on to other images; {elsewhere}")
        require(whole.history.scalars == history.scalars, f"there it logs other scalars; {elsewhere}")

    def test_live_networks_go_on(self) -> None:
        """With networks that live across iterations, it goes on with the same bits from every iteration."""
        # Of two architectures, so that replacements change the shapes of what is stored.
        drawn = tuple(dict.fromkeys((self.usual_draws, OTHER_ARCHITECTURE)))
        whole = self.started(draws=drawn)
        states = []
        for iteration in range(1, 3 * self.steps + 1 if self.cls.iterates else 2):
            whole.advance(iteration)
            states.append(whole.state())
            if iteration == 1 and not whole.networks.live_sets.state():
                raise SkipTest("it asks for no networks that live across iterations")
        for tensors, history in states:
            resumed = self.started(draws=drawn)
            resumed.restore(tensors, history)
            resumed.advance(whole.history.iterations)
            fault = f"restored after iteration {history.iterations}, it goes on to other images or networks"
            require(same_bits(resumed.state()[0], states[-1][0]), f"{fault}: ask for networks.live() in every step")

    def test_sets_are_copies(self) -> None:
        """A set that was returned is not changed by later steps, and needs no gradient."""
        trajectory = self.started()
        early = trajectory.advance(self.length)
        copies = {name: tensor.clone() for name, tensor in tensors_of(early).items()}
        require(not early.images.requires_grad, "its images require a gradient: detach them")
        if self.cls.iterates:
            trajectory.advance(self.length + 1)
        require(same_bits(copies, tensors_of(early)), "a later step changes it: give a copy")

    def test_networks_as_declared(self) -> None:
        """It draws networks if it declares so (``uses_pool``), and none if not."""
        drawn = sum(map(len, self._some_steps.trajectory.history.draws))
        if self.cls.uses_pool:
            require(drawn > 0, "it draws no network: declare uses_pool = False")

    def test_total_is_not_used(self) -> None:
        """Its steps do not depend on how many will follow, or it declares so (``uses_total``)."""
        if self.cls.uses_total:
            raise SkipTest("it says that its schedule depends on the total of iterations")
        first, second = self._some_steps.sets[-1], self.finished(total=self.length)
        require(self._same(first, second), "with a longer run ahead its steps differ: declare uses_total = True")

    def test_needs_are_known_ahead(self) -> None:
        """Its requests are a function of iteration and architecture alone, and it makes all of them."""
        first, second, drawn = (
            self.started().method,
            self.started().method,
            self.usual_draws if self.cls.uses_pool else None,
        )
        # Asked for in both directions: an answer that depends on the calls before it would differ.
        asked = [list(first.needs(iteration, drawn)) for iteration in range(self.steps)]
        again = [list(second.needs(iteration, drawn)) for iteration in reversed(range(self.steps))][::-1]
        require(asked == again, "asked in another order, it needs something else")
        if not any(asked):
            raise SkipTest("it needs nothing made before")
        give = supply(first, self.problem, resolve)
        for iteration in range(self.steps):
            for artifact in give(iteration, drawn):
                require(isinstance(artifact, Artifact), f"make_artifact() gives {type(artifact).__name__}")
                require(finite(artifact.tensors), "an artifact is not finite")

    def test_batch_norm(self) -> None:
        """It supports networks with batch norm: finite tensors, and the same bits by the same seed, resumed or not."""
        self._goes_with(BATCH_NORM)

    def test_dropout(self) -> None:
        """It supports networks with dropout: finite tensors, and the same bits by the same seed, resumed or not."""
        self._goes_with(DROPOUT)

    def test_batch_statistics_spoil_no_gradient(self) -> None:
        """The order of real images matters to a step with batch norm no more than to one without.

        It would matter if a batch passed through in slices, each with statistics of its own.
        """
        if not self.cls.uses_pool:
            raise SkipTest("it draws no network")
        if not self.started().method.learned():
            raise SkipTest("it learns no tensors")
        if (of_others := self._effect_of_order(self.usual_draws)) > _NO_EFFECT:
            raise SkipTest("the order of real images matters to it, whatever the network")
        # Without batch norm the order has no effect beyond rounding, so any larger effect comes from statistics of
        # slices.
        effect = self._effect_of_order(BATCH_NORM)
        change = f"in another order of the real images, a step differs by {effect:.1%} with batch norm"
        spoiled = effect > _NO_EFFECT and effect > 10 * of_others
        require(not spoiled, f"{change}: pass a batch in one piece, or use gradient_in_slices() or freeze_statistics()")

    def test_no_class_has_batch_statistics_of_its_own(self) -> None:
        """With batch norm, no gradient of one class alone comes from a pass that batch statistics normalise.

        The statistics of a class would give it away, and those of a pass with others make its gradient depend on them.
        """
        if not self.cls.uses_pool:
            raise SkipTest("it draws no network")
        WatchedConvNet.spoiled.clear()
        # Several images of a class: a batch of one or two may be of one class by chance.
        self.started(small_problem(train=_MANY), ipc=8, draws=WATCHED).advance(self.length)
        remedy = "freeze_statistics() fixes batch norm by real images of all classes before gradients are matched"
        require(not WatchedConvNet.spoiled, f"{''.join(WatchedConvNet.spoiled[:1])}: {remedy}")

    def test_colour_images(self) -> None:
        """It takes images of another shape: colour images of 32x32, one per class."""
        problem = small_problem(shape=OTHER_IMAGES, train=4)
        self._check_set(self.started(problem, ipc=1).advance(1), problem, ipc=1)

    def test_work_is_a_number(self) -> None:
        """The work of an iteration, if it is known, is not negative."""
        work = self.started().method.work()
        require(work is None or (math.isfinite(work) and work >= 0), f"work() is {work!r}")

    # --- what the checks are made of ---

    @property
    def cls(self) -> type[Method[Any]]:
        """The method's class."""
        return self.resolved().cls

    @property
    def usual_draws(self) -> str:
        """The architecture of the networks that the method receives in most checks."""
        return self.cls.check_draws or self.draws

    @property
    def length(self) -> int:
        """The number of steps in most checks: one for a method that does not iterate."""
        return self.steps if self.cls.iterates else 1

    @cached_property
    def _artifacts(self) -> ArtifactCache:
        """The artifacts that distillations share, made once for all checks."""
        return {}

    @cached_property
    def _some_steps(self) -> "_Steps":
        """A distillation of some steps, computed once for all checks that only look at one."""
        with global_generators(1):
            trajectory = self.started()
            first = trajectory.advance(0) if self.cls.iterates else None
            learned = {name: tensor.detach().clone() for name, tensor in trajectory.method.learned().items()}
            sets = [trajectory.advance(iteration + 1) for iteration in range(self.length)]
        return _Steps(trajectory, first, sets, learned)

    @cached_property
    def _twice_as_many_steps(self) -> tuple[Trajectory, DistilledSet]:
        """A distillation that was never stopped, beside which others are restored, and its set."""
        trajectory = self.started()
        return trajectory, trajectory.advance(2 * self.steps if self.cls.iterates else 1)

    @cached_property
    def problem(self) -> Problem:
        """A problem of three classes, with twelve grey images of 16x16 each."""
        return small_problem()

    def started(
        self,
        problem: Problem | None = None,
        *,
        ipc: int | None = None,
        distillation: int = 0,
        total: int = 100,
        draws: str | Sequence[str] | None = None,
    ) -> Trajectory:
        """Return a distillation about to begin."""
        problem, streams = problem or self.problem, Streams(0, distillation)
        ipc = (ipc or self.ipc) if self.cls.uses_ipc else 0
        method: Method[Any] = self.resolved().make(Task(problem, ipc, streams, total))
        names = [draws] if isinstance(draws, str) else draws or [self.usual_draws]
        for name in names if self.cls.uses_pool else ():
            built = resolve(name).make().build(problem.shape, len(problem.classes), torch.Generator())
            if reason := method.refusal(built):
                raise SkipTest(f"{name} {reason}")
        pool = EqualArchitectures(*names) if self.cls.uses_pool else None
        give = supply(method, problem, resolve, artifacts=self._artifacts)
        networks = PoolNetworks(pool, resolve, problem, streams, give)
        return Trajectory(method, networks, problem, streams)

    def _goes_with(self, draws: str) -> None:
        if not self.cls.uses_pool:
            raise SkipTest("it draws no network")
        first, second, resumed = (self.started(draws=draws) for _ in range(3))
        with global_generators(1):
            early = first.advance(self.length)
            tensors, history = first.state()
            copies, drawn = {name: tensor.clone() for name, tensor in tensors.items()}, deepcopy(history)
            late = first.advance(2 * self.length) if self.cls.iterates else early
        require(finite(first.method.learned()), f"not finite: {', '.join(first.method.learned())}")
        with global_generators(2):
            same = self._same(early, second.advance(self.length))
            require(same, "with the global generators in another state, the set is another")
            resumed.restore(copies, drawn)
            # What decides a step must not lie in a network: those of a pool are drawn afresh.
            again = resumed.advance(2 * self.length if self.cls.iterates else self.length)
            require(self._same(late, again), "restored, it goes on to other images")

    def _effect_of_order(self, draws: str) -> float:
        """Return the relative change of a step when every batch of real images comes in another order."""
        problem, changes = small_problem(train=_MANY), []
        for each in (problem, Reordered.of(problem)):
            trajectory = self.started(each, draws=draws)
            before = {name: tensor.detach().clone() for name, tensor in trajectory.method.learned().items()}
            trajectory.advance(1)
            after = trajectory.method.learned()
            changes.append(torch.cat([(after[name].detach() - before[name]).flatten() for name in before]))
        return float((changes[0] - changes[1]).norm() / changes[0].norm().clamp_min(1e-12))

    def finished(self, *, distillation: int = 0, total: int = 100) -> DistilledSet:
        """Return the set after some steps."""
        return self.started(distillation=distillation, total=total).advance(self.length)

    def _same(self, first: DistilledSet, second: DistilledSet) -> bool:
        # All stored tensors: a factorised set is its codes, and the decoder that they share.
        same = same_bits(tensors_of(first), tensors_of(second)) and first.step_size == second.step_size
        return same and (first.label_kind, first.schedule) == (second.label_kind, second.schedule)

    def _check_set(self, distilled: DistilledSet, problem: Problem | None = None, ipc: int | None = None) -> None:
        problem, ipc = problem or self.problem, ipc or self.ipc
        require(isinstance(distilled, DistilledSet), f"distilled() gives {type(distilled).__name__}")
        images, _ = distilled.training_data()
        require(tuple(images.shape[1:]) == problem.shape, f"images are {tuple(images.shape[1:])}, not {problem.shape}")
        require(images.device.type == "cpu", "the set is not on the CPU: use task.distilled()")
        require(distilled.preprocessing is problem.preprocessing, "its preprocessing is not the problem's")
        require(distilled.classes == problem.classes, "its classes are not the problem's")
        if self.cls.uses_ipc:
            # As they are stored: a packed image counts once, however many are decoded from it.
            self._check_size(distilled.labels, problem, ipc)

    def _check_size(self, labels: Tensor, problem: Problem, ipc: int) -> None:
        count = len(problem.classes)
        require(
            len(labels) == ipc * count, f"{len(labels)} images where {ipc} of each of {count} classes were asked for"
        )
        if not labels.is_floating_point():
            counts = torch.bincount(labels, minlength=count).tolist()
            require(counts == [ipc] * count, f"images of each class are {counts}, not {ipc}")


def _gone_on(
    name: str, ipc: int, draws: str, problem: Problem, tensors: Mapping[str, Tensor], history: History, iterations: int
) -> tuple[DistilledSet, History]:
    """Restore a state in this process and return the set and history of `MethodContract.started` at the end."""
    contract = type("Restored", (MethodContract,), {"name": name, "ipc": ipc, "draws": draws, "problem": problem})()
    trajectory = contract.started()
    trajectory.restore(tensors, history)
    return trajectory.advance(iterations), trajectory.history
