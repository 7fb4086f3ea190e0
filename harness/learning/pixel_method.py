"""Base class of methods that learn images, plain or by a parametrisation, with one hard label for each image."""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import pydantic
import torch
from torch import Tensor

from harness.errors import UsageError
from harness.learning.encoded_images import EncodedImages, EncodedSGD
from harness.plugins.discovery import plugins
from harness.plugins.registry import Resolved
from harness.plugins.stored_sets import KIND, open_encoding
from harness.types.distilled import DistilledSet
from harness.types.method import Method, Task
from harness.types.options import Options, option
from harness.types.parametrisation import InitialImages, Parametrisation

PLAIN = "pixels"
"""The parametrisation that stores what students train on."""


class PixelOptions(Options):
    """Options of methods that learn images; a method may change the defaults."""

    as_: str = option(PLAIN, "what is learned and stored: a parametrisation", source="IDC")

    init: Literal["noise", "real"] = option("noise", "initial images: standard normal, or real ones", source="DC")
    lr_img: float = option(0.1, "learning rate of the images", source="DC", gt=0)
    momentum_img: float = option(0.5, "momentum of the images", source="DC, main.py", ge=0, lt=1)

    @pydantic.field_validator("as_")
    @classmethod
    def _shortest_name(cls, name: str) -> str:
        """Return the name without options at their defaults, so that one parametrisation has one key."""
        try:
            return name if name == PLAIN else str(plugins().registry.resolve(KIND, name))
        except UsageError as error:
            raise ValueError(str(error)) from None

    def parametrisation(self) -> Resolved[Parametrisation[Any]] | None:
        """Return the parametrisation of the set; None for plain images."""
        return None if self.as_ == PLAIN else plugins().registry.resolve(KIND, self.as_)

    def as_json(self) -> dict[str, Any]:
        """Return every option with its value, without ``as`` for plain images.

        Their cells keep the keys that they had before there were parametrisations.
        """
        values = super().as_json()
        return {key: value for key, value in values.items() if (key, value) != ("as", PLAIN)}


P = TypeVar("P", bound=PixelOptions)


class PixelMethod(Method[P]):
    """Learns images by SGD with momentum: network inputs, or the tensors of the parametrisation that ``as`` names.

    A subclass defines `step`, which sets ``images.grad`` and calls ``optimizer.step()``.

    Attributes:
        classes: number of classes.
        ipc: stored images per class.
        per_class: training images per class; more than ``ipc`` if several are decoded from a stored one.
        labels: class indices (classes * per_class,), class by class: 0, ..., 0, 1, ..., 1, ...
        images: network inputs (classes * per_class, c, h, w), a leaf that requires its gradient.
        encoded: the tensors that ``images`` are decoded from; None for plain images.
        optimizer: SGD on ``images``, or on the tensors that they are decoded from, at the rate ``lr_img`` with the
            momentum ``momentum_img``.
    """

    def __init__(self, task: Task, options: P) -> None:
        super().__init__(task, options)
        self.classes, self.ipc = len(task.problem.classes), task.ipc
        start = InitialImages(task.problem, task.ipc, options.init, task.streams)
        self.encoded: EncodedImages | None = None
        self.optimizer: torch.optim.SGD
        if options.as_ == PLAIN:
            self.labels = torch.arange(self.classes, device=task.problem.device).repeat_interleave(self.ipc)
            self.images = start.inputs(self.ipc).requires_grad_()
            self.optimizer = torch.optim.SGD([self.images], options.lr_img, momentum=options.momentum_img)
        else:
            self.encoded = EncodedImages(open_encoding(options.as_, task.problem.shape), start)
            self.labels, self.images = self.encoded.labels, self.encoded.images
            self.optimizer = EncodedSGD(self.encoded, options.lr_img, options.momentum_img)
        self.per_class = len(self.labels) // self.classes

    def mine(self, label: int) -> slice:
        """Return the slice of ``images`` (and of ``labels``) that belongs to a class."""
        return slice(label * self.per_class, (label + 1) * self.per_class)

    def real(self, label: int, count: int, role: str, *index: int) -> Tensor:
        """Return real images (count, c, h, w) of a class; all of the class if it has fewer.

        They are drawn by `Problem.real_batch` from the stream of ``role``, ``index`` and the class.
        """
        return self.task.problem.real_batch(label, count, self.task.streams.generator(role, *index, label))

    def distilled(self) -> DistilledSet:
        """Return the present images with hard labels, as they are stored."""
        return self.encoded.distilled(self.task) if self.encoded else self.task.distilled(self.images, self.labels)

    def learned(self) -> Mapping[str, Tensor]:
        """Return the images, or the tensors that they are decoded from."""
        return self.encoded.tensors if self.encoded else {"images": self.images}

    def state(self) -> Mapping[str, Tensor]:
        """Return what is learned and its momentum, from which `restore` continues bit for bit."""
        tensors = PixelMethod.learned(self)
        # SGD has no momentum buffer before its first step.
        buffers = {name: self.optimizer.state[tensor].get("momentum_buffer") for name, tensor in tensors.items()}
        momenta = {_momentum(name): buffer for name, buffer in buffers.items() if buffer is not None}
        return {**tensors, **momenta}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what is learned and its momentum to those that `state` returned."""
        for name, tensor in PixelMethod.learned(self).items():
            # copy_ and not assignment: the optimiser and the graph hold this very leaf.
            with torch.no_grad():
                tensor.copy_(state[name])
            buffer = state.get(_momentum(name))
            self.optimizer.state[tensor]["momentum_buffer"] = None if buffer is None else buffer.clone()
        if self.encoded:
            self.encoded.refresh()


def _momentum(name: str) -> str:
    """Return the name of a tensor's momentum in a state."""
    return "momentum" if name == "images" else f"momentum.{name}"
