"""The trackers of a run: made before any work, and observers of it while the work goes on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from harness.plugins.discovery import Plugins
from harness.plugins.tracker import Tracker


def make_trackers(names: Sequence[str], loaded: Plugins) -> list[Tracker[Any]]:
    """Return the trackers that a request names.

    Raises:
        UsageError: there is none of a name, or it lacks a package.
    """
    return [loaded.registry.resolve("tracker", name).make() for name in names]


@contextmanager
def tracked(trackers: Sequence[Tracker[Any]], loaded: Plugins, notice: Callable[[str], object]) -> Iterator[None]:
    """Let trackers observe the work of this process, and close them when it is done.

    Args:
        trackers: the trackers.
        loaded: the plugins, whose observers they join.
        notice: receives what went wrong, a line each.
    """
    loaded.trackers += trackers
    try:
        yield
    finally:
        for tracker in trackers:
            loaded.trackers.remove(tracker)
            for complaint in loaded.close_tracker(tracker):
                notice(complaint)
