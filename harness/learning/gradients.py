"""Gradients of a loss with respect to a network's weights, of a whole batch or in slices."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.compute.compiling import logits_of
from harness.compute.network_traits import can_be_sliced
from harness.compute.parallel import SLICE, side_by_side
from harness.compute.precision import PrecisionContext

Gradient = Sequence[Tensor]
"""One tensor for each trainable weight, of its shape and in the order of `torch.nn.Module.parameters`."""
Parts = Sequence[Tensor | None]
"""A gradient with None for each weight that the loss does not depend on."""
GradientOfLoss = Callable[[nn.Module, Tensor, Callable[[Tensor], Tensor], PrecisionContext], tuple[Tensor, Parts]]
"""Maps a network, images, a loss of their logits and a context to the loss and its gradient by the weights."""


def gradient_of(network: nn.Module, images: Tensor, labels: Tensor, *, differentiable: bool = False) -> list[Tensor]:
    """Return the gradient of the mean cross-entropy with respect to all trainable parameters, in their order.

    Args:
        network: maps images to logits (n, classes).
        images: network inputs (n, c, h, w).
        labels: class indices (n,) or class weights (n, classes).
        differentiable: keep the graph, so that the gradient can itself be differentiated by ``images``.
    """
    # The quick ways of `logits_of` have no second derivative, so double backward takes the network as it is.
    logits = network(images) if differentiable else logits_of(network, images)
    loss = functional.cross_entropy(logits, labels)
    return list(torch.autograd.grad(loss, trainable(network), create_graph=differentiable))


def gradient_in_slices(network: nn.Module, images: Tensor, labels: Tensor, size: int = SLICE) -> list[Tensor]:
    """Return what `gradient_of` does, from nearly equal slices: with less memory, and faster on a CPU.

    The result is exact up to rounding for every network. If the images of a batch cannot be separated, because batch
    norm uses the batch's own statistics or dropout draws for the whole batch, they take one pass: slower, but never
    wrong. `freeze_statistics` makes batch norm ready for slices.

    Args:
        network: maps images to logits (n, classes).
        images: network inputs (n, c, h, w).
        labels: class indices (n,) or class weights (n, classes).
        size: most images of a slice.

    Raises:
        ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"a slice has at least one image, not {size}")
    if len(images) <= size or not can_be_sliced(network, images):
        return gradient_of(network, images, labels)
    total: list[Tensor] = []
    count = math.ceil(len(images) / size)
    for part, own_labels in zip(torch.chunk(images, count), torch.chunk(labels, count), strict=True):
        # Each slice's loss is a mean over its own images, so its gradient counts by its share of the batch.
        gradient = [piece * (len(part) / len(images)) for piece in gradient_of(network, part, own_labels)]
        total = [before + piece for before, piece in zip(total, gradient, strict=True)] if total else gradient
    return total


def as_a_whole(
    network: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor], reduced: PrecisionContext
) -> tuple[Tensor, Parts]:
    """Return a loss of a batch's logits (n, classes), and its gradient with respect to all trainable parameters."""
    with reduced():
        logits = logits_of(network, images)
    # Logits may be bfloat16 under autocast; the loss is computed in the images' precision, as autocast itself would.
    value = loss(logits.to(images.dtype))
    # allow_unused: a network may have weights that its logits do not depend on.
    return value.detach(), torch.autograd.grad(value, trainable(network), allow_unused=True)


def in_slices(
    network: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor], reduced: PrecisionContext
) -> tuple[Tensor, Parts]:
    """Return what `as_a_whole` does, with slices of at most `SLICE` images side by side, one core each.

    The result is exact up to rounding if `can_be_sliced`, which the caller checks once for all steps.
    """
    parts = torch.chunk(images, math.ceil(len(images) / SLICE))
    weights = trainable(network)

    def forward(part: int) -> Tensor:
        with reduced():
            return logits_of(network, parts[part]).to(images.dtype)

    def backward(part: int) -> Parts:
        return torch.autograd.grad(outputs[part], weights, outers[part], allow_unused=True)

    outputs = list(side_by_side(forward, range(len(parts)), images.device))
    # The loss may couple images (a mean, a teacher's term), so it is taken of all logits at once. It gets a leaf in
    # place of the slices' graphs: its gradient by that leaf then starts the backward pass of each slice in its thread.
    logits = torch.cat([part.detach() for part in outputs]).requires_grad_()
    value = loss(logits)
    outers = torch.split(torch.autograd.grad(value, logits)[0], [len(part) for part in parts])
    first, *rest = side_by_side(backward, range(len(parts)), images.device)
    return value.detach(), [_sum(pieces) for pieces in zip(first, *rest, strict=True)]


def flat(gradient: GradientOfLoss, radius: float, gap: float) -> GradientOfLoss:
    """Return GSAM's gradient, adaptive to the size of each weight (Zhuang et al., ICLR 2022; ASAM, Kwon et al., 2021).

    With g the gradient at the weights w, and g' at w + radius w² g / ‖w g‖, where the loss is higher: g' - gap g⊥, with
    g⊥ the part of g that is orthogonal to g'. Buffers are left as the pass at w leaves them.

    Args:
        gradient: returns g.
        radius: rho, of the neighbourhood in which the loss is to be low.
        gap: alpha, how strongly the difference between the loss there and at w counts.
    """

    def flattened(
        network: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor], reduced: PrecisionContext
    ) -> tuple[Tensor, Parts]:
        value, plain = gradient(network, images, loss, reduced)
        used = [(weight, part) for weight, part in zip(trainable(network), plain, strict=True) if part is not None]
        before = [tensor.detach().clone() for tensor in (*(weight for weight, _ in used), *network.buffers())]
        with torch.no_grad():
            length = _norm([weight * part for weight, part in used]) + 1e-12
            for weight, part in used:
                weight.add_(weight.square() * part * (radius / length))
        _, perturbed = gradient(network, images, loss, reduced)
        with torch.no_grad():
            for tensor, old in zip((*(weight for weight, _ in used), *network.buffers()), before, strict=True):
                tensor.copy_(old)
            pairs = [(first, second) for first, second in zip(plain, perturbed, strict=True) if second is not None]
            along = sum((first * second).sum() for first, second in pairs if first is not None)
            share = along / (_norm([second for _, second in pairs]).square() + 1e-12)
            return value, [
                second if first is None or second is None else second - gap * (first - share * second)
                for first, second in zip(plain, perturbed, strict=True)
            ]

    return flattened


def _norm(pieces: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all pieces together."""
    return torch.stack([piece.square().sum() for piece in pieces]).sum().sqrt()


def _sum(pieces: Parts) -> Tensor | None:
    """Return the sum in the order of the slices; None if the loss does not depend on this weight."""
    tensors = [piece for piece in pieces if piece is not None]
    return sum(tensors[1:], tensors[0]) if tensors else None


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require a gradient, in their order."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
