"""Published accuracies, which tables show beside measured ones."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from harness.report.comparing.arm_scores import ArmScores
from harness.types.names import Name, name_or_text

_FIELDS = ("like", "ipc", "iterations", "method", "pool", "protocol", "architecture")
"""The condition that a number was published for; fields that do not apply are empty."""


@dataclass(frozen=True)
class Published:
    """A published accuracy in percent, with the standard deviation that its authors give, if any."""

    accuracy: float
    std: float | None
    source: str

    def __str__(self) -> str:
        return f"{self.accuracy:.1f}" + ("" if self.std is None else f" ±{self.std:.1f}")


@dataclass(frozen=True)
class Nearest:
    """A published number for the same method, pool and architecture, and in what its condition differs."""

    published: Published
    departures: tuple[str, ...]


def published_beside(arm: ArmScores) -> Nearest | None:
    """Return the published number to show beside an arm; None if there is none or the arm has several architectures."""
    # Nobody publishes means over just these architectures.
    if len(arm.architectures) > 1:
        return None
    fields = (*_FIELDS, "score_on", "preprocessing", "hold_out")
    score = arm.scores[0]
    return nearest_published({name: score.full_name(name) for name in fields}, score.names)


def published_for(row: Mapping[str, Any]) -> Published | None:
    """Return the published number for exactly the condition of a row; None if there is none."""
    nearest = nearest_published(row)
    return nearest.published if nearest and not nearest.departures else None


def nearest_published(row: Mapping[str, Any], names: Mapping[str, Name] | None = None) -> Nearest | None:
    """Return the published number for the same data set, images per class, method, pool, evaluator and architecture.

    Of several, it is the one with the fewest departures, which are empty for exactly the same condition.

    Args:
        row: the fields of a table's row; a missing field counts as a departure.
        names: the row's method and pool, parsed; None for a row as ``--json`` prints it, whose names are text.
    """
    names = _names_in(row) if names is None else names
    wanted = {name: "" if row.get(name) is None else str(row[name]) for name in _FIELDS}
    candidates = [(_departures(row, wanted, key), key) for key in _candidates().get(_heads(wanted, names), ())]
    if not candidates:
        return None
    # Of equally close ones the nearest in iterations, then the first in order, so that the choice never varies.
    departures, key = min(
        candidates, key=lambda pair: (len(pair[0]), _distance(wanted["iterations"], pair[1][2]), pair[1])
    )
    return Nearest(_table()[key], departures)


def _departures(row: Mapping[str, Any], wanted: Mapping[str, str], key: tuple[str, ...]) -> tuple[str, ...]:
    """Describe in what the condition of a published number differs from the row."""
    words = {"iterations": "{} iterations", "protocol": "protocol {}", "method": "method {}", "pool": "pool {}"}
    published = dict(zip(_FIELDS, key, strict=True))
    differing = [text.format(published[name]) for name, text in words.items() if published[name] != wanted[name]]
    if row.get("score_on") != "test":
        differing.append("scored on test")
    elif row.get("hold_out"):
        differing.append("distilled from all training images")
    if row.get("preprocessing") != wanted["like"]:
        differing.append(f"normalised as {wanted['like']}")
    return tuple(differing)


def _heads(fields: Mapping[str, str], names: Mapping[str, Name]) -> tuple[str, ...]:
    """Return the values that must be equal for a published number to be shown at all."""
    method, pool = (names[kind].name if kind in names else "" for kind in ("method", "pool"))
    # The recipe without its version and departures, which _departures compares.
    recipe = fields["protocol"].split(" ")[0].rstrip(",")
    return (fields["like"], fields["ipc"], method, pool, recipe, fields["architecture"])


def _names_in(fields: Mapping[str, Any]) -> dict[str, Name]:
    return {kind: name_or_text(fields[kind]) for kind in ("method", "pool") if fields.get(kind)}


def _distance(wanted: str, published: str) -> float:
    return abs(int(wanted) - int(published)) if wanted.isdecimal() and published.isdecimal() else float("inf")


@cache
def _candidates() -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    by_heads: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key in _table():
        fields = dict(zip(_FIELDS, key, strict=True))
        by_heads.setdefault(_heads(fields, _names_in(fields)), []).append(key)
    return by_heads


@cache
def _table() -> dict[tuple[str, ...], Published]:
    return dict(_rows())


def _rows() -> Iterator[tuple[tuple[str, ...], Published]]:
    text = files("harness.report").joinpath("published.csv").read_text()
    for *key, mean, std, source in csv.reader(text.splitlines()[1:]):
        yield tuple(key), Published(float(mean), float(std) if std else None, source)
