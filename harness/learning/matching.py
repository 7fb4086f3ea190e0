"""Matching the gradients of synthetic and real images (DC, equation 8)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.learning.distances import Distance
from harness.learning.gradients import Reduced, gradient_in_slices, gradient_of
from harness.learning.parallel import side_by_side
from harness.learning.probe import draws_globally
from harness.learning.together import Pair, match_together
from harness.types.problem import Problem


def match_classes(
    network: nn.Module,
    problem: Problem,
    pair: Callable[[int], Pair],
    distance: Distance,
    reduced: Reduced,
) -> tuple[Tensor, Tensor]:
    """Match the gradient of each class's synthetic images with that of its real ones.

    Classes come one after the other on each core of a CPU, which is the joint step with a fraction of its memory, and
    at once on a GPU.

    Args:
        network: no layer of it couples the images of a batch.
        problem: gives classes and device.
        pair: what a class is matched on.
        distance: between the two gradients.
        reduced: the context in which the real gradient is taken (`Task.reduced_precision`).

    Returns:
        The sum of all classes' distances, which need not have been computed yet on a GPU, and its gradient with respect
        to their synthetic images, class by class.
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

    classes, draws = range(len(problem.classes)), draws_globally(network, problem)
    if problem.device.type != "cpu" and not draws:
        losses, gradients = match_together(network, [pair(label) for label in classes], distance, reduced)
        return losses.sum(dtype=torch.float64), torch.cat(gradients)
    workers = 1 if draws else None
    matched = list(side_by_side(match, classes, problem.device, workers))
    total = torch.tensor(sum(loss for loss, _ in matched), dtype=torch.float64)
    return total, torch.cat([gradient for _, gradient in matched])
