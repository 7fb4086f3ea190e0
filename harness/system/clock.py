"""The time as records hold it."""

import datetime


def now() -> str:
    """Return the time of this host's clock, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
