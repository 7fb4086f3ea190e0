"""The contract of model-pool policies."""

import json
import math
from typing import Any
from unittest import SkipTest

import torch

from harness.learning.networks.lottery import Lottery, mixture
from harness.learning.networks.pool_networks import start_of
from harness.learning.networks.probes import checked_probe
from harness.plugins.discovery import plugins
from harness.plugins.returns import whole_number
from harness.testing.contract import Contract, architecture, finite, require, same_bits
from harness.testing.small import global_generators
from harness.types.pool import COSINE, Pool, Probe, ProbeResult
from harness.types.seeds import Streams

ITERATIONS = (0, 1, 2, 10, 500, 1000, 5000, 100_000)
"""Iterations at which distributions are checked: before, in and after any warm-up."""
_DRAWS = 20
_PROBES = 6
_ODD_SCALARS = (math.nan, math.inf, -math.inf, 0.0, -1.0, 1e308)
_PLANNED = range(2000)
"""Iterations of which a pool that asks for probes has to probe some."""


class PoolContract(Contract):
    """The obligations of every pool."""

    kind = "pool"

    def test_distribution_sums_to_one(self) -> None:
        """Probabilities sum to 1 at every iteration, and all architectures can be loaded."""
        pool = self.component()
        for iteration in ITERATIONS:
            mixture(pool, iteration, architecture)  # raises what is wrong

    def test_distribution_is_a_function(self) -> None:
        """The distribution is a function of options, iteration and observations, and of nothing else."""
        first, second = self.component(), self.component()
        forwards = [dict(first.distribution(iteration)) for iteration in ITERATIONS]
        # The reverse order shows a pool that counts its calls.
        backwards = [dict(second.distribution(iteration)) for iteration in reversed(ITERATIONS)][::-1]
        require(forwards == backwards, "asked in another order, it is another")

    def test_draws_are_seeded(self) -> None:
        """The same seed gives the same draws."""
        first, second = (Lottery(self.component(), architecture, Streams(3)) for _ in range(2))
        draws = [[str(lottery.draw(iteration)) for iteration in range(_DRAWS)] for lottery in (first, second)]
        require(draws[0] == draws[1], f"the draws differ: {draws[0]} and {draws[1]}")

    def test_main_is_an_architecture(self) -> None:
        """The main architecture, if there is one, can be drawn."""
        pool = self.component()
        if pool.main is None:
            raise SkipTest("it has no main architecture")
        main = str(architecture(pool.main))
        drawable = {str(name) for iteration in ITERATIONS for name, _ in mixture(pool, iteration, architecture)}
        # A main architecture that is never drawn would make the table's column of it empty.
        require(main in drawable, f"{main} is never drawn: {', '.join(sorted(drawable))}")

    def test_state_round_trips(self) -> None:
        """Its observations round-trip as JSON, and the distributions with them."""
        pool, again = self.component(), self.component()
        if pool.adapts:
            self._observe(pool)
        state = pool.state()
        again.restore(json.loads(json.dumps(state)))
        require(again.state() == state, f"{state} comes back as {again.state()}")
        distributions = [[dict(each.distribution(iteration)) for iteration in ITERATIONS] for each in (pool, again)]
        require(distributions[0] == distributions[1], "restored, it gives another distribution")

    def test_any_observation_leaves_a_distribution(self) -> None:
        """Whatever it observes, NaN and infinity included, its probabilities sum to 1."""
        pool = self.component()
        if not pool.adapts:
            raise SkipTest("it does not adapt")
        for value in _ODD_SCALARS:
            for name in pool.distribution(ITERATIONS[-1]):
                pool.observe(name, {"loss": value, COSINE: value if abs(value) <= 1 else math.nan})
            for iteration in ITERATIONS:
                mixture(pool, iteration, architecture)

    def test_draws_of_a_step(self) -> None:
        """Each draw of a step has a distribution among the architectures that it lists, and gradients are combined."""
        pool = self.component()
        count = whole_number(pool.together, "together", 1)
        for iteration in ITERATIONS:
            listed = {str(name) for name, _ in mixture(pool, iteration, architecture)}
            for draw in range(count + 1):
                drawn = str(Lottery(pool, architecture, Streams(3)).draw(iteration, draw))
                require(drawn in listed, f"draw {draw} of iteration {iteration} is {drawn}, which it does not list")
        gradients = [torch.full((2, 1, 3, 3), float(number)) for number in range(1, count + 1)]
        combined = pool.combine(gradients)
        require(combined.shape == gradients[0].shape, f"combine() gives a gradient of shape {tuple(combined.shape)}")
        require(finite({"combined": combined}), "combine() gives a gradient that is not finite")

    def test_networks_start_as_asked(self) -> None:
        """What its fresh networks start from is of the architecture drawn, and what it does to them is seeded."""
        pool = self.component()
        for iteration in range(3):
            name = str(Lottery(pool, architecture, Streams(3)).draw(iteration))
            request = start_of(pool, name, iteration, 0)
            again = start_of(self.component(), name, iteration, 0)
            require(request == again, "for the same draw it asks for another network to start from")
        if type(pool).prepare is Pool.prepare:
            return
        weights = []
        for noise in (1, 2):
            network = architecture(name).make().build((1, 32, 32), 3, Streams(3).generator("network", 0))
            with global_generators(noise):
                pool.prepare(network, Streams(3).generator("start", 0))
            weights.append(dict(network.state_dict()))
        require(same_bits(*weights), "the same network and random stream give other weights: draw from the generator")
        require(finite(weights[0]), "prepare() gives weights that are not finite")

    def test_probes_can_be_made(self) -> None:
        """What it asks of probes can be made, before iterations that depend on its options alone."""
        pool, probe = self._probing()
        for name in probe.architectures:
            architecture(name)
        evaluator = plugins().registry.resolve("evaluator", probe.evaluator).make()
        require(evaluator.artifact(0) is None, f"{probe.evaluator} needs an artifact: probes have none")
        require(isinstance(pool.replays, bool), f"replays is {pool.replays!r}, neither True nor False")
        due = [pool.probes_at(iteration) for iteration in _PLANNED]
        require(set(due) <= {True, False}, "probes_at() returns something other than True or False")
        require(True in due, f"probes_at() is True before none of the first {len(_PLANNED)} iterations")
        self._probe(pool, range(_PROBES))
        again = [pool.probes_at(iteration) for iteration in _PLANNED]
        require(again == due, "having heard of probes, it asks for them before other iterations")

    def test_probes_lead_to_the_same(self) -> None:
        """The same probes lead to the same distributions, also if it is restored between two of them."""
        (pool, _), restored = self._probing(), self.component()
        same, half = self.component(), _PROBES // 2
        for each in (pool, same):
            self._probe(each, range(half))
        restored.restore(json.loads(json.dumps(pool.state())))
        for each in (pool, same, restored):
            self._probe(each, range(half, _PROBES))
        first, second, third = (self._distributions(each) for each in (pool, same, restored))
        require(first == second, "the same probes and random streams lead to another distribution")
        require(first == third, "restored between two probes, it goes on to another distribution")

    def _probing(self) -> tuple[Pool[Any], Probe]:
        """Return a new pool and what it asks of its probes; skips the check if it asks for none."""
        pool = self.component()
        probe = checked_probe(pool)
        if probe is None:
            raise SkipTest("it asks for no probes")
        return pool, probe

    @staticmethod
    def _probe(pool: Pool[Any], rounds: range) -> None:
        """Let a pool hear of probes whose accuracies rise and fall."""
        probe = checked_probe(pool)
        assert probe is not None, "only pools that ask for probes are probed"
        due = [iteration for iteration in _PLANNED if pool.probes_at(iteration)]
        for number in rounds:
            iteration = due[number % len(due)]
            scores = tuple(0.3 + 0.2 * math.sin(number + student) for student in range(probe.students))
            result = ProbeResult(iteration, dict.fromkeys(probe.architectures, scores))
            pool.probed(result, Streams(3).generator("probe-choice", number))
            for at in ITERATIONS:
                mixture(pool, at, architecture)  # raises what is wrong

    @staticmethod
    def _distributions(pool: Pool[Any]) -> list[dict[str, float]]:
        return [dict(pool.distribution(iteration)) for iteration in ITERATIONS]

    def _observe(self, pool: Pool[Any]) -> None:
        for iteration in range(_DRAWS):
            for name in pool.distribution(iteration):
                pool.observe(name, {"loss": 1 / (1 + iteration)})
                pool.observe(name, {})  # a method may log nothing

    def component(self) -> Pool[Any]:
        """Return a new pool."""
        pool: Pool[Any] = self.resolved().make()
        return pool
