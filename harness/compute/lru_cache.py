"""What was dear to make and may be wanted again."""

import collections
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

KEPT = 64
"""More than a pool has architectures: main-similar has 33."""
T = TypeVar("T")


class Kept(Generic[T]):
    """The `KEPT` things used last, by what they are for."""

    def __init__(self) -> None:
        self._things: collections.OrderedDict[Hashable, T] = collections.OrderedDict()

    def fetch(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under ``key``; made where nothing is."""
        if key not in self._things:
            self._things[key] = make()
        self._things.move_to_end(key)
        while len(self._things) > KEPT:
            self._things.popitem(last=False)
        return self._things[key]
