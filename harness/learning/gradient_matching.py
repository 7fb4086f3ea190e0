"""Matching the gradients of synthetic and real images (DC, equation 8)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.compute.network_traits import can_be_sliced, draws_globally
from harness.compute.parallel import side_by_side
from harness.compute.precision import Reduced
from harness.learning.batched_matching import Pair, match_together
from harness.learning.gradient_distances import Distance
from harness.learning.gradients import gradient_in_slices, gradient_of
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
        network: any; where a layer couples the images of a batch, or draws from the process's generator (dropout), the
            images of each class are one batch, and classes come one by one.
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

    classes = range(len(problem.classes))
    if problem.device.type != "cpu" and can_be_sliced(network, torch.zeros(2, *problem.shape, device=problem.device)):
        losses, gradients = match_together(network, [pair(label) for label in classes], distance, reduced)
        return losses.sum(dtype=torch.float64), torch.cat(gradients)
    # Running statistics belong to the network and the generator to the process: only one thread may change them.
    in_turn = draws_globally(network, problem) or any(_updates_statistics(module) for module in network.modules())
    workers = 1 if in_turn else None
    matched = list(side_by_side(match, classes, problem.device, workers))
    total = torch.tensor(sum(loss for loss, _ in matched), dtype=torch.float64)
    return total, torch.cat([gradient for _, gradient in matched])


def _updates_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.training and module.track_running_stats
