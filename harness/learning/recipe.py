"""Recipes: length, optimiser, schedule, batches, augmentation and loss of a classifier's training."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.learning.optimizers import Lamb, Lion


class LabelledAugment(ABC):
    """Augments the images of a batch together with their labels, as CutMix and Mixup do."""

    @abstractmethod
    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return augmented images and labels.

        Args:
            images: images (n, c, h, w), which may not be changed in place.
            labels: class indices (n,), class weights (n, classes) or real values (n, outputs).
            generator: source of all random numbers, on the CPU.

        Returns:
            Images of the same shape and their labels. The labels have the same shape and type at every call, mixed or
            not, because a GPU records a step for each shape.
        """


Augment = Callable[[Tensor, torch.Generator], Tensor] | LabelledAugment
"""Maps images (n, c, h, w) and a generator of its random numbers to augmented images of the same shape; one that
changes labels too, or looks at them, is a `LabelledAugment`."""
Draw = Callable[[str, int], torch.Generator]
"""Returns the random stream of a role (``order``, ``augment``, ``loss``) at an epoch. If a recipe counts steps or
images, the streams of ``augment`` and ``loss`` are those of a step, whose index is passed instead."""


def augmented(augment: Augment, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images (n, c, h, w) and labels as an augmentation of either kind leaves them."""
    if isinstance(augment, LabelledAugment):
        return augment(images, labels, generator)
    return augment(images, generator), labels


@dataclass(frozen=True)
class Recipe:
    """Describes how a network is trained; the defaults are DC's evaluation (utils.py) on 32x32 images.

    A recipe counts epochs, or else steps or images, with ``epochs=0``. What it counts is the unit of its schedule:
    epochs if it counts these, and otherwise steps.

    Attributes:
        epochs: number of passes over the set.
        lr: initial learning rate.
        optimizer: ``sgd`` uses ``momentum``; all use ``weight_decay``, which is decoupled from the gradient in
            ``adamw``, ``lion`` and ``lamb``.
        schedule: ``step`` multiplies the rate by 0.1 after the epoch with index (epochs - 1) // 2 + 1 and resets the
            optimiser, momentum included (DC, utils.py); ``cosine`` anneals to zero; ``milestones`` multiplies the rate
            by ``factor`` from each of ``milestones`` on, and keeps the momentum; ``constant`` does nothing.
        momentum: of ``sgd``.
        weight_decay: factor of the weights in each step.
        batch: images per step; the order is shuffled in each epoch.
        steps: number of steps, in place of epochs.
        images: number of images, in place of epochs: training ends with the step that reaches it.
        milestones: ascending indices of epochs (or steps), from 1 on.
        factor: above 0; the rate's factor at each milestone.
        warmup: number of first epochs (or steps) in which the rate rises linearly to ``lr``. ``cosine`` anneals over
            those after them.
        flat_radius: above 0, gradients are GSAM's with this rho, so that the network ends where the loss is flat; each
            step then takes two passes.
        flat_gap: alpha of GSAM.
        last: part of the rate that ``cosine`` leaves at the end, from 0 to 1.

    Raises:
        ValueError: a value is outside its range, or two contradict each other.
    """

    epochs: int = 301
    lr: float = 0.01
    optimizer: Literal["sgd", "adam", "adamw", "lion", "lamb"] = "sgd"
    schedule: Literal["step", "cosine", "constant", "milestones"] = "step"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256
    steps: int | None = None
    images: int | None = None
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    warmup: int = 0
    flat_radius: float = 0.0
    flat_gap: float = 0.0
    last: float = 0.0

    def __post_init__(self) -> None:
        lengths = {"epochs": self.epochs or None, "steps": self.steps, "images": self.images}
        named = [f"{name}={length}" for name, length in lengths.items() if length is not None]
        if len(named) > 1:
            raise ValueError(
                f"a recipe counts epochs, steps or images, and not {' and '.join(named)}: "
                "leave one of them, and set epochs=0 beside steps or images"
            )
        if any(length is not None and length < 1 for length in (self.steps, self.images)):
            raise ValueError(f"a recipe has at least one step or image, not {named[0]}")
        if (self.schedule == "milestones") != bool(self.milestones):
            raise ValueError("milestones belong to the schedule 'milestones': set both, or neither")
        if any(later <= earlier for earlier, later in itertools.pairwise((0, *self.milestones))):
            raise ValueError(f"milestones are ascending and from 1 on, not {self.milestones}")
        if not 0 < self.factor < math.inf:
            raise ValueError(f"the factor of a milestone is a finite number above 0, not {self.factor:g}")
        if self.flat_radius < 0 or (self.flat_gap and not self.flat_radius):
            raise ValueError("GSAM has a radius above 0: set flat_radius, or leave out flat_gap")
        if self.warmup < 0:
            raise ValueError(f"a warm-up has 0 epochs or steps, or more, not {self.warmup}")
        if not 0 <= self.last <= 1:
            raise ValueError(f"the part of a rate that is left at the end is from 0 to 1, not {self.last:g}")

    @property
    def counts_epochs(self) -> bool:
        """Whether the recipe's length and schedule are in epochs; otherwise in steps."""
        return self.steps is None and self.images is None

    def units(self, sizes: Sequence[int]) -> int:
        """Return the number of epochs; if the recipe counts steps or images, the number of steps.

        Args:
            sizes: numbers of images of the batches of an epoch.
        """
        if self.images is None:
            return self.epochs if self.steps is None else self.steps
        # Whole epochs first, then the steps of a last one up to the one that reaches the number of images.
        whole, rest = divmod(self.images, sum(sizes))
        reached = itertools.accumulate(sizes, initial=0)
        return whole * len(sizes) + next(step for step, seen in enumerate(reached) if seen >= rest)

    def identity(self) -> dict[str, Any]:
        """Return the fields as JSON for the key of an artifact; those that came later only if they are set."""
        # Keys of artifacts that exist already must not change when a field is added here.
        later = {
            "steps": None,
            "images": None,
            "milestones": (),
            "factor": 0.1,
            "warmup": 0,
            "flat_radius": 0.0,
            "flat_gap": 0.0,
            "last": 0.0,
        }
        fields = {**asdict(self), "milestones": list(self.milestones)}
        return {key: value for key, value in fields.items() if key not in later or getattr(self, key) != later[key]}

    def drops_after(self, unit: int, total: int | None = None) -> bool:
        """Return whether the step schedule lowers the rate after the epoch (or step) with this index; see `rate`."""
        return self.schedule == "step" and unit == self._half(total)

    def rate(self, unit: int, total: int | None = None) -> float:
        """Return the learning rate of the epoch (or step) with this index.

        Args:
            unit: index of the epoch, or of the step if the recipe counts steps or images.
            total: number of these, as `units` returns it; None for ``epochs`` or ``steps``.
        """
        if unit < self.warmup:
            return self.lr * (unit + 1) / self.warmup
        if self.schedule == "step":
            return self.lr * (0.1 if unit > self._half(total) else 1.0)
        if self.schedule == "cosine":
            rest = max(1, self._total(total) - self.warmup)
            annealed = self.lr * 0.5 * (1 + math.cos(math.pi * (unit - self.warmup) / rest))
            return self.last * self.lr + (1 - self.last) * annealed
        passed = sum(unit >= milestone for milestone in self.milestones)
        return self.lr * self.factor**passed if passed else self.lr

    def _total(self, total: int | None) -> int:
        if total is None:
            total = self.epochs if self.counts_epochs else self.steps
        if total is None:
            raise ValueError("the number of steps of a recipe that counts images depends on the set: name the total")
        return total

    def _half(self, total: int | None) -> int:
        """Return the index of the last unit before the step schedule's drop."""
        return (self._total(total) - 1) // 2 + 1

    def new_optimizer(self, parameters: Sequence[nn.Parameter], *, recorded: bool = False) -> torch.optim.Optimizer:
        """Return a new optimiser of ``parameters``.

        Args:
            parameters: all on one device.
            recorded: whether its steps are going to be recorded as a CUDA graph.
        """
        # A CUDA graph repeats the numbers it was captured with. Only a rate that lies in a tensor on the device can be
        # changed between replays; Adam's step counter has to lie there too (capturable).
        rate = torch.tensor(self.lr, device=parameters[0].device) if recorded else self.lr
        if self.optimizer == "sgd":
            momentum, decay = self.momentum, self.weight_decay
            return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay, fused=True)
        if self.optimizer in ("lion", "lamb"):
            return (Lion if self.optimizer == "lion" else Lamb)(parameters, rate, weight_decay=self.weight_decay)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, rate, weight_decay=self.weight_decay, capturable=recorded)


@dataclass(frozen=True, eq=False)
class Batch:
    """Holds the data of one training step.

    Attributes:
        index: positions of the images in the set (n,).
        images: the images as augmented (n, c, h, w).
        labels: the labels as augmented: class indices (n,), class weights (n, classes) or real values (n, outputs).
        logits: the network's answer (n, classes), with its graph.
        numbers: random numbers of the step, as `DrawingLoss.draw` returned them; None for any other loss.
    """

    index: Tensor
    images: Tensor
    labels: Tensor
    logits: Tensor
    numbers: Tensor | None = None


class DrawingLoss(ABC):
    """A loss that needs random numbers, which are drawn before the step and passed to it in ``batch.numbers``."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the random numbers of a step on ``count`` images: a tensor (...) of a shape fixed by ``count``.

        Args:
            count: number of images of the batch.
            generator: the step's source of random numbers, on the CPU.
        """
        # Drawn outside of the step: a CUDA graph would repeat the numbers of its capture for ever.

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor:
        """Return the loss of a step, a scalar; `Loss` says what it may depend on."""


Loss = Callable[[Batch], Tensor]
"""Maps a step's data to its loss, a scalar. A GPU may record it and repeat what it did at the first step, so it may
depend only on the batch and on tensors that never change, and may not draw random numbers: a loss that needs these is a
`DrawingLoss`."""


def cross_entropy(batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a step, with class indices or class weights (soft labels)."""
    return functional.cross_entropy(batch.logits, batch.labels)


def squared_error(batch: Batch) -> Tensor:
    """Return the squared error of a step, the mean over images and outputs; class indices count as one-hot vectors."""
    labels = batch.labels
    if labels.ndim == 1:
        labels = functional.one_hot(labels, batch.logits.shape[1])
    return functional.mse_loss(batch.logits, labels.to(batch.logits.dtype))
