"""Gradients of a network with respect to its weights."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.compute.compiling import logits_of
from harness.compute.network_traits import can_be_sliced
from harness.compute.parallel import side_by_side
from harness.compute.precision import Reduced

Gradient = Sequence[Tensor]
Parts = Sequence[Tensor | None]
"""A gradient in which weights that the loss does not depend on have none."""
GradientOfLoss = Callable[[nn.Module, Tensor, Callable[[Tensor], Tensor], Reduced], tuple[Tensor, Parts]]
"""From a network, images, a loss of their logits and a context to the loss and its gradient by the weights."""

SLICE = 32
"""Images that pass through a network at once: their activations stay in the cache."""


def gradient_of(network: nn.Module, images: Tensor, labels: Tensor, *, differentiable: bool = False) -> list[Tensor]:
    """Gradient of the mean cross-entropy with respect to all trainable parameters, in their order.

    Args:
        network: gives logits.
        images: (n, channels, height, width).
        labels: (n,) class indices or (n, classes) weights.
        differentiable: keep the graph, so that the gradient can itself be differentiated by ``images``.
    """
    logits = network(images) if differentiable else logits_of(network, images)
    loss = functional.cross_entropy(logits, labels)
    return list(torch.autograd.grad(loss, trainable(network), create_graph=differentiable))


def gradient_in_slices(network: nn.Module, images: Tensor, labels: Tensor, size: int = SLICE) -> list[Tensor]:
    """The same as `gradient_of`, from equal slices of at most ``size`` images: less memory, and quicker on a CPU.

    Exact, up to rounding, for every network. If its images cannot be taken apart, because batch norm uses the batch's
    own statistics or dropout draws for the whole batch, they take one pass, with the memory of one: slower, but never
    wrong. `freeze_statistics` makes batch norm ready for slices.

    Raises:
        ValueError: a slice has less than one image.
    """
    if size < 1:
        raise ValueError(f"a slice has at least one image, not {size}")
    if len(images) <= size or not can_be_sliced(network, images):
        return gradient_of(network, images, labels)
    total: list[Tensor] = []
    count = math.ceil(len(images) / size)
    for part, told in zip(torch.chunk(images, count), torch.chunk(labels, count), strict=True):
        gradient = [piece * (len(part) / len(images)) for piece in gradient_of(network, part, told)]
        total = [before + piece for before, piece in zip(total, gradient, strict=True)] if total else gradient
    return total


def as_a_whole(
    network: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor], reduced: Reduced
) -> tuple[Tensor, Parts]:
    """A loss of a batch's logits (n, classes), and its gradient with respect to all trainable parameters."""
    with reduced():
        logits = logits_of(network, images)
    value = loss(logits.to(images.dtype))
    return value.detach(), torch.autograd.grad(value, trainable(network), allow_unused=True)


def in_slices(
    network: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor], reduced: Reduced
) -> tuple[Tensor, Parts]:
    """The same, while equal slices of at most `SLICE` images pass through the network side by side, one core each.

    Exact, up to rounding, if `can_be_sliced`, which whoever trains asks once for all steps.
    """
    parts = torch.chunk(images, math.ceil(len(images) / SLICE))
    weights = trainable(network)

    def forward(part: int) -> Tensor:
        with reduced():
            return logits_of(network, parts[part]).to(images.dtype)

    def backward(part: int) -> Parts:
        return torch.autograd.grad(given[part], weights, outers[part], allow_unused=True)

    given = list(side_by_side(forward, range(len(parts)), images.device))
    logits = torch.cat([part.detach() for part in given]).requires_grad_()
    value = loss(logits)
    outers = torch.split(torch.autograd.grad(value, logits)[0], [len(part) for part in parts])
    first, *rest = side_by_side(backward, range(len(parts)), images.device)
    return value.detach(), [_sum(pieces) for pieces in zip(first, *rest, strict=True)]


def _sum(pieces: Parts) -> Tensor | None:
    """The sum in order; None where the loss depends on no such weight."""
    given = [piece for piece in pieces if piece is not None]
    return sum(given[1:], given[0]) if given else None


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """Parameters that ask for a gradient, in their order."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
