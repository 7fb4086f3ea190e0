"""Several networks of one architecture trained at once in stacked weights, for a GPU.

There a step of one small network takes less time than its launch; stacked, all take one launch sequence.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from harness.learning.gradients import Reduced
from harness.learning.recipe import Augment, Batch, Draw, Loss, Recipe, train_classifier
from harness.types.transfer import send

Tensors = Mapping[str, Tensor]


def train_together(
    networks: Sequence[nn.Module],
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    draws: Sequence[Draw],
    losses: Sequence[Loss],
    augment: Augment | None = None,
    reduced: Reduced = contextlib.nullcontext,
) -> list[list[float]]:
    """Train each network in place as `train_classifier` would, with its own streams and loss; the same up to rounding.

    A network whose loss does not stay finite is trained anew by itself, and so ends where it would have ended there.
    The device is waited for once, after the last epoch.

    Args:
        networks: of one architecture, on one device, and `stackable`.
        images: (n, channels, height, width), the same for all.
        labels: class indices (n,) or class weights (n, classes).
        recipe: how.
        draws: the streams of each.
        losses: of a step of each. Equal ones, and `functools.partial`s of equal ones with tensors of equal shape, are
            computed for all at once where `torch.func.vmap` can; others one after the other.
        augment: applied to each network's batches by themselves.
        reduced: the context in which the networks run, such as autocast.

    Returns:
        Each network's mean training loss of each epoch.
    """
    for network in networks:
        network.train()
    stacked, buffers = stack_module_state(list(networks))
    weights = {name: nn.Parameter(tensor, tensor.requires_grad) for name, tensor in stacked.items()}
    logits_of = _forward(networks[0])
    totals = images.new_zeros(recipe.epochs, len(networks))
    parameters = nn.ParameterList(weights.values())
    optimizer = recipe.new_optimizer(parameters, 0)
    of_each: Callable[[Batch], Tensor] | None = None
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch)
        orders = torch.stack([torch.randperm(len(images), generator=draw("order", epoch)) for draw in draws])
        noises = [draw("augment", epoch) for draw in draws] if augment else []
        for index in torch.split(send(orders, images.device), recipe.batch, dim=1):
            given = images[index]
            if augment:
                given = torch.stack([augment(own, noise) for own, noise in zip(given, noises, strict=True)])
            with reduced():
                logits = logits_of(weights, buffers, given)
            batch = Batch(index, given, labels[index], logits.to(images.dtype))
            of_each = of_each or _at_once(losses, batch)
            values = of_each(batch)
            optimizer.zero_grad()
            values.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            totals[epoch] += values.detach() * index.shape[1]
        if recipe.drops_after(epoch):
            optimizer = recipe.new_optimizer(parameters, epoch + 1)

    curves = [[total / len(images) for total in column] for column in totals.T.tolist()]
    for i, (network, draw, loss) in enumerate(zip(networks, draws, losses, strict=True)):
        if all(map(math.isfinite, curves[i])):
            _take_up(network, {**weights, **buffers}, i)
        else:
            curves[i] = train_classifier(
                network, images, labels, recipe, draw, loss=loss, augment=augment, reduced=reduced
            )
    return curves


def stackable(network: nn.Module, images: Tensor) -> bool:
    """Whether `train_together` can train such networks: none that draws random numbers or looks at what it computes.

    Args:
        network: one of them, in training mode.
        images: two will do.
    """
    try:
        _forward(network)(*stack_module_state([network]), images[None])
    except RuntimeError:  # of vmap
        return False
    return True


def _forward(network: nn.Module) -> Callable[[Tensors, Tensors, Tensor], Tensor]:
    """From stacked weights and buffers of its structure, and images of each, to logits (networks, n, classes)."""

    def forward(weights: Tensors, buffers: Tensors, images: Tensor) -> Tensor:
        logits: Tensor = functional_call(network, {**weights, **buffers}, (images,))
        return logits

    return vmap(forward)


@torch.no_grad()
def _take_up(network: nn.Module, stacked: Tensors, index: int) -> None:
    """Give ``network`` its own row of stacked weights and buffers."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        tensor.copy_(stacked[name][index])


def _at_once(losses: Sequence[Loss], example: Batch) -> Callable[[Batch], Tensor]:
    """A function that gives the loss of each network (networks,): by vmap where that can do it on ``example``."""

    def one_by_one(batch: Batch) -> Tensor:
        parts = zip(batch.index, batch.images, batch.labels, batch.logits, strict=True)
        return torch.stack([loss(Batch(*part)) for loss, part in zip(losses, parts, strict=True)])

    calls = [_call(loss) for loss in losses]
    function, first = calls[0]
    shapes = {name: value.shape for name, value in first.items()}
    if any(f != function or {name: value.shape for name, value in told.items()} != shapes for f, told in calls):
        return one_by_one
    own = {name: torch.stack([told[name] for _, told in calls]) for name in first}

    def at_once(batch: Batch) -> Tensor:
        def one(own: Tensors, *parts: Tensor) -> Tensor:
            return function(Batch(*parts), **own)

        values: Tensor = vmap(one)(own, batch.index, batch.images, batch.labels, batch.logits)
        return values

    try:
        at_once(example)
    except RuntimeError:  # vmap refuses .item(), branches on values and random numbers
        return one_by_one
    return at_once


def _call(loss: Loss) -> tuple[Callable[..., Tensor], Tensors]:
    """A loss as a function and the tensors that it is told by name."""
    if not isinstance(loss, functools.partial) or loss.args:
        return loss, {}
    told = loss.keywords
    return (loss.func, told) if all(isinstance(value, Tensor) for value in told.values()) else (loss, {})
