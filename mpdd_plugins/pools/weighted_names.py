"""Architectures with weights, as options write them: ``convnet:0.9``."""

import math

from harness import UsageError


def weighted(text: str) -> tuple[str, float | None]:
    """Split ``ARCHITECTURE:WEIGHT``; either half may be missing, so ``0.8`` and ``vgg11[norm=batch]`` are read too.

    Raises:
        ValueError: the weight is not in (0, 1].
    """
    name, _, weight = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    try:
        value = float(weight) if weight else None
    except ValueError:
        return text, None
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError(f"the weight in {text!r} should be above 0")
    return name, value


def main_of(text: str, *, architecture: str, probability: float) -> tuple[str, float]:
    """The main architecture and its probability, with defaults for the half that is missing."""
    name, value = weighted(text)
    return name or architecture, probability if value is None else value


def check_main(text: str) -> str:
    """A validator of an option that holds a main architecture and its probability.

    Raises:
        ValueError: the probability is above 1.
    """
    _, value = weighted(text)
    if value is not None and value > 1:
        raise ValueError("the main architecture's probability should be at most 1")
    return text


def merge(*parts: dict[str, float]) -> dict[str, float]:
    """Sum distributions that may name the same architecture."""
    merged: dict[str, float] = {}
    for part in parts:
        for name, probability in part.items():
            merged[name] = merged.get(name, 0.0) + probability
    return merged


def uniform(names: tuple[str, ...], total: float) -> dict[str, float]:
    """``total`` shared equally among ``names``.

    Raises:
        UsageError: there are no names to share it.
    """
    if not names and total > 0:
        raise UsageError("a pool needs at least one architecture beside the main one, or main=1")
    return merge(*({name: total / len(names)} for name in names))
