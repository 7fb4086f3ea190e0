"""Steps of an optimiser, which a GPU repeats from a CUDA graph."""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

from harness.compute.cuda_graphs import Recording, is_recorded, shapes_and_types, try_to_record
from harness.learning.gradients import Parts
from harness.learning.recipe import Recipe

GradientOfBatch = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Parts]]
"""Maps index, images and labels of a batch to losses (networks,) and the gradient by all parameters."""


class Stepper:
    """Takes one optimiser step per batch; parameters and momentum stay at their addresses in memory.

    Args:
        parameters: the trained parameters, all on one device.
        buffers: other tensors that a step changes, such as running statistics.
        recipe: determines the optimiser.
        gradient: returns losses and gradient of a batch.
        record: whether steps may be recorded, which requires that they draw no random numbers.
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
        """Set the learning rate of the next steps."""
        for group in self._optimizer.param_groups:
            # In place: a recorded step reads the rate from this tensor.
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def forget(self) -> None:
        """Reset the optimiser, momentum included."""
        # Zeros and not a new optimiser: a recorded step holds the addresses of these tensors. For SGD and Adam, a
        # history of zeros is that of a new optimiser (torch starts SGD's momentum with the first gradient, which is
        # what momentum * 0 + gradient gives without dampening).
        for tensor in self._history():
            tensor.zero_()

    def __call__(self, *batch: Tensor) -> Tensor:
        """Take one step on index, images and labels, and return the losses (networks,) before it, without graph.

        The next step may overwrite the returned tensor.
        """
        recording = self._recording(batch) if self._record else None
        (loss,) = recording(*batch) if recording else self._step(*batch)
        return loss

    def release(self) -> None:
        """Free the memory of the last gradient."""
        for parameter in self._parameters:
            parameter.grad = None

    def _recording(self, batch: Sequence[Tensor]) -> Recording | None:
        key = shapes_and_types(batch)
        if key not in self._recordings:
            before = self._history()
            changed = [*self._parameters, *self._buffers, *before]
            self._recordings[key] = try_to_record(self._step, batch, changed)
            # The optimiser creates its history at its first step, which was the rehearsal of the recording:
            # `try_to_record` restores only tensors that were there before.
            if not before:
                self.forget()
        return self._recordings[key]

    def _step(self, *batch: Tensor) -> tuple[Tensor]:
        loss, gradient = self._gradient(*batch)
        for parameter, part in zip(self._parameters, gradient, strict=True):
            parameter.grad = part if part is None else _in_order_of(parameter, part)
        self._optimizer.step()
        return (loss.detach(),)

    def _history(self) -> list[Tensor]:
        """Return the tensors that the optimiser remembers from step to step."""
        states = self._optimizer.state.values()
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def _in_order_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with the memory layout of its parameter."""
    # Fused optimisers walk through memory and do not look at strides: a gradient with channels last beside a weight
    # with channels first would be added to the wrong values.
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, requires_grad=False).copy_(gradient)
