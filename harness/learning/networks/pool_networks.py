"""Drawing architectures from a pool, and building a fresh network of each."""

import itertools
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harness.compute.compiling import exclude_from_compilation
from harness.errors import PluginError, UsageError
from harness.plugins.registry import Resolved
from harness.plugins.returns import call_of, plain_json, probabilities, returned
from harness.types.artifact import Artifact
from harness.types.network import Architecture, Network
from harness.types.pool import Pool
from harness.types.problem import Problem
from harness.types.seeds import Streams

SELDOM = 0.05
"""Probability of a draw below which a network is not compiled, because compiling would take longer than it saves."""

Resolve = Callable[[str], Resolved[Architecture[Any]]]
"""Finds an architecture by its name with options."""
Mixture = list[tuple[Resolved[Architecture[Any]], float]]
"""Architectures with their probabilities, which sum to 1."""
Supply = Callable[[int, str | None], Sequence[Artifact]]
"""Maps an iteration and the architecture drawn (None if none is) to the artifacts that the method needs."""


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
                raise UsageError(f"{type(pool).__name__} draws {name!r}: {error}") from error
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

    def draw(self, iteration: int, index: int = 0) -> Resolved[Architecture[Any]]:
        """Return the architecture that draw number ``index`` of an iteration yields."""
        return self.draw_with_probability(iteration, index)[0]

    def draw_with_probability(self, iteration: int, index: int) -> tuple[Resolved[Architecture[Any]], float]:
        """Return the architecture of a draw, and its probability at that iteration."""
        choices = self.mixture(iteration)
        # float64, and inverse transform sampling in the pool's order: the same point yields the same architecture in
        # two pools as far as their distributions agree.
        point = torch.rand((), generator=self._streams.generator("pool", iteration, index), dtype=torch.float64)
        edges = itertools.accumulate(probability for _, probability in choices)
        # The last edge may be just below 1 by rounding; then the last architecture is meant.
        return next((choice for choice, edge in zip(choices, edges, strict=True) if float(point) < edge), choices[-1])


class PoolNetworks:
    """Provides a method with its networks: draws an architecture, builds a fresh network, and records the draw.

    The draw and the initial weights come from streams of the iteration alone, so that two pools which draw the same
    architecture at an iteration get the same weights.

    Args:
        pool: None for a method that draws no network.
        resolve: finds architectures by name.
        problem: provides the shape of the images, the classes and the device.
        streams: random streams of this distillation.
        supply: returns the artifacts that the method needs; None if none can be made.
    """

    def __init__(
        self,
        pool: Pool[Any] | None,
        resolve: Resolve,
        problem: Problem,
        streams: Streams,
        supply: Supply | None = None,
    ) -> None:
        self.pool = pool
        self.drawn: list[str] = []
        """Names of the architectures drawn at the current iteration, in order."""
        self._lottery = Lottery(pool, resolve, streams) if pool else None
        self._problem, self._streams, self._supply = problem, streams, supply
        self._iteration = 0
        # Weak: a network that the method is done with must not take memory until the iteration ends.
        self._architecture_of: weakref.WeakKeyDictionary[Network, str] = weakref.WeakKeyDictionary()

    def begin(self, iteration: int) -> None:
        """Start an iteration, counted from 0: its draws are numbered from 0 again."""
        self._iteration, self.drawn = iteration, []
        self._architecture_of.clear()

    def pool_state(self) -> dict[str, Any]:
        """Return the state of an adaptive pool as JSON; empty if there is no pool."""
        if self.pool is None:
            return {}
        what = call_of(self.pool, "state")
        state: dict[str, Any] = returned(plain_json(self.pool.state(), what), dict, what)
        return state

    def restore_pool(self, state: Mapping[str, Any]) -> None:
        """Set the pool to a state that `pool_state` returned."""
        if self.pool:
            self.pool.restore(state)

    def observe(self, scalars: Mapping[str, float]) -> None:
        """Pass what the step logged to the pool, once for each architecture that it drew."""
        for name in self.drawn if self.pool else ():
            self.pool.observe(name, scalars)  # type: ignore[union-attr]

    def draw(self) -> Network:
        """Draw an architecture from the pool and return a fresh network of it, in training mode, on the device.

        Raises:
            PluginError: there is no pool, because the method declares that it draws no network.
        """
        if self._lottery is None:
            raise PluginError("the method draws a network, but declares uses_pool = False")
        index = len(self.drawn)
        chosen, probability = self._lottery.draw_with_probability(self._iteration, index)
        self.drawn.append(str(chosen))
        generator = self._streams.generator("network", self._iteration, index)
        network = chosen.make().build(self._problem.shape, len(self._problem.classes), generator)
        if probability < SELDOM:
            exclude_from_compilation(network)
        network = network.to(self._problem.device)
        self._architecture_of[network] = str(chosen)
        return network

    def needed(self, network: Network | None) -> Sequence[Artifact]:
        """Return the artifacts that the method's `needs` asks for at this iteration.

        Args:
            network: one that was drawn at this iteration, for whose architecture `needs` is asked; None asks without
                an architecture.

        Raises:
            PluginError: the network was not drawn at this iteration, or nobody makes artifacts here.
        """
        if self._supply is None:
            raise PluginError("the method asks for artifacts, but there is nobody to make them")
        architecture = None if network is None else self._architecture_of.get(network)
        if network is not None and architecture is None:
            raise PluginError(
                "networks.needed() is asked about a network that was not drawn at this iteration: "
                "hand it what networks.draw() gave, or None"
            )
        return self._supply(self._iteration, architecture)
