"""Steps of an optimiser, which a GPU repeats from a CUDA graph."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness.compute.cuda_graphs import Recording, is_recorded, shapes_and_types, try_to_record
from harness.learning.gradients import Parts
from harness.learning.optimizers import Lamb, Lion
from harness.learning.recipe import Recipe

GradientOfBatch = Callable[..., tuple[Tensor, Parts]]
"""Maps index, images and labels of a batch, and random numbers if the loss draws any, to losses (networks,) and the
gradient by all parameters."""


@dataclass
class OptimizerState:
    """What an optimiser remembers between calls of `train_classifier`: momentum, averages and step counters.

    Attributes:
        tensors: tensors by name, ``"INDEX.KIND"`` with the index of a trainable parameter (``"0.momentum_buffer"``).
            Empty for a new optimiser. They may be stored, as part of a method's ``state``, and passed in again.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)


STATE_KINDS: Mapping[type[torch.optim.Optimizer], Sequence[str]] = {
    torch.optim.SGD: ["momentum_buffer"],
    torch.optim.Adam: ["step", "exp_avg", "exp_avg_sq"],
    torch.optim.AdamW: ["step", "exp_avg", "exp_avg_sq"],
    Lion: ["exp_avg"],
    Lamb: ["step", "exp_avg", "exp_avg_sq"],
}
"""Names of the tensors that each optimiser remembers of a parameter."""


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

    def load(self, state: OptimizerState) -> None:
        """Continue from a state that `save` returned, whose tensors stay as they are; an empty one changes nothing.

        Raises:
            ValueError: the state belongs to other parameters or another optimiser.
        """
        if not state.tensors:
            return
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.tensors.items():
            place, _, kind = name.partition(".")
            entries.setdefault(int(place), {})[kind] = tensor.clone()
        shapes = {index: parameter.shape for index, parameter in enumerate(self._parameters)}
        for index, kinds in entries.items():
            fits = all(tensor.shape in (shapes.get(index), torch.Size()) for tensor in kinds.values())
            if set(kinds) != set(STATE_KINDS[type(self._optimizer)]) or not fits:
                raise ValueError(f"the optimiser's state of parameter {index} belongs to another network or optimiser")
        present = self._named_history()
        if present:
            # A recorded step holds the addresses of these tensors.
            for name, tensor in present.items():
                tensor.copy_(state.tensors[name]) if name in state.tensors else tensor.zero_()
            return
        whole = self._optimizer.state_dict()
        self._optimizer.load_state_dict({**whole, "state": entries})

    def save(self) -> OptimizerState:
        """Return a copy of what the optimiser remembers."""
        return OptimizerState({name: tensor.detach().clone() for name, tensor in self._named_history().items()})

    def __call__(self, *batch: Tensor) -> Tensor:
        """Take one step on a batch, and return the losses (networks,) before it, without graph.

        The next step may overwrite the returned tensor.

        Args:
            batch: index, images and labels, and random numbers if the loss draws any.
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
        return list(self._named_history().values())

    def _named_history(self) -> Mapping[str, Tensor]:
        states = self._optimizer.state
        return {
            f"{index}.{kind}": value
            for index, parameter in enumerate(self._parameters)
            if parameter in states
            for kind, value in states[parameter].items()
            if isinstance(value, Tensor)
        }


def _in_order_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient with the memory layout of its parameter."""
    # Fused optimisers walk through memory and do not look at strides: a gradient with channels last beside a weight
    # with channels first would be added to the wrong values.
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, requires_grad=False).copy_(gradient)
