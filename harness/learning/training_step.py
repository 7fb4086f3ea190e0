"""Steps of an optimiser, which a GPU repeats from a recording."""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

from harness.compute.cuda_graphs import Recording, forms, is_recorded, recorded
from harness.learning.gradients import Parts
from harness.learning.recipe import Recipe

GradientOfBatch = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Parts]]
"""From a batch's index, images and labels to its loss, or several losses, and the gradient by all parameters."""


class Stepper:
    """Takes one step a batch; what it keeps between them stays where it is.

    Args:
        parameters: what is trained, on one device.
        buffers: what a step changes besides, such as running statistics.
        recipe: tells the optimiser.
        gradient: of a batch.
        record: whether it may be recorded: it does not draw random numbers.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        buffers: Sequence[Tensor],
        recipe: Recipe,
        gradient: GradientOfBatch,
        *,
        record: bool = True,
    ) -> None:
        self._parameters, self._buffers, self._gradient = parameters, buffers, gradient
        self._record = record and is_recorded(parameters[0].device)
        self._optimizer = recipe.new_optimizer(parameters, recorded=self._record)
        self._recordings: dict[Hashable, Recording | None] = {}

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps to come."""
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def forget(self) -> None:
        """Start the optimiser afresh, momentum included."""
        for tensor in self._history():
            tensor.zero_()

    def __call__(self, *batch: Tensor) -> Tensor:
        """Take one step on index, images and labels, and return the loss before it, without graph.

        The next step may overwrite it.
        """
        recording = self._recording(batch) if self._record else None
        (loss,) = recording(*batch) if recording else self._step(*batch)
        return loss

    def release(self) -> None:
        """Give back the memory of the last gradient."""
        for parameter in self._parameters:
            parameter.grad = None

    def _recording(self, batch: Sequence[Tensor]) -> Recording | None:
        key = forms(batch)
        if key not in self._recordings:
            before = self._history()
            changed = [*self._parameters, *self._buffers, *before]
            self._recordings[key] = recorded(self._step, batch, changed)
            if not before:  # what there is now comes from a rehearsal
                self.forget()
        return self._recordings[key]

    def _step(self, *batch: Tensor) -> tuple[Tensor]:
        loss, gradient = self._gradient(*batch)
        for parameter, given in zip(self._parameters, gradient, strict=True):
            parameter.grad = given if given is None else _in_order_of(parameter, given)
        self._optimizer.step()
        return (loss.detach(),)

    def _history(self) -> list[Tensor]:
        """What the optimiser remembers."""
        states = self._optimizer.state.values()
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def _in_order_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with its values in memory as the parameter's are: fused optimisers do not look at strides."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, requires_grad=False).copy_(gradient)
