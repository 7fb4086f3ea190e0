"""LRU cache of expensive results, such as recorded CUDA graphs and what was measured on a network."""

import collections
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

CAPACITY = 64
"""Entries of a cache: more than a pool has architectures, of which main-similar has 33."""
T = TypeVar("T")


class LruCache(Generic[T]):
    """Holds the `CAPACITY` results used last. Not thread-safe: callers in several threads hold a lock."""

    def __init__(self) -> None:
        # Not functools.lru_cache: the key (a structure) is not what the result is computed from (a network), and a
        # cached network would stay in memory.
        self._results: collections.OrderedDict[Hashable, T] = collections.OrderedDict()

    def fetch(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the result under ``key``, which is computed by ``make`` if there is none."""
        if key not in self._results:
            self._results[key] = make()
        self._results.move_to_end(key)
        while len(self._results) > CAPACITY:
            self._results.popitem(last=False)
        return self._results[key]
