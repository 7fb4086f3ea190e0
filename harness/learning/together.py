"""All classes in one launch sequence: on a GPU the few synthetic images of one class take less time than their launch.

Real images are another matter: the 256 of a class fill a GPU by themselves, and the weight gradients of several classes
at once would be grouped convolutions, which are seldom as fast as plain ones. So their gradients are taken class by
class, which also lets classes have unequal numbers of them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.nn import functional

from harness.learning.gradients import Reduced, gradient_of

if TYPE_CHECKING:  # which decides who comes here, and so imports this
    from harness.learning.matching import Distance, Pair

CLASSES_AT_ONCE = 10
"""So that memory does not grow with the number of classes: each holds gradients of the whole network, and a graph."""


def match_together(
    network: nn.Module, pairs: "Sequence[Pair]", distance: "Distance", reduced: Reduced
) -> tuple[Tensor, list[Tensor]]:
    """Each pair's distance between real and synthetic gradient, and its gradient with respect to the synthetic images.

    The same as pair by pair, up to rounding. Nothing waits for the device.

    Args:
        network: shared by all; no layer may couple the images of a batch (batch norm has to be frozen) or draw from the
            global generator (dropout): such a network is matched class by class.
        pairs: any number of real images each, and equally many synthetic ones.
        distance: one of `harness.learning.matching.DISTANCES`.
        reduced: gives a context for the real gradients.

    Returns:
        Distances (pairs,) without graph, and for each pair the gradient, of the shape of ``synthetic``.
    """
    parts = [pairs[first : first + CLASSES_AT_ONCE] for first in range(0, len(pairs), CLASSES_AT_ONCE)]
    matched = [_match(network, part, distance, reduced) for part in parts]
    return torch.cat([losses for losses, _ in matched]), [piece for _, pieces in matched for piece in pieces]


def _match(
    network: nn.Module, pairs: "Sequence[Pair]", distance: "Distance", reduced: Reduced
) -> tuple[Tensor, Sequence[Tensor]]:
    with reduced():
        told = [gradient_of(network, pair.real, _labels(pair, pair.real)) for pair in pairs]
    targets = [torch.stack(parts) for parts in zip(*told, strict=True)]
    trained = {name: weight.detach() for name, weight in network.named_parameters() if weight.requires_grad}

    def loss(weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(functional_call(network, dict(weights), (images,)), labels)

    def apart(images: Tensor, labels: Tensor, target: list[Tensor]) -> Tensor:
        return distance(list(grad(loss)(trained, images, labels).values()), target)

    leaves = [pair.synthetic.detach().requires_grad_() for pair in pairs]
    images = torch.stack([pair.transform(leaf) for pair, leaf in zip(pairs, leaves, strict=True)])
    labels = torch.stack([_labels(pair, leaf) for pair, leaf in zip(pairs, leaves, strict=True)])
    # Both derivatives are taken within vmap: layer norm's second one through vmap's own rules is wrong (torch 2.14).
    of_images, losses = vmap(grad_and_value(apart))(images.detach(), labels, targets)
    return losses, torch.autograd.grad(images, leaves, of_images)


def _labels(pair: "Pair", images: Tensor) -> Tensor:
    return torch.full((len(images),), pair.label, device=images.device)
