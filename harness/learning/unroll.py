"""A student's steps on synthetic images, and how far they lead from an expert's (MTT, algorithm 1; TESLA)."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from harness.types.seeds import global_rng_from

Weights = Mapping[str, Tensor]
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Step:
    """One step's images: which ones, and a fixed differentiable transform of them.

    Attributes:
        seed: of the global generator, for a network that draws from it (dropout): the step then plays out the same
            whenever it is played.
    """

    index: Tensor
    transform: Transform
    seed: int | None = None


class Outcome(NamedTuple):
    """The loss, and its gradients with respect to images and step size."""

    loss: Tensor
    images: Tensor
    step_size: Tensor


@dataclass(frozen=True, eq=False)
class Student:
    """A network whose weights are given anew at each step.

    Attributes:
        network: gives the structure, and by its mode whether batch norm uses a batch's own statistics.
        buffers: of the network, such as running statistics; never changed.
        labels: of all synthetic images.
    """

    network: nn.Module
    buffers: Weights
    labels: Tensor

    def gradient(self, weights: Weights, images: Tensor, step: Step, *, differentiable: bool) -> list[Tensor]:
        """Gradient of a step's mean cross-entropy on ``images`` with respect to ``weights``, in their order."""
        given = {**weights, **{name: buffer.clone() for name, buffer in self.buffers.items()}}
        known = step.seed is not None
        with global_rng_from(torch.Generator().manual_seed(step.seed or 0)) if known else contextlib.nullcontext():
            logits = functional_call(self.network, given, (images,))
        loss = functional.cross_entropy(logits, self.labels[step.index])
        return list(torch.autograd.grad(loss, list(weights.values()), create_graph=differentiable))


def unroll_exactly(
    student: Student, start: Weights, target: Weights, images: Tensor, step_size: Tensor, batches: Sequence[Step]
) -> Outcome:
    """The squared distance of the student from ``target`` after its steps, over that of ``start``, and its gradients.

    Differentiates through all steps, so memory grows with their number.

    Args:
        student: takes a plain gradient step a batch.
        start: an expert's weights.
        target: the same expert's weights some epochs later.
        images: all synthetic images (n, channels, height, width).
        step_size: a scalar, the student's learning rate.
        batches: one for each step.
    """
    images, step_size = images.detach().requires_grad_(), step_size.detach().requires_grad_()
    weights = {name: tensor.detach().requires_grad_() for name, tensor in start.items()}
    for batch in batches:
        given = batch.transform(images[batch.index])
        gradient = student.gradient(weights, given, batch, differentiable=True)
        weights = {
            name: weight - step_size * part for (name, weight), part in zip(weights.items(), gradient, strict=True)
        }
    loss = _squared(weights, target) / _squared(start, target)
    return Outcome(loss.detach(), *torch.autograd.grad(loss, [images, step_size]))


def unroll_constantly(
    student: Student, start: Weights, target: Weights, images: Tensor, step_size: Tensor, batches: Sequence[Step]
) -> Outcome:
    """The same loss with TESLA's gradient, whose memory does not grow with the number of steps.

    With g_i the gradient of step i, G their sum and d the squared distance of ``start`` from ``target``, the loss is
    |start - beta G - target|^2 / d. Its gradient with respect to step i's images is
    (2/d) [beta (target - start) + beta^2 G]^T dg_i/dX, each from a graph of its own, and that with respect to beta is
    -(2/d) G^T (start - beta G - target). Every step's weights count as constants: what later weights owe to earlier
    images is left out, so for more than one step this is not the exact gradient.
    """
    beta, weights = step_size.detach(), {name: tensor.detach() for name, tensor in start.items()}
    passed, total = [], [torch.zeros_like(tensor) for tensor in weights.values()]
    for batch in batches:
        passed.append(weights)
        given = batch.transform(images.detach()[batch.index])
        leaves = {name: weight.requires_grad_() for name, weight in weights.items()}
        gradient = student.gradient(leaves, given, batch, differentiable=False)
        total = [before + part for before, part in zip(total, gradient, strict=True)]
        weights = {
            name: (weight - beta * part).detach()
            for (name, weight), part in zip(weights.items(), gradient, strict=True)
        }
    away = [(target[name] - start[name]).detach() for name in start]
    scale = 2 / _squared(start, target).detach()
    direction = [scale * (beta * there + beta**2 * part) for there, part in zip(away, total, strict=True)]
    gradients = torch.zeros_like(images)
    for batch, leaves in zip(batches, passed, strict=True):
        mine = images.detach()[batch.index].requires_grad_()
        gradient = student.gradient(leaves, batch.transform(mine), batch, differentiable=True)
        product = _inner(gradient, direction)
        (part,) = torch.autograd.grad(product, mine)
        gradients.index_add_(0, batch.index, part)
    remaining = [there + beta * part for there, part in zip(away, total, strict=True)]
    return Outcome(_squared(weights, target) * scale / 2, gradients, scale * _inner(total, remaining))


def _inner(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def _squared(first: Weights, second: Weights) -> Tensor:
    return torch.stack([(first[name] - second[name]).square().sum() for name in first]).sum()
