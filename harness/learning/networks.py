"""Drawing fresh networks from a pool."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from harness.plugins.registry import Resolved
from harness.types.errors import PluginError
from harness.types.network import Architecture, Network
from harness.types.pool import Pool
from harness.types.problem import Problem
from harness.types.seeds import Streams

Resolve = Callable[[str], Resolved[Architecture[Any]]]
Mixture = list[tuple[Resolved[Architecture[Any]], float]]


def mixture(pool: Pool[Any], iteration: int, resolve: Resolve) -> Mixture:
    """A pool's distribution with equal architectures merged, in the pool's own order, impossible ones left out.

    Raises:
        PluginError: it is not a distribution.
    """
    merged: dict[str, tuple[Resolved[Architecture[Any]], float]] = {}
    distribution = pool.distribution(iteration)
    for name, probability in distribution.items():
        if not (math.isfinite(probability) and probability >= 0):
            raise PluginError(f"{type(pool).__name__} gives {name!r} the probability {probability}")
        if probability > 0:
            resolved = resolve(name)
            _, before = merged.get(str(resolved), (resolved, 0.0))
            merged[str(resolved)] = (resolved, before + probability)
    total = math.fsum(probability for _, probability in merged.values())
    if abs(total - 1) > 1e-6:
        raise PluginError(f"{type(pool).__name__} gives probabilities that sum to {total:g} at iteration {iteration}")
    return list(merged.values())


class PoolNetworks:
    """Gives a method its networks: draws an architecture for each, builds it fresh, and notes the draw.

    The draw and the initial weights come from streams of the iteration alone: wherever two pools draw the same
    architecture at an iteration, they get the same weights.
    """

    def __init__(self, pool: Pool[Any] | None, resolve: Resolve, problem: Problem, streams: Streams) -> None:
        self.pool = pool
        self.drawn: list[str] = []
        """Names of the architectures drawn at the current iteration, in order."""
        self._resolve, self._problem, self._streams = resolve, problem, streams
        self._iteration = 0

    def begin(self, iteration: int) -> None:
        """Turn to an iteration, counted from 0."""
        self._iteration, self.drawn = iteration, []

    def pool_state(self) -> dict[str, Any]:
        """What an adaptive pool has learned so far."""
        return dict(self.pool.state()) if self.pool else {}

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
        if self.pool is None:
            raise PluginError("the method draws a network, but declares uses_pool = False")
        index = len(self.drawn)
        choices = mixture(self.pool, self._iteration, self._resolve)
        point = torch.rand((), generator=self._streams.generator("pool", self._iteration, index), dtype=torch.float64)
        edges = itertools.accumulate(probability for _, probability in choices)
        chosen = next((c for (c, _), edge in zip(choices, edges, strict=True) if float(point) < edge), choices[-1][0])
        self.drawn.append(str(chosen))
        generator = self._streams.generator("network", self._iteration, index)
        network = chosen.cls(chosen.options).build(self._problem.shape, len(self._problem.classes), generator)
        return network.to(self._problem.device)
