"""Base class of methods that learn pixels, with one hard label for each image."""

from collections.abc import Mapping
from typing import Literal, TypeVar

import torch
from torch import Tensor

from harness.types.distilled import DistilledSet
from harness.types.method import Method, Task
from harness.types.options import Options, option


class PixelOptions(Options):
    """Options of methods that learn pixels; a method may change the defaults."""

    init: Literal["noise", "real"] = option("noise", "initial images: standard normal, or real ones", source="DC")
    lr_img: float = option(0.1, "learning rate of the images", source="DC", gt=0)
    momentum_img: float = option(0.5, "momentum of the images", source="DC, main.py", ge=0, lt=1)


P = TypeVar("P", bound=PixelOptions)


class PixelMethod(Method[P]):
    """Learns pixels by SGD with momentum.

    A subclass defines `step`, which sets ``images.grad`` and calls ``optimizer.step()``.

    Attributes:
        classes: number of classes.
        ipc: images per class.
        labels: class indices (classes * ipc,), class by class: 0, ..., 0, 1, ..., 1, ...
        images: network inputs (classes * ipc, c, h, w), a leaf that requires its gradient.
        optimizer: SGD on ``images``, at the rate ``lr_img`` with the momentum ``momentum_img``.
    """

    def __init__(self, task: Task, options: P) -> None:
        super().__init__(task, options)
        self.classes, self.ipc = len(task.problem.classes), task.ipc
        self.labels = torch.arange(self.classes, device=task.problem.device).repeat_interleave(self.ipc)
        self.images = self._initial().requires_grad_()
        self.optimizer = torch.optim.SGD([self.images], options.lr_img, momentum=options.momentum_img)

    def mine(self, label: int) -> slice:
        """Return the slice of ``images`` (and of ``labels``) that belongs to a class."""
        return slice(label * self.ipc, (label + 1) * self.ipc)

    def real(self, label: int, count: int, role: str, *index: int) -> Tensor:
        """Return real images (count, c, h, w) of a class; all of the class if it has fewer.

        They are drawn by `Problem.real_batch` from the stream of ``role``, ``index`` and the class.
        """
        return self.task.problem.real_batch(label, count, self.task.streams.generator(role, *index, label))

    def _initial(self) -> Tensor:
        problem, streams = self.task.problem, self.task.streams
        if self.options.init == "real":
            return torch.cat([self.real(label, self.ipc, "init", 0) for label in range(self.classes)])
        # Drawn on the CPU and then moved, so that the images start equal on every device.
        shape = (self.classes * self.ipc, *problem.shape)
        return torch.randn(shape, generator=streams.generator("init", 0)).to(problem.device)

    def distilled(self) -> DistilledSet:
        """Return the present images with hard labels."""
        return self.task.distilled(self.images, self.labels)

    def learned(self) -> Mapping[str, Tensor]:
        """Return the images, the only tensor that is learned."""
        return {"images": self.images}

    def state(self) -> Mapping[str, Tensor]:
        """Return the images and their momentum, from which `restore` continues bit for bit."""
        # SGD has no momentum buffer before its first step.
        momentum = self.optimizer.state[self.images].get("momentum_buffer")
        return {"images": self.images} | ({} if momentum is None else {"momentum": momentum})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set images and momentum to those that `state` returned."""
        # copy_ and not assignment: the optimiser and the graph hold this very leaf.
        with torch.no_grad():
            self.images.copy_(state["images"])
        momentum = state["momentum"].clone() if "momentum" in state else None
        self.optimizer.state[self.images]["momentum_buffer"] = momentum
