"""Images that are decoded from learned tensors: the gradient of the images is pulled back to the tensors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.errors import UsageError
from harness.types.distilled import DistilledSet
from harness.types.method import Task
from harness.types.parametrisation import Encoding, InitialImages


class EncodedImages:
    """The learned tensors of a parametrisation, and the training images that they decode to.

    Attributes:
        tensors: the learned tensors by name, leaves that require their gradients.
        images: network inputs (classes * per_class, c, h, w), decoded from the tensors, class by class. It is a leaf,
            so that a method can treat it as plain images; `EncodedSGD` refreshes it in place.
        labels: class indices of ``images``.
    """

    def __init__(self, encoding: Encoding, start: InitialImages) -> None:
        self._encoding, self._problem = encoding, start.problem
        initial = encoding.parametrisation.initial(start)
        # A copy: a parametrisation may hand out a tensor of the problem's, which updates would change.
        self.tensors = {name: tensor.detach().clone().requires_grad_() for name, tensor in initial.items()}
        classes, device = len(start.problem.classes), start.problem.device
        self._stored_labels = torch.arange(classes, device=device).repeat_interleave(start.ipc)
        with torch.no_grad():
            inputs, labels = self._decode()
        counts = torch.bincount(labels, minlength=classes).tolist()
        if len(set(counts)) > 1:
            raise UsageError(f"the parametrisation {encoding.name!r} decodes {counts} images of the classes, unequally")
        # Methods take the images of a class as a slice, but a parametrisation returns them in any order.
        order = torch.argsort(labels, stable=True)
        self._order = None if bool((order == torch.arange(len(order), device=device)).all()) else order
        self.images, self.labels = self._sorted(inputs).clone().requires_grad_(), self._sorted(labels)

    def _decode(self) -> tuple[Tensor, Tensor]:
        """Return all training images as network inputs, and their labels, as the parametrisation orders them."""
        pixels, labels = replace(self._encoding, tensors=self._beside()).decode(
            self.tensors["images"], self._stored_labels
        )
        is_pixels = self._encoding.parametrisation.decodes_to == "pixels"
        return self._problem.resident.preprocessing.apply(pixels) if is_pixels else pixels, labels

    def _beside(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.tensors.items() if name != "images"}

    def _sorted(self, rows: Tensor) -> Tensor:
        return rows if self._order is None else rows[self._order]

    def pull_back(self) -> None:
        """Set the gradients of the tensors to those that the gradient of ``images`` implies, by the chain rule."""
        gradient = self.images.grad
        if gradient is None:
            return
        # Decoded again rather than with a graph that lives across the step: methods run `images` through many graphs
        # of their own, in several threads, and a shared one would be freed by the first of them.
        with torch.enable_grad():
            inputs = self._sorted(self._decode()[0])
        gradients = torch.autograd.grad(inputs, list(self.tensors.values()), gradient, allow_unused=True)
        for tensor, pulled in zip(self.tensors.values(), gradients, strict=True):
            tensor.grad = pulled

    def refresh(self) -> None:
        """Decode ``images`` again after the tensors have changed, in place: methods hold this very leaf."""
        with torch.no_grad():
            self.images.copy_(self._sorted(self._decode()[0]))

    def constrain(self) -> None:
        """Bring the tensors back into their range after an update."""
        with torch.no_grad():
            self._encoding.parametrisation.constrain(self.tensors)

    def distilled(self, task: Task, step_size: float | None = None, labels: Tensor | None = None) -> DistilledSet:
        """Return the set that is stored: the tensors, and a label for each stored image.

        Args:
            task: the task, which copies the tensors to the CPU.
            step_size: the learning rate for students, if one was learned.
            labels: labels of ``images``, if as many images are decoded as are stored; None for the classes.
        """
        encoding = replace(self._encoding, tensors=self._beside())
        stored = self._stored_labels if labels is None else labels
        if labels is not None and self._order is not None:
            stored = torch.empty_like(labels)
            stored[self._order] = labels
        return task.distilled(self.tensors["images"], stored, step_size, encoding)


class EncodedSGD(torch.optim.SGD):
    """SGD with momentum on the tensors of a parametrisation, from the gradient of the decoded images.

    A method sets ``images.grad`` and calls `step`, as with plain images.
    """

    def __init__(self, encoded: EncodedImages, lr: float, momentum: float) -> None:
        super().__init__(list(encoded.tensors.values()), lr, momentum=momentum)
        self._encoded = encoded

    def step(self, closure: Callable[[], float] | None = None) -> Any:  # noqa: ANN401
        """Pull the images' gradient back to the tensors, update and constrain these, and decode the images again."""
        self._encoded.pull_back()
        answer = super().step(closure)
        self._encoded.constrain()
        self._encoded.refresh()
        return answer

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the tensors, and of the images that they come from."""
        super().zero_grad(set_to_none)
        self._encoded.images.grad = None
