"""Drawing architectures from a pool: its distribution, and the draw of each iteration and index."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from harness.errors import PluginError, UsageError
from harness.plugins.registry import Resolved
from harness.plugins.returns import probabilities
from harness.types.network import Architecture
from harness.types.pool import Pool
from harness.types.seeds import Streams

Resolve = Callable[[str], Resolved[Architecture[Any]]]
"""Finds an architecture by its name with options."""
Mixture = list[tuple[Resolved[Architecture[Any]], float]]
"""Architectures with their probabilities, which sum to 1."""


def mixture(pool: Pool[Any], iteration: int, resolve: Resolve) -> Mixture:
    """Return a pool's distribution at an iteration, with equal architectures merged and impossible ones left out.

    The order is the pool's own.

    Raises:
        PluginError: the pool does not return a distribution.
        UsageError: the pool names an architecture that does not exist.
    """
    return _merged(distribution_of(pool, iteration), pool, iteration, resolve)


def distribution_of(pool: Pool[Any], iteration: int) -> dict[str, float]:
    """Return a copy of the pool's probabilities by architecture, as the pool names them.

    Raises:
        PluginError: the pool returns anything but probabilities by name.
    """
    return probabilities(pool.distribution(iteration), f"{type(pool).__name__}.distribution()")


def _merged(distribution: Mapping[str, float], pool: Pool[Any], iteration: int, resolve: Resolve) -> Mixture:
    """Look up the names of a distribution, and merge architectures that are equal."""
    # A pool may name one architecture in two ways, such as convnet and convnet[depth=3].
    by_name: dict[str, tuple[Resolved[Architecture[Any]], float]] = {}
    for name, probability in distribution.items():
        if probability > 0:
            try:
                resolved = resolve(name)
            except UsageError as error:
                who = getattr(pool, "ddbench_name", type(pool).__name__)
                raise UsageError(f"{who} draws {name!r}: {error}") from error
            _, before = by_name.get(str(resolved), (resolved, 0.0))
            by_name[str(resolved)] = (resolved, before + probability)
    total = math.fsum(probability for _, probability in by_name.values())
    if abs(total - 1) > 1e-6:
        raise PluginError(f"{type(pool).__name__} gives probabilities that sum to {total:g} at iteration {iteration}")
    return list(by_name.values())


class Lottery:
    """Draws architectures from a pool.

    A draw depends only on pool, seed, iteration and index, so it is known in advance unless the pool adapts.
    """

    def __init__(self, pool: Pool[Any], resolve: Resolve, streams: Streams) -> None:
        self.pool, self._resolve, self._streams = pool, resolve, streams
        self._last: tuple[dict[str, float] | None, Mixture] = (None, [])

    def mixture(self, iteration: int) -> Mixture:
        """Return the distribution at an iteration; names are looked up again only if it has changed."""
        distribution = distribution_of(self.pool, iteration)
        if distribution != self._last[0]:
            self._last = (distribution, _merged(distribution, self.pool, iteration, self._resolve))
        return self._last[1]

    def _choices(self, iteration: int, index: int) -> Mixture:
        """Return the distribution of a draw."""
        if type(self.pool).distribution_of is Pool.distribution_of:
            return self.mixture(iteration)
        what = f"{type(self.pool).__name__}.distribution()"
        return _merged(
            probabilities(self.pool.distribution_of(iteration, index), what), self.pool, iteration, self._resolve
        )

    def probability_of(self, iteration: int, architecture: Resolved[Architecture[Any]]) -> float:
        """Return the probability of an architecture at an iteration; 0 if it is not drawn then."""
        return sum(share for choice, share in self.mixture(iteration) if str(choice) == str(architecture))

    def listed_name(self, iteration: int, architecture: Resolved[Architecture[Any]]) -> str:
        """Return the first name by which the pool lists an architecture that it draws at an iteration."""
        listed = (name for name, share in distribution_of(self.pool, iteration).items() if share > 0)
        return next(name for name in listed if str(self._resolve(name)) == str(architecture))

    def draw(self, iteration: int, index: int = 0) -> Resolved[Architecture[Any]]:
        """Return the architecture that draw number ``index`` of an iteration yields."""
        return self.draw_with_probability(iteration, index)[0]

    def draw_with_probability(self, iteration: int, index: int) -> tuple[Resolved[Architecture[Any]], float]:
        """Return the architecture of a draw, and its probability at that iteration."""
        choices = self._choices(iteration, index)
        # float64, and inverse transform sampling in the pool's order: the same point yields the same architecture in
        # two pools as far as their distributions agree.
        point = torch.rand((), generator=self._streams.generator("pool", iteration, index), dtype=torch.float64)
        edges = itertools.accumulate(probability for _, probability in choices)
        # The last edge may be just below 1 by rounding; then the last architecture is meant.
        return next((choice for choice, edge in zip(choices, edges, strict=True) if float(point) < edge), choices[-1])
