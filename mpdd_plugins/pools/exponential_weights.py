"""Exponential weights with exploration for bandits (Exp3): Auer, Cesa-Bianchi, Freund, Schapire, SIAM J. Comput., 2002.

The nonstochastic multiarmed bandit problem, figure 1. Of K arms, arm k is drawn with the probability

    p_k = (1 - explore) w_k / (w_1 + ... + w_K) + explore / K,

and if arm k was drawn and x is its reward, w_k becomes w_k exp(step x / p_k); the other weights stay. The paper's
``step`` is ``explore`` / K; here it is a number of its own, so that more exploration does not mean faster steps.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch


class ExponentialWeights:
    """Weights of arms, and the arm that was drawn last.

    Args:
        arms: number of arms, at least 1.
        step: step size of the weights' logarithms, above 0.
        explore: share of the probability that all arms have equally, from 0 (exclusive) to 1.
    """

    def __init__(self, arms: int, *, step: float, explore: float) -> None:
        self._step, self._explore = step, explore
        # Logarithms, of which the largest is 0: products of many factors would overflow.
        self._logs = [0.0] * arms
        self.arm: int | None = None
        """The arm that was drawn last; None before the first draw."""

    @property
    def weights(self) -> list[float]:
        """The weights, scaled to sum to 1."""
        raw = [math.exp(log) for log in self._logs]
        total = math.fsum(raw)
        return [weight / total for weight in raw]

    @property
    def probabilities(self) -> list[float]:
        """The probabilities by which the next arm is drawn; they sum to 1, and none is below explore / K."""
        return [(1 - self._explore) * weight + self._explore / len(self._logs) for weight in self.weights]

    def reward(self, reward: float) -> None:
        """Reward the arm that was drawn last; a reward lies between -1 and 1."""
        assert self.arm is not None, "an arm is drawn before it is rewarded"
        self._logs[self.arm] += self._step * reward / self.probabilities[self.arm]
        largest = max(self._logs)
        self._logs = [log - largest for log in self._logs]

    def draw(self, generator: torch.Generator) -> int:
        """Draw the next arm, and return its index."""
        # On the CPU and in float64: the same generator yields the same arm on every machine.
        point = float(torch.rand((), generator=generator, dtype=torch.float64))
        self.arm = _place(point, self.probabilities)
        return self.arm

    def state(self) -> dict[str, Any]:
        """Return weights and arm as JSON."""
        return {"logs": list(self._logs), "arm": self.arm}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set weights and arm to those that `state` returned."""
        self._logs, self.arm = list(state["logs"]), state["arm"]


def _place(point: float, probabilities: Sequence[float]) -> int:
    """Return the index of the probability in whose part of [0, 1) a point lies."""
    edge = 0.0
    for index, probability in enumerate(probabilities):
        edge += probability
        if point < edge:
            return index
    # The last edge may be just below 1 by rounding.
    return len(probabilities) - 1
