"""The contract of model-pool policies."""

import json
from typing import Any
from unittest import SkipTest

from harness.learning.networks.lottery import Lottery, mixture
from harness.testing.contract import Contract, architecture, require
from harness.types.pool import Pool
from harness.types.seeds import Streams

ITERATIONS = (0, 1, 2, 10, 500, 1000, 5000, 100_000)
"""Iterations at which distributions are checked: before, in and after any warm-up."""
_DRAWS = 20


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

    def _observe(self, pool: Pool[Any]) -> None:
        for iteration in range(_DRAWS):
            for name in pool.distribution(iteration):
                pool.observe(name, {"loss": 1 / (1 + iteration)})
                pool.observe(name, {})  # a method may log nothing

    def component(self) -> Pool[Any]:
        """Return a new pool."""
        pool: Pool[Any] = self.resolved().make()
        return pool
