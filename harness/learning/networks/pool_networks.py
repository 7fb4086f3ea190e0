"""The networks of a method's steps: a fresh one of each architecture that a pool draws, or ones that live on."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.compute.compiling import exclude_from_compilation
from harness.errors import PluginError
from harness.learning.artifacts.experts import snapshot
from harness.learning.artifacts.real_networks import RealNetwork
from harness.learning.networks.live import Birth, LiveSet, LiveSets, Terms
from harness.learning.networks.lottery import Lottery, Resolve, distribution_of
from harness.learning.recipe import Recipe
from harness.plugins.registry import Resolved
from harness.plugins.returns import call_of, plain_json, returned
from harness.types.artifact import Artifact, ArtifactRequest
from harness.types.network import Architecture, Network
from harness.types.pool import Pool, ProbeResult
from harness.types.problem import Problem
from harness.types.seeds import Streams

SELDOM = 0.05
"""Probability of a draw below which a network is not compiled, because compiling would take longer than it saves."""
Supply = Callable[[int, str | None], Sequence[Artifact]]
"""Maps an iteration and the architecture drawn (None if none is) to the artifacts that the method needs."""
Fetch = Callable[[ArtifactRequest], Artifact]
"""Maps a request for a network on the real data to that network."""


def start_of(pool: Pool[Any], architecture: str, iteration: int, draw: int) -> RealNetwork | None:
    """Return the network on the real data that a draw starts from; None if the pool wants none.

    Raises:
        PluginError: it is something else, or of another architecture.
    """
    if type(pool).starts_from is Pool.starts_from:
        return None
    request = pool.starts_from(architecture, iteration, draw)
    what = call_of(pool, "starts_from")
    if request is not None and returned(request, RealNetwork, what).architecture != architecture:
        raise PluginError(f"{what} asks for a {request.architecture}, but {architecture} was drawn")
    return request if isinstance(request, RealNetwork) else None


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
        fetch: returns the networks on the real data that the pool's fresh networks start from; None if there are none.
    """

    def __init__(
        self,
        pool: Pool[Any] | None,
        resolve: Resolve,
        problem: Problem,
        streams: Streams,
        supply: Supply | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.pool = pool
        self.drawn: list[str] = []
        """Names of the architectures drawn at the current iteration, in order."""
        self.live_sets = LiveSets(self._draw, self._build, streams)
        """The networks that live from step to step, of which the trajectory's state holds everything."""
        self._listed: list[str] = []
        """Of the architectures in ``drawn``, the names by which a pool that adapts lists them."""
        self._lottery = Lottery(pool, resolve, streams) if pool else None
        self._resolve = resolve
        self._problem, self._streams, self._supply, self._fetch = problem, streams, supply, fetch
        self._iteration = 0
        # Weak: a network that the method is done with must not take memory until the iteration ends.
        self._architecture_of: weakref.WeakKeyDictionary[Network, str] = weakref.WeakKeyDictionary()

    def begin(self, iteration: int) -> None:
        """Start an iteration, counted from 0: its draws are numbered from 0 again."""
        self._iteration, self.drawn, self._listed = iteration, [], []
        self._architecture_of.clear()
        self.live_sets.begin(iteration)

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

    @property
    def main(self) -> str | None:
        """The pool's main architecture by its full name; None if there is none."""
        main = self.pool.main if self.pool else None
        return None if main is None else str(self._resolve(main))

    def main_probability(self) -> float | None:
        """Return the main architecture's probability at this iteration, of a pool that adapts; None of any other."""
        if self._lottery is None or not self._lottery.pool.adapts or self._lottery.pool.main is None:
            return None
        return self._lottery.probability_of(self._iteration, self._resolve(self._lottery.pool.main))

    def observe(self, scalars: Mapping[str, float]) -> None:
        """Pass what the step logged to a pool that adapts, once for each architecture that it drew."""
        for name in self._listed if self.pool else ():
            self.pool.observe(name, scalars)  # type: ignore[union-attr]

    def probed(self, result: ProbeResult) -> None:
        """Pass the outcome of a probe to the pool."""
        if self.pool:
            self.pool.probed(result, self._streams.generator("probe-choice", result.iteration))

    def distribution(self, iteration: int) -> dict[str, float]:
        """Return the pool's probabilities at an iteration by architecture, as the pool names them."""
        return distribution_of(self.pool, iteration) if self.pool else {}

    def draw(self) -> Network:
        """Draw an architecture from the pool and return a fresh network of it, in training mode, on the device.

        Raises:
            PluginError: there is no pool, because the method declares that it draws no network.
        """
        return self._draw()[0]

    def draw_together(self) -> list[Network]:
        """Return the fresh networks that the pool wants matched in one step, each a draw of its own."""
        return [self.draw() for _ in range(self.pool.together if self.pool else 1)]

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the gradient of an update from those of networks drawn together; of a single one, its own."""
        if self.pool is None or len(gradients) == 1:
            return gradients[0]
        return self.pool.combine(gradients)

    def live(
        self, count: int, *, steps: int, recipe: Recipe, staggered: bool = False, name: str = "networks"
    ) -> LiveSet:
        """Return the set of live networks of a name; see `harness.Networks`."""
        return self.live_sets.get(name, Terms.of(count, steps, recipe, staggered))

    def _draw(self) -> tuple[Network, Birth]:
        if self._lottery is None:
            raise PluginError("the method draws a network, but declares uses_pool = False")
        index = len(self.drawn)
        chosen, probability = self._lottery.draw_with_probability(self._iteration, index)
        self.drawn.append(str(chosen))
        # Before the step, since what it observes may take the architecture out of the distribution.
        if self._lottery.pool.adapts:
            self._listed.append(self._lottery.listed_name(self._iteration, chosen))
        birth = Birth(str(chosen), self._iteration, index, probability < SELDOM)
        network = self._build(birth, chosen)
        self._architecture_of[network] = str(chosen)
        return network, birth

    def _build(self, birth: Birth, architecture: Resolved[Architecture[Any]] | None = None) -> Network:
        """Build the network of a draw, of this iteration or an earlier one; None looks the architecture up."""
        component = (architecture or self._resolve(birth.architecture)).make()
        generator = self._streams.generator("network", birth.iteration, birth.index)
        network = component.build(self._problem.shape, len(self._problem.classes), generator)
        self._start(network, birth)
        if birth.is_seldom:
            exclude_from_compilation(network)
        return network.to(self._problem.device)

    def _start(self, network: Network, birth: Birth) -> None:
        """Give a fresh network the weights that the pool wants it to start from."""
        if self.pool is None:
            return
        request = start_of(self.pool, birth.architecture, birth.iteration, birth.index)
        if request is not None:
            if self._fetch is None:
                raise PluginError("the pool's networks start from others on the real data, but nobody makes them here")
            tensors = self._fetch(request).tensors
            network.load_state_dict(snapshot(tensors, request.snapshots[-1], torch.device("cpu")))
        self.pool.prepare(network, self._streams.generator("start", birth.iteration, birth.index))

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
