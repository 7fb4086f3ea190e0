"""Matching the gradients of synthetic and real images, and how far two are apart (DC, equations 7 to 9)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.learning.gradients import Gradient, Reduced, gradient_in_slices, gradient_of
from harness.learning.parallel import side_by_side
from harness.learning.probe import draws_globally
from harness.types.problem import Problem

Distance = Callable[[Gradient, Gradient], Tensor]


@dataclass(frozen=True, eq=False)
class Pair:
    """What one class is matched on.

    Attributes:
        label: the class.
        real: its real images, transformed (n, channels, height, width).
        synthetic: its synthetic ones as they stand (ipc, channels, height, width).
        transform: what has to be done to these: differentiable.
    """

    label: int
    real: Tensor
    synthetic: Tensor
    transform: Callable[[Tensor], Tensor]


def match_classes(
    network: nn.Module,
    problem: Problem,
    pair: Callable[[int], Pair],
    distance: Distance,
    reduced: Reduced,
) -> tuple[float, Tensor]:
    """Match the gradient of each class's synthetic images with that of its real ones.

    Classes come one after the other on each core of a CPU, which is the joint step with a fraction of its memory.

    Args:
        network: no layer of it couples the images of a batch.
        problem: gives classes and device.
        pair: what a class is matched on.
        distance: between the two gradients.
        reduced: the context in which the real gradient is taken (`Task.reduced_precision`).

    Returns:
        The sum of all classes' distances, and its gradient with respect to their synthetic images, class by class.
    """

    def match(label: int) -> tuple[float, Tensor]:
        given = pair(label)
        labels = torch.full((len(given.real),), label, device=given.real.device)
        with reduced():
            target = gradient_in_slices(network, given.real, labels)
        synthetic = given.synthetic.detach().requires_grad_()
        labels = labels.new_full((len(synthetic),), label)
        gradient = gradient_of(network, given.transform(synthetic), labels, differentiable=True)
        loss = distance(gradient, target)
        (of_images,) = torch.autograd.grad(loss, synthetic)
        return loss.item(), of_images

    workers = 1 if draws_globally(network, problem) else None
    matched = list(side_by_side(match, range(len(problem.classes)), problem.device, workers))
    return sum(loss for loss, _ in matched), torch.cat([gradient for _, gradient in matched])


def layerwise_cosine(first: Gradient, second: Gradient) -> Tensor:
    """DC's own distance: for each row of each weight tensor 1 - cosine, summed.

    A row holds the weights into one output: convolutions (out, in, k, k) are read as (out, in k k), a layer norm's
    (channels, h, w) as (channels, h w). Vectors (biases, scales of norms) do not count, as in the reference. 1e-6 is
    added to the product of the norms; a row of zeros counts as 1.
    """
    total: Tensor = first[0].new_zeros(())
    for a, b in zip(first, second, strict=True):
        if a.ndim < 2:
            continue
        a, b = a.flatten(1), b.flatten(1)
        total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def squared_difference(first: Gradient, second: Gradient) -> Tensor:
    """Sum of squared differences over all parameters, biases included."""
    return (_flat(first) - _flat(second)).square().sum()


def cosine(first: Gradient, second: Gradient) -> Tensor:
    """1 - cosine of all parameters taken as one vector; 1e-6 is added to the product of the norms."""
    a, b = _flat(first), _flat(second)
    distance: Tensor = 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6)
    return distance


DISTANCES: dict[str, Distance] = {"layerwise": layerwise_cosine, "mse": squared_difference, "cosine": cosine}


def _flat(gradient: Gradient) -> Tensor:
    return torch.cat([part.flatten() for part in gradient])
