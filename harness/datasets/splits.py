"""Stratified splits: some images of each class, drawn without replacement."""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.types.problem import Split
from harness.types.seeds import Streams


def cut(split: Split, count: Callable[[int], int], streams: Streams, role: str) -> tuple[Split, Split]:
    """Cut ``split`` in two parts, both in the original order.

    Args:
        split: the images to divide.
        count: maps the number of a class's images to how many of them go into the second part.
        streams: the random streams; each class's draw is named by ``role`` and label.
        role: the purpose of the second part.

    Returns:
        The rest, and the part that was cut off.
    """
    rest, taken = cut_indices(split.labels, count, streams, role)
    return split[rest], split[taken]


def cut_indices(labels: Tensor, count: Callable[[int], int], streams: Streams, role: str) -> tuple[Tensor, Tensor]:
    """Return the ascending indices of the two parts that `cut` returns, for the labels (n,) of a split."""
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.unique(labels).tolist():
        members = torch.nonzero(labels == label).flatten()
        # A stream for each class: adding a class changes no other class's draw.
        order = torch.randperm(len(members), generator=streams.generator(role, label))
        taken[members[order[: count(len(members))]]] = True
    return torch.nonzero(~taken).flatten(), torch.nonzero(taken).flatten()


def classes_without(labels: Tensor, count: int, classes: int) -> list[int]:
    """Return the labels below ``classes`` that fewer than ``count`` images have."""
    counts = torch.bincount(labels, minlength=classes)
    return torch.nonzero(counts < count).flatten().tolist()
