"""Matching the gradients of synthetic and real images, class by class (DC, equation 8)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.compute.network_traits import can_be_sliced, draws_globally
from harness.compute.parallel import side_by_side
from harness.compute.precision import PrecisionContext
from harness.learning.batched_matching import Pair, match_together
from harness.learning.gradient_distances import Distance
from harness.learning.gradients import gradient_in_slices, gradient_of
from harness.types.problem import Problem


def match_classes(
    network: nn.Module,
    problem: Problem,
    pair: Callable[[int], Pair],
    distance: Distance,
    reduced: PrecisionContext,
) -> tuple[Tensor, Tensor]:
    """Match the gradient of each class's synthetic images with that of its real ones.

    On a CPU each core takes a class at a time, which gives the gradient of the joint loss with a fraction of its
    memory; a GPU takes all classes at once.

    Args:
        network: any network. If a layer couples the images of a batch, or draws from the process-wide generator
            (dropout), classes are matched in turn, and the images of each are one batch.
        problem: provides the classes and the device.
        pair: returns the images that a class, by its index, is matched on.
        distance: distance of the two gradients, one of `DISTANCES`.
        reduced: context in which the gradient of the real images is taken (`Task.reduced_precision`).

    Returns:
        The sum of all classes' distances (a float64 scalar, which a GPU may still be computing), and its gradient
        (classes * ipc, c, h, w) with respect to the synthetic images, class by class.
    """

    def match(label: int) -> tuple[float, Tensor]:
        batch = pair(label)
        labels = torch.full((len(batch.real),), label, device=batch.real.device)
        # Only this gradient may be in reduced precision: it is a constant of the loss, while that of the synthetic
        # images is differentiated once more.
        with reduced():
            target = gradient_in_slices(network, batch.real, labels)
        # A leaf of its own for each class: the graphs of two threads share nothing that autograd would write to.
        synthetic = batch.synthetic.detach().requires_grad_()
        labels = labels.new_full((len(synthetic),), label)
        gradient = gradient_of(network, batch.transform(synthetic), labels, differentiable=True)
        loss = distance(gradient, target)
        (of_images,) = torch.autograd.grad(loss, synthetic)
        return loss.item(), of_images

    classes = range(len(problem.classes))
    if problem.device.type != "cpu" and can_be_sliced(network, torch.zeros(2, *problem.shape, device=problem.device)):
        losses, gradients = match_together(network, [pair(label) for label in classes], distance, reduced)
        return losses.sum(dtype=torch.float64), torch.cat(gradients)
    # Running statistics belong to the network, and the generator to the process: with several threads, the result
    # would depend on which of them comes first.
    in_turn = draws_globally(network, problem) or any(_updates_statistics(module) for module in network.modules())
    workers = 1 if in_turn else None
    matched = list(side_by_side(match, classes, problem.device, workers))
    total = torch.tensor(sum(loss for loss, _ in matched), dtype=torch.float64)
    return total, torch.cat([gradient for _, gradient in matched])


def _updates_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.training and module.track_running_stats
