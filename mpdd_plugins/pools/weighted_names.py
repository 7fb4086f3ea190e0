"""Architectures with weights, as options of pools hold them: ``convnet:0.9``."""

import math

from harness import UsageError


def weighted(text: str) -> tuple[str, float | None]:
    """Parse ``ARCHITECTURE:WEIGHT``, of which either half may be missing, as in ``0.8`` and ``vgg11[norm=batch]``.

    Returns:
        The name, empty if it is missing, and the weight, None if it is missing.

    Raises:
        ValueError: the weight is not a number above 0.
    """
    # A colon can also stand inside of the brackets, in the value of an option.
    name, _, weight = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    try:
        value = float(weight) if weight else None
    except ValueError:
        return text, None  # the colon belongs to the name, as in my-plugins:convnet
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError(f"the weight in {text!r} should be above 0")
    return name, value


def main_of(text: str, *, architecture: str, probability: float) -> tuple[str, float]:
    """Parse a main architecture and its probability, with defaults for the half that is missing."""
    name, value = weighted(text)
    return name or architecture, probability if value is None else value


def check_main(text: str) -> str:
    """Validate an option that holds a main architecture and its probability.

    Raises:
        ValueError: the probability is above 1.
    """
    _, value = weighted(text)
    if value is not None and value > 1:
        raise ValueError("the main architecture's probability should be at most 1")
    return text


def merge(*parts: dict[str, float]) -> dict[str, float]:
    """Return the sum of distributions, which may name the same architecture."""
    merged: dict[str, float] = {}
    for part in parts:
        for name, probability in part.items():
            merged[name] = merged.get(name, 0.0) + probability
    return merged


def uniform(names: tuple[str, ...], total: float) -> dict[str, float]:
    """Return a distribution that shares ``total`` equally among ``names``.

    Raises:
        UsageError: there are no names, and ``total`` is above 0.
    """
    if not names and total > 0:
        raise UsageError("a pool needs at least one architecture beside the main one, or main=1")
    # merge, because a name may be listed twice, and then has two shares.
    return merge(*({name: total / len(names)} for name in names))
