"""The teacher that is trained on the real data, by one recipe for all who ask, so that they share its weights."""

from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness import Augment, NamedAugment, Network, Problem, RealNetwork, Recipe, UsageError
from mpdd_plugins.augmentations import views

ARCHITECTURE = "convnet[norm=batch]"
"""A teacher that evaluators ask for by default (RDED: conv3 or ResNet-18)."""
EPOCHS = 200
"""Epochs of a teacher (SRe2L, squeeze of CIFAR)."""
LR = 0.1
"""Its learning rate at the start (SRe2L, squeeze of CIFAR)."""
OPERATIONS = "crop+flip"


def real_teacher(architecture: str, *, epochs: int = EPOCHS, lr: float = LR, index: int = 0) -> RealNetwork:
    """Request a network that is trained on the real data as SRe2L's "squeeze" trains one on CIFAR.

    That is SGD with momentum 0.9, weight decay 5e-4, a cosine to zero and batches of 128, on shifted and mirrored
    images; images that their data set does not mirror are shifted alone.

    Args:
        architecture: its name.
        epochs: passes over the training images, from 1 on.
        lr: learning rate at the start.
        index: from 0 on; teachers of other indices have other initial weights and batches.
    """
    return RealNetwork(
        architecture=architecture,
        recipe=Recipe(epochs, lr, schedule="cosine", batch=128),
        index=index,
        augmentation=NamedAugment(f"views {OPERATIONS}", _augmentation),
    )


def by_batch_statistics(network: Network) -> Network:
    """Let the batch norm of a network in evaluation mode take the statistics of each batch; return the network.

    Dropout stays off: its draws would come from the process-wide generator.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    return network


def check_batch_statistics(network: Network, problem: Problem, images: int, batch: int) -> None:
    """Refuse steps of which one has a single image, if a batch norm has a single value of each channel then.

    Args:
        network: in evaluation mode.
        problem: provides the shape of the images and the device.
        images: images of the set.
        batch: images of a step, as far as there are so many.

    Raises:
        UsageError: there is such a step; it could not be normalised by its own statistics.
    """
    if batch > 1 and images % batch != 1:
        return
    lone: list[str] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            lone.append(name)

    norms = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    with ExitStack() as hooks, torch.no_grad():
        for name, module in norms.items():
            hooks.callback(module.register_forward_pre_hook(partial(note, name=name)).remove)
        network(torch.zeros(1, *problem.shape, device=problem.device))
    if lone:
        step = f"batch={batch} leaves a step of one of {images} images" if batch > 1 else "batch=1 has one image a step"
        raise UsageError(
            f"{step}, which the teacher's batch norm {lone[0]} cannot normalise by itself: set another batch or "
            "teacher-mode=eval"
        )


def _augmentation(problem: Problem) -> Augment:
    return views.view_augmentation(views.own_strategy(OPERATIONS)(problem), len(problem.classes))
