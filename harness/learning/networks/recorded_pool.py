"""A pool whose distributions were recorded: what an adaptive pool has found on a split, drawn once more."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from harness.types.options import Options
from harness.types.pool import Pool


class RecordedPool(Pool[Options]):
    """Gives the distributions that another pool gave, each at the same iterations; after the last one, the last.

    Args:
        schedule: distributions, each with the first iteration that it holds for (``since``, ascending from 0), the
            names of architectures in the other pool's order (``names``), and their ``probabilities``.
        main: the other pool's main architecture.
    """

    def __init__(self, schedule: Sequence[Mapping[str, Any]], main: str | None) -> None:
        super().__init__(Options())
        self._since = [int(entry["since"]) for entry in schedule]
        # In the order of the other pool, by which a draw's point between 0 and 1 stands for an architecture.
        self._distributions = [dict(zip(entry["names"], entry["probabilities"], strict=True)) for entry in schedule]
        self._main = main

    @property
    def main(self) -> str | None:
        """The other pool's main architecture."""
        return self._main

    @property
    def adapts(self) -> bool:
        """Always True: the distributions depend on what the other pool has observed."""
        return True

    def distribution(self, iteration: int) -> Mapping[str, float]:
        """Return the recorded distribution of an iteration."""
        return self._distributions[bisect.bisect_right(self._since, iteration) - 1]
