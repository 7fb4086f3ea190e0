"""The time as the store tells it."""

import datetime


def now() -> str:
    """By this host's clock, in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
