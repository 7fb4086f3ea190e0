"""How a network's image gradient agrees with those of the main architecture: what adaptive pools may watch."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.types.method import ImageGradient

PREFIX = "alignment/"
"""Begins the names of the alignment's tensors in a trajectory's state."""
MEMORY = 0.9
"""Share of the running mean that an update leaves as it was: the mean of about the last ten of the main's gradients."""
_MEAN = f"{PREFIX}mean"


class Alignment:
    """The cosine between the image gradient of a step and a running mean of the main architecture's.

    With g the gradient of a step by the training images, all values of all images as one vector, and m the running
    mean, a step logs cos(g, m) = g·m / (|g| |m|) from -1 to 1. Then, if the step drew the main architecture and nothing
    else, m becomes `MEMORY` m + (1 - `MEMORY`) g; the first such g is m itself.

    Args:
        watch: sums up the gradients of each step.
        main: the full name of the main architecture; None if there is none, and every cosine is NaN.
    """

    def __init__(self, watch: ImageGradient, main: str | None) -> None:
        self._watch, self._main = watch, main
        self._mean: Tensor | None = None

    def begin(self) -> None:
        """Forget the gradient of the step before."""
        self._watch.total = None

    def end(self, drawn: Sequence[str]) -> float | None:
        """Return the cosine of the step that has ended, and take its gradient into the mean.

        Args:
            drawn: full names of the architectures that the step drew.

        Returns:
            NaN if nothing is known of the main architecture yet, if the step drew no or several architectures, or if a
            gradient is 0 or not finite; None if the method passed on no gradient.
        """
        gradient = self._watch.total
        if gradient is None:
            return None
        architectures = set(drawn)
        cosine = math.nan
        if len(architectures) == 1 and self._mean is not None:
            cosine = _cosine(gradient, self._mean)
        # A gradient that is not finite would spoil the mean for the rest of the trajectory.
        if architectures == {self._main} and bool(torch.isfinite(gradient).all()):
            mean = self._mean
            self._mean = gradient.clone() if mean is None else MEMORY * mean + (1 - MEMORY) * gradient
        return cosine

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the running mean, on the CPU; empty if there is none yet."""
        return {} if self._mean is None else {_MEAN: self._mean.detach().cpu().clone()}

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Set the running mean to that of a state."""
        self._mean = state[_MEAN].to(device, copy=True) if _MEAN in state else None


def _cosine(first: Tensor, second: Tensor) -> float:
    """Return the cosine of two gradients as vectors; NaN if one of them is 0 or not finite."""
    # In float64: the squares of small gradients would underflow.
    ones, others = first.detach().double().flatten(), second.detach().double().flatten()
    lengths = float(ones.norm() * others.norm())
    if not 0 < lengths < math.inf:
        return math.nan
    return max(-1.0, min(1.0, float(ones @ others) / lengths))
