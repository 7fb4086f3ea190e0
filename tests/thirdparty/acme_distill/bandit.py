"""A pool that adapts: what was matched worst so far is drawn more often."""

import math
from collections.abc import Mapping
from typing import Any

from harness import NameList, Options, Pool, option


class BanditOptions(Options):
    """Options of `Bandit`."""

    of: NameList = option(("convnet", "mlp"), "architectures, joined by +")
    floor: float = option(0.1, "probability that is always spread evenly", ge=0, le=1)


class Bandit(Pool[BanditOptions]):
    """Probabilities in proportion to the mean loss that was logged for each architecture."""

    Options = BanditOptions

    def __init__(self, options: BanditOptions) -> None:
        super().__init__(options)
        self.losses: dict[str, list[float]] = {}

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Even at first; an architecture that nothing is known of counts as the worst of those that are known."""
        names = self.options.of
        known = {name: total / count for name, (total, count) in self.losses.items()}
        weights = [known.get(name, max(known.values(), default=1.0)) for name in names]
        total = math.fsum(weights)
        even, floor = 1 / len(names), self.options.floor
        shares = [weight / total if total > 0 else even for weight in weights]
        return {name: floor * even + (1 - floor) * share for name, share in zip(names, shares, strict=True)}

    def observe(self, architecture: str, scalars: Mapping[str, float]) -> None:
        """Add a loss."""
        if architecture in self.options.of and math.isfinite(scalars.get("loss", math.nan)):
            total, count = self.losses.get(architecture, (0.0, 0))
            self.losses[architecture] = [total + scalars["loss"], count + 1]

    def state(self) -> Mapping[str, Any]:
        """Sums and counts."""
        return {"losses": {name: list(pair) for name, pair in self.losses.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.losses = {name: list(pair) for name, pair in state.get("losses", {}).items()}
