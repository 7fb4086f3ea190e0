"""The accuracy of a student on each class, and their mean."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from harness import Metric, Network, Options, Problem, Streams, logits_for

_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


class ClassAccuracy(Metric[Options]):
    """The accuracy on the scored images of each class, as ``class-accuracy.CLASS``, and its mean over classes.

    All are fractions. The mean is the balanced accuracy: that of all scored images if classes have equally many. A
    class without scored images has none, and is left out of the mean. Classes stand by their names if all of these
    consist of letters, digits and any of ``. _ -``, otherwise by the numbers of their labels.
    """

    def measure(self, network: Network, problem: Problem, streams: Streams) -> Mapping[str, float]:
        """Return the accuracies by class."""
        logits = logits_for(network, problem, problem.score.images)
        accuracies = accuracy_by_class(logits, problem.score.labels.cpu(), len(problem.classes))
        parts = dict(zip(_names(problem.classes), accuracies.tolist(), strict=True))
        return {**parts, "all": float(accuracies.nanmean())}

    def work(self, problem: Problem) -> float:
        """Return the passes over the scored images."""
        return float(len(problem.score))


def accuracy_by_class(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the share of right answers on each class (classes,), float64, from logits (n, classes) and labels (n,)."""
    right = (logits.argmax(1) == labels).double()
    hits = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, right)
    return hits / torch.bincount(labels, minlength=classes)


def _names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of classes as parts of a metric's name."""
    plain = all(_PLAIN.fullmatch(name) for name in classes) and "all" not in classes
    return classes if plain else tuple(map(str, range(len(classes))))
