"""Unrolled training of a student, to its distance from an expert (MTT, algorithm 1; TESLA) or to a loss (DD)."""

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
"""Tensors of a network by name."""
Transform = Callable[[Tensor], Tensor]
"""Maps images (n, c, h, w) to images of the same shape, differentiably."""


@dataclass(frozen=True, eq=False)
class Step:
    """Describes one step of a student: which images it takes, and a fixed differentiable transform of them.

    Attributes:
        index: positions of the images in the set (n,).
        transform: applied to the images (n, c, h, w).
        seed: seed of the process-wide generator during the step, for a network that draws from it (dropout), so that
            the step can be repeated exactly; None if the network draws nothing.
    """

    index: Tensor
    transform: Transform
    seed: int | None = None


class Outcome(NamedTuple):
    """Holds the loss (a scalar), and its gradients with respect to all images and the step size."""

    loss: Tensor
    images: Tensor
    step_size: Tensor


@dataclass(frozen=True, eq=False)
class Student:
    """Computes gradients of a network whose weights are passed to each step.

    Attributes:
        network: provides the structure; its mode decides whether batch norm uses a batch's own statistics.
        buffers: buffers of the network, such as running statistics; never changed.
        labels: of all synthetic images: class indices (n,) or class weights (n, classes). If they require their
            gradient, the unrolling sets ``labels.grad``.
    """

    network: nn.Module
    buffers: Weights
    labels: Tensor

    def gradient(self, weights: Weights, images: Tensor, step: Step, *, differentiable: bool) -> list[Tensor]:
        """Return the gradient of a step's mean cross-entropy on ``images`` by ``weights``, in their order.

        Args:
            weights: trainable weights by name, each of which requires its gradient.
            images: the step's images as transformed (n, c, h, w).
            step: provides the index of their labels, and the seed.
            differentiable: keep the graph, so that the gradient can be differentiated by weights and images.
        """
        # Clones, since batch norm in training mode updates its buffers in place: every step starts from the same ones.
        tensors = {**weights, **{name: buffer.clone() for name, buffer in self.buffers.items()}}
        known = step.seed is not None
        with global_rng_from(torch.Generator().manual_seed(step.seed or 0)) if known else contextlib.nullcontext():
            logits = functional_call(self.network, tensors, (images,))
        loss = functional.cross_entropy(logits, self.labels[step.index])
        return list(torch.autograd.grad(loss, list(weights.values()), create_graph=differentiable))


def unroll_exactly(
    student: Student, start: Weights, target: Weights, images: Tensor, step_size: Tensor, batches: Sequence[Step]
) -> Outcome:
    """Return MTT's loss and its exact gradients, by differentiating through all steps (MTT, algorithm 1).

    The loss is the squared distance of the student from ``target`` after its steps, divided by that of ``start``. The
    graphs of all steps are held at once, so memory grows with their number.

    Args:
        student: takes a plain gradient step for each batch.
        start: an expert's weights, theta*_t.
        target: the same expert's weights M epochs later, theta*_{t+M}.
        images: all synthetic images (n, c, h, w).
        step_size: learning rate of the student, alpha: a scalar.
        batches: one for each of the N steps.
    """
    images, step_size = images.detach().requires_grad_(), step_size.detach().requires_grad_()
    weights = {name: tensor.detach().requires_grad_() for name, tensor in start.items()}
    for batch in batches:
        inputs = batch.transform(images[batch.index])
        # The update stays in the graph: theta_{i+1} = theta_i - alpha g_i depends on all images that came before.
        gradient = student.gradient(weights, inputs, batch, differentiable=True)
        weights = {
            name: weight - step_size * part for (name, weight), part in zip(weights.items(), gradient, strict=True)
        }
    loss = _squared(weights, target) / _squared(start, target)
    leaves = [images, step_size, *([student.labels] if student.labels.requires_grad else [])]
    of_images, of_step_size, *of_labels = torch.autograd.grad(loss, leaves)
    if of_labels:
        student.labels.grad = of_labels[0]
    return Outcome(loss.detach(), of_images, of_step_size)


def unroll_constantly(
    student: Student, start: Weights, target: Weights, images: Tensor, step_size: Tensor, batches: Sequence[Step]
) -> Outcome:
    """Return MTT's loss with TESLA's gradient, whose memory does not grow with the number of steps.

    The arguments are those of `unroll_exactly`.

    With g_i the gradient of step i, G their sum and d the squared distance of ``start`` from ``target``, the loss is
    |start - beta G - target|^2 / d. Its gradient with respect to step i's images is
    (2/d) [beta (target - start) + beta^2 G]^T dg_i/dX, each from a graph of its own, and that with respect to beta is
    -(2/d) G^T (start - beta G - target). Every step's weights count as constants: the dependence of later weights on
    earlier images is left out, so for more than one step this is not the exact gradient.
    """
    # First pass: only weights and the sum of the gradients are remembered, and no graph.
    beta, weights = step_size.detach(), {name: tensor.detach() for name, tensor in start.items()}
    passed, total = [], [torch.zeros_like(tensor) for tensor in weights.values()]
    for batch in batches:
        passed.append(weights)
        inputs = batch.transform(images.detach()[batch.index])
        leaves = {name: weight.requires_grad_() for name, weight in weights.items()}
        gradient = student.gradient(leaves, inputs, batch, differentiable=False)
        total = [before + part for before, part in zip(total, gradient, strict=True)]
        weights = {
            name: (weight - beta * part).detach()
            for (name, weight), part in zip(weights.items(), gradient, strict=True)
        }
    away = [(target[name] - start[name]).detach() for name in start]
    scale = 2 / _squared(start, target).detach()
    direction = [scale * (beta * there + beta**2 * part) for there, part in zip(away, total, strict=True)]
    # Second pass: each step is computed again from its weights, and its graph is freed before the next one's is built.
    gradients, of_labels = torch.zeros_like(images), torch.zeros_like(student.labels)
    learned = [student.labels] if student.labels.requires_grad else []
    for batch, leaves in zip(batches, passed, strict=True):
        mine = images.detach()[batch.index].requires_grad_()
        gradient = student.gradient(leaves, batch.transform(mine), batch, differentiable=True)
        product = _inner(gradient, direction)
        part, *whole = torch.autograd.grad(product, [mine, *learned])
        # An image takes part in several steps when the student sees the set more than once.
        gradients.index_add_(0, batch.index, part)
        if learned:
            of_labels += whole[0]
    if learned:
        student.labels.grad = of_labels
    remaining = [there + beta * part for there, part in zip(away, total, strict=True)]
    return Outcome(_squared(weights, target) * scale / 2, gradients, scale * _inner(total, remaining))


def _inner(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def _squared(first: Weights, second: Weights) -> Tensor:
    return torch.stack([(first[name] - second[name]).square().sum() for name in first]).sum()


class Played(NamedTuple):
    """Holds a final loss (a scalar), its gradients by all images and by each step's size (steps,), and the weights."""

    loss: Tensor
    images: Tensor
    step_sizes: Tensor
    weights: Weights


def unroll_to_loss(
    student: Student,
    start: Weights,
    images: Tensor,
    step_sizes: Tensor,
    steps: Sequence[Step],
    loss: Callable[[Weights], tuple[Tensor, Sequence[Tensor]]],
) -> Played:
    """Return a loss of the student's last weights, and its exact gradients by images and step sizes (DD, section 3).

    The backward recursion holds the graph of one step at a time, beside the weights before each: with g the gradient
    of the loss by the weights after step k, and G_k the gradient of the step, those by step size and images are -g.G_k
    and -eta_k d(g.G_k)/dX, and then g <- g - eta_k d(g.G_k)/dtheta. `unroll_exactly` holds all graphs instead.

    Args:
        student: takes a plain gradient step for each of ``steps``.
        start: weights before the first step, theta_0.
        images: all synthetic images (n, c, h, w).
        step_sizes: one for each step, eta: (steps,).
        steps: the images that each step takes.
        loss: returns the loss of weights, and its gradient by each, in their order.
    """
    images, rates = images.detach(), step_sizes.detach()
    passed, weights = [], {name: tensor.detach() for name, tensor in start.items()}
    for rate, step in zip(rates, steps, strict=True):
        leaves = {name: weight.requires_grad_() for name, weight in weights.items()}
        passed.append(leaves)
        gradient = student.gradient(leaves, step.transform(images[step.index]), step, differentiable=False)
        weights = {
            name: (weight - rate * part).detach() for (name, weight), part in zip(leaves.items(), gradient, strict=True)
        }
    final, outer = loss(weights)
    of_images, of_rates = torch.zeros_like(images), torch.zeros_like(rates)
    for number in range(len(steps) - 1, -1, -1):
        step, rate, leaves = steps[number], rates[number], passed[number]
        mine = images[step.index].requires_grad_()
        gradient = student.gradient(leaves, step.transform(mine), step, differentiable=True)
        product = _inner(gradient, outer)
        of_rates[number] = -product.detach()
        part, *of_weights = torch.autograd.grad(
            product, [mine, *leaves.values()], allow_unused=True, materialize_grads=True
        )  # fmt: skip
        # An image takes part in several steps when the steps are repeated.
        of_images.index_add_(0, step.index, -rate * part)
        outer = [before - rate * piece for before, piece in zip(outer, of_weights, strict=True)]
    return Played(final.detach(), of_images, of_rates, weights)
