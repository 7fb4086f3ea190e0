"""The clock that records and logs are stamped with."""

import datetime


def now() -> str:
    """Return this host's time in UTC, to the second, in ISO format."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
