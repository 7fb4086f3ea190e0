"""Counts in words: one student, two students."""

from collections.abc import Sequence


def counted(number: int, noun: str, several: str = "") -> str:
    """Return a number with its noun in the right form; ``several`` is the plural if it does not end in s."""
    return f"{number:,} {plural(number, noun, several)}"


def plural(number: int, noun: str, several: str = "") -> str:
    """Return the noun alone, or a verb: ``plural(number, "is", "are")``."""
    return noun if number == 1 else several or f"{noun}s"


def count_range(numbers: Sequence[int], noun: str) -> str:
    """Describe the least and the largest of several counts: ``2 students``, ``1 to 3 students``."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return counted(low, noun) if low == high else f"{low:,} to {counted(high, noun)}"
