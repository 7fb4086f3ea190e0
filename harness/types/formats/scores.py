"""Accuracies that are stored with a set: lists of fractions by architecture."""

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

SCORES = "stored_accuracies"
"""The key of the accuracies in a set's provenance."""

_LARGEST = 1e6
_LONGEST_NAME, _MOST_SHOWN = 60, 12


def scores_of(value: Any) -> dict[str, list[float]]:  # noqa: ANN401
    """Return the lists of numbers in a dictionary as plain floats; other entries are left out."""
    lists = value.items() if isinstance(value, Mapping) else ()
    return {_name(name): [float(accuracy) for accuracy in values] for name, values in lists if _are_numbers(values)}


def format_scores(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one line with the accuracies that were stored with a set; empty if there are none."""
    scores = scores_of(provenance.get(SCORES))
    parts = [
        f"{architecture} {100 * statistics.fmean(values):.2f}"
        + (f"±{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "")
        + f" ({len(values)})"
        for architecture, values in list(scores.items())[:_MOST_SHOWN]
    ]
    parts += [f"and {len(scores) - _MOST_SHOWN} more"] if len(scores) > _MOST_SHOWN else []
    return (f"stored in the file, in % (students): {', '.join(parts)}",) if parts else ()


def _are_numbers(values: Any) -> bool:  # noqa: ANN401
    return isinstance(values, list | tuple) and bool(values) and all(map(_is_score, values))


def _is_score(value: object) -> bool:
    # Published files hold NumPy scalars, which JSON cannot store.
    plain = value.item() if isinstance(value, np.generic) else value
    return isinstance(plain, int | float) and -_LARGEST < plain < _LARGEST


def _name(value: object) -> str:
    """Return a name as text that can neither control a terminal nor fill it."""
    text = str(value)
    shown = text if text.isprintable() else repr(text)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[:_LONGEST_NAME]}..."
