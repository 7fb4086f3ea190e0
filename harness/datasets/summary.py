"""Summaries of data sets: classes, counts, sizes and pixels, so that a mistake in one's own data is seen at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from harness.types.data.preprocessing import Normalize
from harness.types.plurals import counted
from harness.types.problem import Problem, Split

_MOST_NAMES = 10
"""Class names of a line; the others are counted."""


@dataclass(frozen=True, eq=False)
class DatasetSummary:
    """What a problem's real images are, for people and programs."""

    problem: Problem

    @cached_property
    def counts(self) -> tuple[list[int], list[int]]:
        """The numbers of training images and of scored images by label."""
        return self._by_label(self.problem.train), self._by_label(self.problem.score)

    @cached_property
    def moments(self) -> Normalize:
        """The mean and standard deviation of each channel of the training images, of pixels in [0, 1]."""
        own = self.problem.preprocessing
        if isinstance(own, Normalize) and own.name == "auto":
            return own
        return Normalize.computed(self.problem.train.images)

    def as_json(self) -> dict[str, Any]:
        """Return the summary for programs."""
        problem, (train, score) = self.problem, self.counts
        smallest = train.index(min(train))
        channels, height, width = problem.shape
        return {
            "classes": [
                {"name": name, "train": train[label], problem.score_on: score[label]}
                for label, name in enumerate(problem.classes)
            ],
            "train": len(problem.train),
            problem.score_on: len(problem.score),
            "smallest_class": {"name": problem.classes[smallest], "train": train[smallest]},
            "shape": {"channels": channels, "height": height, "width": width},
            "mean": _rounded(self.moments.mean),
            "std": _rounded(self.moments.std),
            "preprocessing": problem.preprocessing.name,
        }

    def lines(self) -> tuple[str, str]:
        """Return the summary in two lines for people."""
        problem, (train, _) = self.problem, self.counts
        channels, height, width = problem.shape
        smallest, largest = min(train), max(train)
        equal = f"{smallest:,} of each class" if smallest == largest else self._smallest(train)
        images = f"{len(problem.train):,} training and {len(problem.score):,} {problem.score_on} images"
        colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
        mean, std = (" ".join(f"{value:.3f}" for value in part.tolist()) for part in self.moments.tensors().values())
        own = problem.preprocessing
        how = "normalised by these" if own is self.moments else f"preprocessing: {own.name}"
        return (
            f"{problem.name}: {counted(len(problem.classes), 'class', 'classes')} ({_names(problem.classes)}); "
            f"{images} ({equal})",
            f"{problem.name}: images of {height}x{width} pixels, {colour}; mean {mean}, std {std}; {how}",
        )

    def _smallest(self, train: Sequence[int]) -> str:
        label = train.index(min(train))
        return f"{train[label]:,} to {max(train):,} of a class, fewest of {self.problem.classes[label]}"

    def _by_label(self, split: Split) -> list[int]:
        counts: list[int] = torch.bincount(split.labels, minlength=len(self.problem.classes)).tolist()
        return counts


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _names(classes: Sequence[str]) -> str:
    more = f", and {len(classes) - _MOST_NAMES} more" if len(classes) > _MOST_NAMES else ""
    return ", ".join(classes[:_MOST_NAMES]) + more
