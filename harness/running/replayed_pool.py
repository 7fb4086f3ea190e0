"""The pool of a replay: the distributions that a search has found, and all else that the pool itself says."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.learning.networks.recorded_pool import RecordedPool
from harness.types.artifact import ArtifactRequest
from harness.types.network import Network
from harness.types.pool import Pool, ProbeResult


class ReplayedPool(RecordedPool):
    """Draws by recorded distributions, and leaves to the pool that has found them what it does with its draws.

    Before the draws of an iteration, that pool hears of the probes that the search had made up to there, on which its
    answers may depend. It observes no steps.

    Args:
        pool: the pool at its start.
        schedule: the distributions that it gave in the search; see `RecordedPool`.
        probes: the outcomes of the search's probes, in the order of their iterations.
        hear: passes the outcome of a probe to the pool.
    """

    def __init__(
        self,
        pool: Pool[Any],
        schedule: Sequence[Mapping[str, Any]],
        probes: Iterable[ProbeResult],
        hear: Callable[[ProbeResult], None],
    ) -> None:
        super().__init__(schedule, pool.main)
        self._pool, self._ahead, self._hear = pool, list(probes), hear

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the recorded distribution of an iteration."""
        self._catch_up(iteration)
        return super().distribution(iteration)

    def distribution_of(self, iteration: int, draw: int) -> Mapping[str, float]:
        """Return the pool's probabilities of one draw; the recorded ones unless it distinguishes draws."""
        recorded = self.distribution(iteration)
        if type(self._pool).distribution_of is Pool.distribution_of:
            return recorded
        return self._pool.distribution_of(iteration, draw)

    def _catch_up(self, iteration: int) -> None:
        """Let the pool hear of the probes up to an iteration that it has not heard of."""
        while self._ahead and self._ahead[0].iteration <= iteration:
            self._hear(self._ahead.pop(0))

    @property
    def together(self) -> int:
        """The number of networks that the pool has a step match at once."""
        return self._pool.together

    def combine(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the gradient of an update as the pool combines those of networks drawn together."""
        return self._pool.combine(gradients)

    def starts_from(self, architecture: str, iteration: int, draw: int) -> ArtifactRequest | None:
        """Return the network on the real data whose weights the pool wants a fresh network to start from."""
        return self._pool.starts_from(architecture, iteration, draw)

    def prepare(self, network: Network, generator: torch.Generator) -> None:
        """Change a fresh network as the pool does."""
        self._pool.prepare(network, generator)
