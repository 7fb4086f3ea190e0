"""Numbers that others have published, to stand beside ours."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from harness.errors import UsageError
from harness.report.comparing.arm_scores import ArmScores
from harness.types.names import parse_name

_FIELDS = ("like", "ipc", "iterations", "method", "pool", "protocol", "architecture")
"""What a number was published for; empty where it does not apply."""


@dataclass(frozen=True)
class Published:
    """A published accuracy, in percent, with the spread that its authors give, if any."""

    accuracy: float
    std: float | None
    source: str

    def __str__(self) -> str:
        return f"{self.accuracy:.1f}" + ("" if self.std is None else f" ±{self.std:.1f}")


@dataclass(frozen=True)
class Nearest:
    """A published number for the same method, pool and architecture, and what it was made otherwise by."""

    published: Published
    departures: tuple[str, ...]


def published_beside(arm: ArmScores) -> Nearest | None:
    """The published number that may stand beside an arm; none stands beside what is made of several architectures."""
    if len(arm.architectures) > 1:
        return None
    fields = (*_FIELDS, "score_on", "preprocessing", "hold_out")
    return nearest_published({name: getattr(arm.scores[0], name) for name in fields})


def published_for(row: Mapping[str, Any]) -> Published | None:
    """The published number for the same data set, method, pool, counts, protocol and architecture, if there is one.

    None where images are scored or preprocessed otherwise than the data set's own way.
    """
    nearest = nearest_published(row)
    return nearest.published if nearest and not nearest.departures else None


def nearest_published(row: Mapping[str, Any]) -> Nearest | None:
    """The published number for the same data set, images per class, method, pool, evaluator and architecture.

    Where there are several, the one that departs least; ``departures`` says in what, empty for the very condition.

    Args:
        row: the fields of a table's row; what is missing departs.
    """
    wanted = {name: "" if row.get(name) is None else str(row[name]) for name in _FIELDS}
    found = [(_departures(row, wanted, key), key) for key in _candidates().get(_heads(wanted), ())]
    if not found:
        return None
    departures, key = min(found, key=lambda one: (len(one[0]), _distance(wanted["iterations"], one[1][2]), one[1]))
    return Nearest(_table()[key], departures)


def _departures(row: Mapping[str, Any], wanted: Mapping[str, str], key: tuple[str, ...]) -> tuple[str, ...]:
    """What the published number was made with, where that differs from the row."""
    told = {"iterations": "{} iterations", "protocol": "protocol {}", "method": "method {}", "pool": "pool {}"}
    published = dict(zip(_FIELDS, key, strict=True))
    differing = [text.format(published[name]) for name, text in told.items() if published[name] != wanted[name]]
    if row.get("score_on") != "test":
        differing.append("scored on test")
    elif row.get("hold_out"):
        differing.append("distilled from all training images")
    if row.get("preprocessing") != wanted["like"]:
        differing.append(f"normalised as {wanted['like']}")
    return tuple(differing)


def _heads(fields: Mapping[str, str]) -> tuple[str, ...]:
    """What must be equal for a number to stand beside another at all."""
    recipe = fields["protocol"].split(" ")[0].rstrip(",")
    return (
        fields["like"],
        fields["ipc"],
        _head(fields["method"]),
        _head(fields["pool"]),
        recipe,
        fields["architecture"],
    )


def _head(text: str) -> str:
    try:
        return parse_name(text).name if text else ""
    except UsageError:
        return text


def _distance(wanted: str, published: str) -> float:
    return abs(int(wanted) - int(published)) if wanted.isdecimal() and published.isdecimal() else float("inf")


@cache
def _candidates() -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key in _table():
        found.setdefault(_heads(dict(zip(_FIELDS, key, strict=True))), []).append(key)
    return found


@cache
def _table() -> dict[tuple[str, ...], Published]:
    return dict(_rows())


def _rows() -> Iterator[tuple[tuple[str, ...], Published]]:
    text = files("harness.report").joinpath("published.csv").read_text()
    for *key, mean, std, source in csv.reader(text.splitlines()[1:]):
        yield tuple(key), Published(float(mean), float(std) if std else None, source)
