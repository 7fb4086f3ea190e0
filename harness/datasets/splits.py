"""Stratified splits: some images of each class, drawn without replacement."""

from collections.abc import Callable

import torch
from torch import Tensor

from harness.types.problem import Split
from harness.types.seeds import Streams


def cut(split: Split, count: Callable[[int], int], streams: Streams, role: str) -> tuple[Split, Split]:
    """Cut ``split`` in two, both parts in the original order.

    Args:
        split: what to cut.
        count: how many of a class's images go into the second part, for the number that it has.
        streams: where each class's draw comes from, by ``role`` and label.
        role: what the second part is for.

    Returns:
        The rest, and the part that was cut off.
    """
    taken = torch.zeros(len(split), dtype=torch.bool)
    for label in torch.unique(split.labels).tolist():
        members = torch.nonzero(split.labels == label).flatten()
        order = torch.randperm(len(members), generator=streams.generator(role, label))
        taken[members[order[: count(len(members))]]] = True
    return split[~taken], split[taken]


def classes_without(labels: Tensor, count: int, classes: int) -> list[int]:
    """The labels below ``classes`` that fewer than ``count`` images have."""
    counts = torch.bincount(labels, minlength=classes)
    return torch.nonzero(counts < count).flatten().tolist()
