"""Drawing fresh networks from a pool."""

import itertools
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harness.compute.compiling import comes_seldom
from harness.errors import PluginError, UsageError
from harness.plugins.registry import Resolved
from harness.plugins.returns import call_of, plain_json, probabilities, returned
from harness.types.artifact import Artifact
from harness.types.network import Architecture, Network
from harness.types.pool import Pool
from harness.types.problem import Problem
from harness.types.seeds import Streams

SELDOM = 0.05
"""Probability below which an architecture's networks are not compiled: that would take longer than it saves."""

Resolve = Callable[[str], Resolved[Architecture[Any]]]
Mixture = list[tuple[Resolved[Architecture[Any]], float]]
Supply = Callable[[int, str | None], Sequence[Artifact]]


def mixture(pool: Pool[Any], iteration: int, resolve: Resolve) -> Mixture:
    """A pool's distribution with equal architectures merged, in the pool's own order, impossible ones left out.

    Raises:
        PluginError: it is not a distribution.
    """
    return _merged(distribution_of(pool, iteration), pool, iteration, resolve)


def distribution_of(pool: Pool[Any], iteration: int) -> dict[str, float]:
    """What the pool says, as a dictionary of its own.

    Raises:
        PluginError: it says something else than probabilities by name.
    """
    return probabilities(pool.distribution(iteration), f"{type(pool).__name__}.distribution()")


def _merged(distribution: Mapping[str, float], pool: Pool[Any], iteration: int, resolve: Resolve) -> Mixture:
    """The same with names looked up and equal architectures merged."""
    found: dict[str, tuple[Resolved[Architecture[Any]], float]] = {}
    for name, probability in distribution.items():
        if probability > 0:
            try:
                resolved = resolve(name)
            except UsageError as error:
                raise UsageError(f"{type(pool).__name__} draws {name!r}: {error}") from error
            _, before = found.get(str(resolved), (resolved, 0.0))
            found[str(resolved)] = (resolved, before + probability)
    total = math.fsum(probability for _, probability in found.values())
    if abs(total - 1) > 1e-6:
        raise PluginError(f"{type(pool).__name__} gives probabilities that sum to {total:g} at iteration {iteration}")
    return list(found.values())


class Lottery:
    """Draws architectures from a pool.

    A draw is a function of pool, seed, iteration and index alone: known ahead, unless the pool adapts.
    """

    def __init__(self, pool: Pool[Any], resolve: Resolve, streams: Streams) -> None:
        self.pool, self._resolve, self._streams = pool, resolve, streams
        self._last: tuple[dict[str, float] | None, Mixture] = (None, [])

    def mixture(self, iteration: int) -> Mixture:
        """The distribution at an iteration; names are looked up again only where it changes."""
        distribution = distribution_of(self.pool, iteration)
        if distribution != self._last[0]:
            self._last = (distribution, _merged(distribution, self.pool, iteration, self._resolve))
        return self._last[1]

    def draw(self, iteration: int, index: int = 0) -> Resolved[Architecture[Any]]:
        """The architecture of an iteration's draw number ``index``."""
        return self.draw_with_probability(iteration, index)[0]

    def draw_with_probability(self, iteration: int, index: int) -> tuple[Resolved[Architecture[Any]], float]:
        """The same, and how probable it was."""
        choices = self.mixture(iteration)
        point = torch.rand((), generator=self._streams.generator("pool", iteration, index), dtype=torch.float64)
        edges = itertools.accumulate(probability for _, probability in choices)
        return next((choice for choice, edge in zip(choices, edges, strict=True) if float(point) < edge), choices[-1])


class PoolNetworks:
    """Gives a method its networks: draws an architecture for each, builds it fresh, and notes the draw.

    The draw and the initial weights come from streams of the iteration alone: wherever two pools draw the same
    architecture at an iteration, they get the same weights.

    Args:
        pool: None for a method that draws no network.
        resolve: finds architectures by name.
        problem: gives the shape of the images.
        streams: of this distillation.
        supply: for an iteration and an architecture drawn, the artifacts that the method needs.
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
        """Turn to an iteration, counted from 0."""
        self._iteration, self.drawn = iteration, []
        self._architecture_of.clear()

    def pool_state(self) -> dict[str, Any]:
        """What an adaptive pool has learned so far."""
        if self.pool is None:
            return {}
        what = call_of(self.pool, "state")
        state: dict[str, Any] = returned(plain_json(self.pool.state(), what), dict, what)
        return state

    def restore_pool(self, state: Mapping[str, Any]) -> None:
        """Take up what `pool_state` gave."""
        if self.pool:
            self.pool.restore(state)

    def observe(self, scalars: Mapping[str, float]) -> None:
        """Tell the pool what the step logged, for each architecture that it drew."""
        for name in self.drawn if self.pool else ():
            self.pool.observe(name, scalars)  # type: ignore[union-attr]

    def draw(self) -> Network:
        """A freshly initialised network of an architecture drawn from the pool, in training mode, on the device.

        Raises:
            PluginError: there is no pool, because the method says that it draws no network.
        """
        if self._lottery is None:
            raise PluginError("the method draws a network, but declares uses_pool = False")
        index = len(self.drawn)
        chosen, probability = self._lottery.draw_with_probability(self._iteration, index)
        self.drawn.append(str(chosen))
        generator = self._streams.generator("network", self._iteration, index)
        network = chosen.make().build(self._problem.shape, len(self._problem.classes), generator)
        if probability < SELDOM:
            comes_seldom(network)
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
