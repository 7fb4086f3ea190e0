"""Matching the gradients of synthetic and real images: class by class (DC, equation 8), or of all classes (DCC)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.compute.network_traits import can_be_sliced, draws_globally
from harness.compute.parallel import side_by_side
from harness.compute.precision import PrecisionContext
from harness.compute.process_group import active_group
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
    memory; a GPU takes all classes at once. The processes of a job (`harness.compute.process_group`) share the classes.

    Args:
        network: any network. If a layer couples the images of a batch, or draws from the process-wide generator
            (dropout), classes are matched in turn, and the images of each are one batch. One that ``recomputes``
            activations is matched class by class on a GPU, too.
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
        target = _real_gradient(network, batch, reduced)
        # A leaf of its own for each class: the graphs of two threads share nothing that autograd would write to.
        synthetic = batch.synthetic.detach().requires_grad_()
        labels = torch.full((len(synthetic),), label, device=synthetic.device)
        gradient = gradient_of(network, batch.transform(synthetic), labels, differentiable=True)
        loss = distance(gradient, target)
        (of_images,) = torch.autograd.grad(loss, synthetic)
        return loss.item(), of_images

    def match_at_once(labels: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        return match_together(network, [pair(label) for label in labels], distance, reduced)

    classes, group = range(len(problem.classes)), active_group()
    if problem.device.type != "cpu" and _can_be_batched(network, problem):
        if group is None:
            losses, gradients = match_at_once(classes)
            return losses.sum(dtype=torch.float64), torch.cat(gradients)
        received = group.spread(lambda own: _on_the_cpu(*match_at_once(own)), len(classes))
        losses, of_all = (torch.stack(parts).to(problem.device) for parts in zip(*received, strict=True))
        return losses.sum(dtype=torch.float64), of_all.flatten(0, 1)
    workers = _workers(network, problem)
    # Classes that have to be taken in turn change the network or the generator, so that each process takes all of them.
    if group is None or workers == 1:
        matched = list(side_by_side(match, classes, problem.device, workers))
    else:
        matched = group.spread(lambda own: list(side_by_side(match, own, problem.device)), len(classes))
    total = torch.tensor(sum(loss for loss, _ in matched), dtype=torch.float64)
    return total, torch.cat([gradient for _, gradient in matched])


def match_collectively(
    network: nn.Module,
    problem: Problem,
    pair: Callable[[int], Pair],
    distance: Distance,
    reduced: PrecisionContext,
) -> tuple[Tensor, Tensor]:
    """Match the gradient of all synthetic images with the mean of the classes' real gradients (DCC, Lee et al.).

    The loss is D(1/C sum over c of g(T_c), g(X)): one distance, with the gradient of the mean cross-entropy of all
    synthetic images, where DC sums the distances of the classes.

    Args:
        network: any network; if a layer couples the images of a batch or draws random numbers, all synthetic images
            pass through it as one batch.
        problem: provides the classes and the device.
        pair: returns the images that a class, by its index, is matched on.
        distance: distance of the two gradients, one of `DISTANCES`.
        reduced: context in which the gradients of the real images are taken (`Task.reduced_precision`).

    Returns:
        The distance (a float64 scalar), and its gradient (classes * ipc, c, h, w) with respect to the synthetic images,
        class by class.
    """
    pairs = [pair(label) for label in range(len(problem.classes))]
    leaves = [each.synthetic.detach().requires_grad_() for each in pairs]
    labels = [
        torch.full((len(leaf),), each.label, device=leaf.device) for each, leaf in zip(pairs, leaves, strict=True)
    ]
    workers = _workers(network, problem)

    def real_gradient(label: int) -> list[Tensor]:
        return _real_gradient(network, pairs[label], reduced)

    def gradient_of_class(label: int, *, differentiable: bool = False) -> Sequence[Tensor]:
        images = pairs[label].transform(leaves[label])
        return gradient_of(network, images, labels[label], differentiable=differentiable)

    classes = range(len(pairs))
    target = _mean(list(side_by_side(real_gradient, classes, problem.device, workers)))
    sliced = problem.device.type == "cpu" and workers is None
    if not sliced or not can_be_sliced(network, torch.cat([leaf.detach()[:2] for leaf in leaves])):
        images = torch.cat([each.transform(leaf) for each, leaf in zip(pairs, leaves, strict=True)])
        gradient = gradient_of(network, images, torch.cat(labels), differentiable=True)
        loss = distance(gradient, target)
        return loss.detach().double(), torch.cat(torch.autograd.grad(loss, leaves))
    # On a CPU class by class, one core each, with the memory of a class's graph: the distance of the mean gradient is
    # differentiated by that gradient, and the chain rule then goes through each class's part of the mean.
    shares = [len(leaf) / sum(map(len, leaves)) for leaf in leaves]
    parts = list(side_by_side(gradient_of_class, classes, problem.device))
    whole = [piece.requires_grad_() for piece in _mean(parts, shares)]
    loss = distance(whole, target)
    slopes = torch.autograd.grad(loss, whole, allow_unused=True)  # a distance may leave out weights, such as vectors

    def of_images(label: int) -> Tensor:
        own = gradient_of_class(label, differentiable=True)
        sums = [(piece * slope).sum() for piece, slope in zip(own, slopes, strict=True) if slope is not None]
        return torch.autograd.grad(torch.stack(sums).sum() * shares[label], leaves[label])[0]

    return loss.detach().double(), torch.cat(list(side_by_side(of_images, classes, problem.device)))


def _can_be_batched(network: nn.Module, problem: Problem) -> bool:
    # torch.func cannot compute activations again.
    if getattr(network, "recomputes", False):
        return False
    return can_be_sliced(network, torch.zeros(2, *problem.shape, device=problem.device))


def _on_the_cpu(losses: Tensor, gradients: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return each class's loss and gradient as they are sent to other processes."""
    return [(loss.cpu(), gradient.cpu()) for loss, gradient in zip(losses, gradients, strict=True)]


def _real_gradient(network: nn.Module, pair: Pair, reduced: PrecisionContext) -> list[Tensor]:
    """Return the gradient of the cross-entropy of a class's real images."""
    labels = torch.full((len(pair.real),), pair.label, device=pair.real.device)
    # Only this gradient may be in reduced precision: it is a constant of the loss, while that of the synthetic images
    # is differentiated once more.
    with reduced():
        return gradient_in_slices(network, pair.real, labels)


def _mean(gradients: Sequence[Sequence[Tensor]], shares: Sequence[float] | None = None) -> list[Tensor]:
    """Return the mean of gradients, weight by weight; each counts by its share, by default equally."""
    weights = shares or [1 / len(gradients)] * len(gradients)
    return [
        torch.stack([piece * weight for piece, weight in zip(pieces, weights, strict=True)]).sum(0)
        for pieces in zip(*gradients, strict=True)
    ]


def _workers(network: nn.Module, problem: Problem) -> int | None:
    """Return 1 if classes have to be taken in turn; otherwise None, one worker per core."""
    # Running statistics belong to the network, and the generator to the process: with several threads, the result
    # would depend on which of them comes first.
    in_turn = draws_globally(network, problem) or any(_updates_statistics(module) for module in network.modules())
    return 1 if in_turn else None


def _updates_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.training and module.track_running_stats
