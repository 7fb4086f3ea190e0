"""The expected calibration error of a student: Guo, Pleiss, Sun and Weinberger, ICML 2017."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from harness import Metric, Network, Options, Problem, Streams, logits_for, option


class ECEOptions(Options):
    """Options of `ECE`."""

    bins: int = option(15, "bins of equal width between 0 and 1", source="Guo et al., 2017, section 5", ge=1)


class ECE(Metric[ECEOptions]):
    """The mean distance between the confidence and the accuracy of the scored images in bins of confidence.

    That is sum_b |B_b| / n |accuracy(B_b) - confidence(B_b)|, with the largest probability of an image as its
    confidence and the bins ((b - 1) / M, b / M]; between 0 and 1, lower is better. The probabilities are the softmax of
    the logits, also of students that were trained on regression labels, whose outputs are no logits.
    """

    Options = ECEOptions

    def measure(self, network: Network, problem: Problem, streams: Streams) -> Mapping[str, float]:
        """Return the error; NaN if an output is not finite."""
        logits = logits_for(network, problem, problem.score.images)
        return {"all": expected_calibration_error(logits, problem.score.labels.cpu(), self.options.bins)}

    def work(self, problem: Problem) -> float:
        """Return the passes over the scored images."""
        return float(len(problem.score))


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int) -> float:
    """Return the expected calibration error of logits (n, classes) for class indices (n,); NaN if one is not finite."""
    if not bool(torch.isfinite(logits).all()):
        return math.nan
    confidence, predicted = logits.double().softmax(1).max(1)
    right = (predicted == labels).double()
    # Bins include their upper edge, as in Guo et al.
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, right - confidence)
    return float(gaps.abs().sum() / len(labels))
