"""Numbers that others have published, to stand beside ours where the protocol is the same."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Published:
    """A published accuracy, in percent, with the spread that its authors give, if any."""

    accuracy: float
    std: float | None
    source: str


def published_for(row: Mapping[str, Any]) -> Published | None:
    """The published number for the same data set, method, pool, counts, protocol and architecture, if there is one.

    None where images are scored or preprocessed otherwise than the data set's own way.
    """
    if row["score_on"] != "test" or row["preprocessing"] != row["like"]:
        return None
    wanted = tuple(str(row[key]) for key in ("like", "ipc", "iterations", "method", "pool", "protocol", "architecture"))
    return _table().get(wanted)


@cache
def _table() -> dict[tuple[str, ...], Published]:
    text = files("harness.report").joinpath("published.csv").read_text()
    rows = csv.reader(text.splitlines()[1:])
    return {tuple(key): Published(float(mean), float(std) if std else None, source) for *key, mean, std, source in rows}
