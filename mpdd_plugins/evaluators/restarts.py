"""DropPath's length of training in eight periods: keep rates in three phases, and rates with warm restarts.

With N epochs a period is N/8 (500 of 4000 as published). Paths are all kept in the first; then the keep rate falls by
equal steps, one a period, to its least in the sixth; in the last two periods it is higher again. The learning rate
rises linearly for a fifth of a period and then follows a cosine of two periods; it restarts at every period, with a
peak 0.8 times that before, until the last two, which have a whole cosine from a tenth of the first peak. Of fewer than
40 epochs, a fifth of a period is shorter than one, and the rate begins at the peak.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from harness import Recipe

PERIODS, FALLING, LAST = 8, 5, 6
"""Periods of a training; those in which the keep rate falls; and the one in which the last phase begins."""


def period_of(epoch: int, epochs: int) -> int:
    """Return the index of an epoch's period, from 0 to 7."""
    return min(PERIODS - 1, epoch * PERIODS // epochs)


def keep_rate(epoch: int, epochs: int, least: float, last: float) -> float:
    """Return the probability with which a path is kept in an epoch.

    Args:
        epoch: index of the epoch.
        epochs: number of epochs.
        least: that of the sixth period, to which it falls from 1.
        last: that of the last two periods.
    """
    period = period_of(epoch, epochs)
    return last if period >= LAST else 1 - (1 - least) * period / FALLING


def cycle_rate(step: float, cycle: float, warmup: float) -> float:
    """Return the share of the peak at a place of a cycle: a linear rise, if any, then a cosine to zero at its end."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (cycle - warmup)))


def _warmup(epochs: int) -> float:
    """Return the epochs of the rise at each restart, a fifth of a period; 0 if that is shorter than an epoch."""
    # The first epoch of a rise has the rate 0: of a period of one epoch or two, little else would be left.
    rise = epochs / PERIODS / 5
    return rise if rise >= 1 else 0.0


@dataclass(frozen=True)
class RestartRecipe(Recipe):
    """A recipe with DropPath's restarts, or with Lion's averages as DropPath sets them.

    Attributes:
        restarts: whether the rate restarts; without, ``schedule`` decides.
        fall: factor of the peak at each restart before the last phase.
        last_peak: factor of the first peak in the last phase.
        lion_betas: of ``optimizer="lion"``.
    """

    restarts: bool = True
    fall: float = 0.8
    last_peak: float = 0.1
    lion_betas: tuple[float, float] = (0.95, 0.98)

    @property
    def begins_at_peaks(self) -> bool:
        """Whether the rate restarts without a rise, because that would be shorter than an epoch."""
        return self.restarts and _warmup(self.epochs) == 0

    def rate(self, unit: int, total: int | None = None) -> float:
        """Return the learning rate of the epoch with this index."""
        if not self.restarts:
            return super().rate(unit, total)
        epochs = self.epochs if total is None else total
        period, length = min(LAST, period_of(unit, epochs)), epochs / PERIODS
        # The first epoch whose period it is: with lengths that eight does not divide, periods differ by an epoch.
        begun = math.ceil(period * length)
        peak = self.lr * (self.last_peak if period == LAST else self.fall**period)
        return peak * cycle_rate(unit - begun, 2 * length, _warmup(epochs))

    def new_optimizer(self, parameters: Any, *, recorded: bool = False) -> torch.optim.Optimizer:  # noqa: ANN401
        """Return a new optimiser of ``parameters``."""
        optimizer = super().new_optimizer(parameters, recorded=recorded)
        if self.optimizer == "lion":
            for group in optimizer.param_groups:
                group["betas"] = self.lion_betas
        return optimizer
