"""What most methods share: pixels as the learned tensor, with one hard label for each image."""

from collections.abc import Mapping
from typing import Literal, TypeVar

import torch
from torch import Tensor

from harness.types.distilled import DistilledSet
from harness.types.method import Method, Task
from harness.types.options import Options, option


class PixelOptions(Options):
    """Options of methods that learn pixels; each gives its own defaults."""

    init: Literal["noise", "real"] = option("noise", "initial images: standard normal, or real ones", source="DC")
    lr_img: float = option(0.1, "learning rate of the images", source="DC", gt=0)
    momentum_img: float = option(0.5, "momentum of the images", source="DC, main.py", ge=0, lt=1)


P = TypeVar("P", bound=PixelOptions)


class PixelMethod(Method[P]):
    """Learns pixels by SGD with momentum; subclasses define `step`, which sets ``images.grad`` and steps ``optimizer``.

    Attributes:
        classes: how many there are.
        ipc: images of each.
        labels: (classes * ipc,), class by class.
        images: network inputs (classes * ipc, channels, height, width), a leaf that requires its gradient.
    """

    def __init__(self, task: Task, options: P) -> None:
        super().__init__(task, options)
        self.classes, self.ipc = len(task.problem.classes), task.ipc
        self.labels = torch.arange(self.classes, device=task.problem.device).repeat_interleave(self.ipc)
        self.images = self._initial().requires_grad_()
        self.optimizer = torch.optim.SGD([self.images], options.lr_img, momentum=options.momentum_img)

    def mine(self, label: int) -> slice:
        """Where a class's images lie."""
        return slice(label * self.ipc, (label + 1) * self.ipc)

    def real(self, label: int, count: int, role: str, *index: int) -> Tensor:
        """Real images of a class, as `Problem.real_batch` draws them from the stream of ``role`` and ``index``."""
        return self.task.problem.real_batch(label, count, self.task.streams.generator(role, *index, label))

    def _initial(self) -> Tensor:
        problem, streams = self.task.problem, self.task.streams
        if self.options.init == "real":
            return torch.cat([self.real(label, self.ipc, "init", 0) for label in range(self.classes)])
        shape = (self.classes * self.ipc, *problem.shape)
        return torch.randn(shape, generator=streams.generator("init", 0)).to(problem.device)

    def distilled(self) -> DistilledSet:
        """The images as they stand, with hard labels."""
        return self.task.distilled(self.images, self.labels)

    def learned(self) -> Mapping[str, Tensor]:
        """Only the images are learned."""
        return {"images": self.images}

    def state(self) -> Mapping[str, Tensor]:
        """Images and their momentum."""
        momentum = self.optimizer.state[self.images].get("momentum_buffer")
        return {"images": self.images} | ({} if momentum is None else {"momentum": momentum})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up images and momentum."""
        with torch.no_grad():
            self.images.copy_(state["images"])
        momentum = state["momentum"].clone() if "momentum" in state else None
        self.optimizer.state[self.images]["momentum_buffer"] = momentum
