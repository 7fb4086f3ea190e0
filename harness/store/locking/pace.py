"""How long the holder of a lease has worked, and has still to work: by its own clock alone, as its lease tells."""

import datetime
from collections.abc import Mapping
from typing import Any


def seconds_since(told: Mapping[str, Any], what: str) -> float:
    """From the time of that name to the last heartbeat; 0 where one of them cannot be read."""
    try:
        then, beat = (datetime.datetime.fromisoformat(told[name]) for name in (what, "beat_at"))
        return max(0.0, (beat - then).total_seconds())
    except (KeyError, TypeError, ValueError):
        return 0.0


def seconds_left(told: Mapping[str, Any], age: float) -> float | None:
    """Until the last iteration, at the pace since the first that was told: a trajectory may have gone on from there.

    Args:
        told: what the lease tells.
        age: seconds since the last heartbeat.
    """
    first, iteration, total = (told.get(name) for name in ("first", "iteration", "total"))
    seconds = seconds_since(told, "first_at")
    if not (isinstance(first, int) and isinstance(iteration, int) and isinstance(total, int)):
        return None
    if iteration <= first or not seconds:
        return None
    return max(0.0, (total - iteration) * seconds / (iteration - first) - age)
