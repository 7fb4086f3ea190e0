"""Gradient matching of several classes at once: launching one class's kernels takes a GPU longer than running them.

Only the synthetic images are batched over classes. The 256 real images of a class fill a GPU by themselves, and the
weight gradients of several classes at once would be grouped convolutions, which are seldom as fast as plain ones. So
the gradients of real images are taken class by class, which also allows classes to have unequal numbers of them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.nn import functional

from harness.compute.cuda_graphs import with_network
from harness.compute.precision import PrecisionContext
from harness.learning.gradient_distances import Distance
from harness.learning.gradients import gradient_of
from harness.types.seeds import send

CLASSES_AT_ONCE = 10
"""Classes that are matched at once: each holds gradients of the whole network and a graph, so this bounds memory."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The real and the synthetic images of one class whose gradients are matched (DC, equation 8).

    Attributes:
        label: index of the class.
        real: real images (n, c, h, w), already transformed.
        synthetic: synthetic images (ipc, c, h, w), not yet transformed.
        transform: differentiable function that is applied to ``synthetic``; it keeps the number of images.
    """

    label: int
    real: Tensor
    synthetic: Tensor
    transform: Callable[[Tensor], Tensor]


def match_together(
    network: nn.Module, pairs: Sequence[Pair], distance: Distance, reduced: PrecisionContext
) -> tuple[Tensor, list[Tensor]]:
    """Return each pair's gradient distance, and its gradient with respect to the synthetic images.

    The result equals that of matching pair by pair, up to rounding. The call does not wait for the device.

    Args:
        network: shared by all pairs. No layer may couple the images of a batch (batch norm has to be frozen) or draw
            from the global generator (dropout); such a network has to be matched class by class.
        pairs: each with any number of real images; all with the same number of synthetic ones.
        distance: one of `DISTANCES`.
        reduced: context in which the gradients of the real images are taken.

    Returns:
        Distances (pairs,) without graph, and for each pair a gradient of the shape of ``synthetic``.
    """
    parts = [pairs[first : first + CLASSES_AT_ONCE] for first in range(0, len(pairs), CLASSES_AT_ONCE)]
    matched = [_match(network, part, distance, reduced) for part in parts]
    return torch.cat([losses for losses, _ in matched]), [piece for _, pieces in matched for piece in pieces]


def _match(
    network: nn.Module, pairs: Sequence[Pair], distance: Distance, reduced: PrecisionContext
) -> tuple[Tensor, Sequence[Tensor]]:
    leaves = [pair.synthetic.detach().requires_grad_() for pair in pairs]
    # (classes, ipc, c, h, w). Transforms differ from class to class and need not be known to vmap, so they stay outside
    # of it (and of a recording), and the chain rule goes through them at the end.
    images = torch.stack([pair.transform(leaf) for pair, leaf in zip(pairs, leaves, strict=True)])
    labels = send(torch.tensor([pair.label for pair in pairs]), images.device)
    work = functools.partial(_distances, distance=distance, reduced=reduced)
    inputs = [images.detach(), labels, *(pair.real for pair in pairs)]
    losses, of_images = with_network(network, work, inputs, ("match", distance), reduced)
    return losses, torch.autograd.grad(images, leaves, of_images)


def _distances(
    network: nn.Module, images: Tensor, labels: Tensor, *real: Tensor, distance: Distance, reduced: PrecisionContext
) -> tuple[Tensor, Tensor]:
    """Return distances (classes,) and gradients by the transformed synthetic ``images`` (classes, ipc, c, h, w)."""
    with reduced():
        gradients = [gradient_of(network, *batch) for batch in zip(real, map(_expanded, labels, real), strict=True)]
    # One tensor (classes, *weight.shape) for each weight, so that vmap can run over the classes.
    targets = [torch.stack(parts) for parts in zip(*gradients, strict=True)]
    # Weights are constants of the matching: without a graph of their own, neither derivative reaches into them.
    trained = {name: weight.detach() for name, weight in network.named_parameters() if weight.requires_grad}

    def loss(weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(network, dict(weights), (images,)), labels)

    def distance_to(images: Tensor, label: Tensor, target: list[Tensor]) -> Tensor:
        return distance(list(grad(loss)(trained, images, label.expand(len(images))).values()), target)

    # Both derivatives are taken inside of vmap. With the outer one outside, layer norm would be differentiated twice
    # through vmap's batching rule, whose second derivative is wrong (torch 2.14).
    of_images, losses = vmap(grad_and_value(distance_to))(images, labels, targets)
    return losses, of_images


def _expanded(label: Tensor, images: Tensor) -> Tensor:
    return label.expand(len(images))
