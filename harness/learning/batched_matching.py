"""All classes in one launch sequence: on a GPU the few synthetic images of one class take less time than their launch.

Real images are another matter: the 256 of a class fill a GPU by themselves, and the weight gradients of several classes
at once would be grouped convolutions, which are seldom as fast as plain ones. So their gradients are taken class by
class, which also lets classes have unequal numbers of them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.nn import functional

from harness.compute.cuda_graphs import with_network
from harness.compute.precision import Reduced
from harness.learning.gradient_distances import Distance
from harness.learning.gradients import gradient_of
from harness.types.seeds import send

CLASSES_AT_ONCE = 10
"""So that memory does not grow with the number of classes: each holds gradients of the whole network, and a graph."""


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


def match_together(
    network: nn.Module, pairs: Sequence[Pair], distance: Distance, reduced: Reduced
) -> tuple[Tensor, list[Tensor]]:
    """Each pair's distance between real and synthetic gradient, and its gradient with respect to the synthetic images.

    The same as pair by pair, up to rounding. Nothing waits for the device.

    Args:
        network: shared by all; no layer may couple the images of a batch (batch norm has to be frozen) or draw from the
            global generator (dropout): such a network is matched class by class.
        pairs: any number of real images each, and equally many synthetic ones.
        distance: one of `DISTANCES`.
        reduced: gives a context for the real gradients.

    Returns:
        Distances (pairs,) without graph, and for each pair the gradient, of the shape of ``synthetic``.
    """
    parts = [pairs[first : first + CLASSES_AT_ONCE] for first in range(0, len(pairs), CLASSES_AT_ONCE)]
    matched = [_match(network, part, distance, reduced) for part in parts]
    return torch.cat([losses for losses, _ in matched]), [piece for _, pieces in matched for piece in pieces]


def _match(
    network: nn.Module, pairs: Sequence[Pair], distance: Distance, reduced: Reduced
) -> tuple[Tensor, Sequence[Tensor]]:
    leaves = [pair.synthetic.detach().requires_grad_() for pair in pairs]
    images = torch.stack([pair.transform(leaf) for pair, leaf in zip(pairs, leaves, strict=True)])
    labels = send(torch.tensor([pair.label for pair in pairs]), images.device)
    work = functools.partial(_distances, distance=distance, reduced=reduced)
    given = [images.detach(), labels, *(pair.real for pair in pairs)]
    losses, of_images = with_network(network, work, given, ("match", distance), reduced)
    return losses, torch.autograd.grad(images, leaves, of_images)


def _distances(
    network: nn.Module, images: Tensor, labels: Tensor, *real: Tensor, distance: Distance, reduced: Reduced
) -> tuple[Tensor, Tensor]:
    """Of each class the distance, and its gradient by the synthetic ``images`` (classes, ipc, ...) as transformed."""
    with reduced():
        told = [gradient_of(network, *one) for one in zip(real, map(_expanded, labels, real), strict=True)]
    targets = [torch.stack(parts) for parts in zip(*told, strict=True)]
    trained = {name: weight.detach() for name, weight in network.named_parameters() if weight.requires_grad}

    def loss(weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(network, dict(weights), (images,)), labels)

    def apart(images: Tensor, label: Tensor, target: list[Tensor]) -> Tensor:
        return distance(list(grad(loss)(trained, images, label.expand(len(images))).values()), target)

    # Both derivatives are taken within vmap: layer norm's second one through vmap's own rules is wrong (torch 2.14).
    of_images, losses = vmap(grad_and_value(apart))(images, labels, targets)
    return losses, of_images


def _expanded(label: Tensor, images: Tensor) -> Tensor:
    return label.expand(len(images))
