"""Limits of a network's size: one far larger than any in use is rejected before it fills the memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from harness.errors import DataError

MOST_PARTS = 5_000
"""Most layers, blocks and weight tensors of a network; a ResNet-152 has 1,000."""
MOST_PARAMETERS = 2_000_000_000
"""Most weights of a network: 8 GB, and three times that while it trains; a VGG11 has 10 million."""


@contextmanager
def bounded_size(who: str) -> Iterator[None]:
    """Stop the construction of a network that gets too many layers.

    Args:
        who: name of the architecture, for the error message.

    Raises:
        DataError: the network has more than `MOST_PARTS`.
    """
    # Counted while the layers are created, because a network of a million layers would take long to build. The hooks
    # are the process's: networks that other threads build at the same time count, too, which the wide limit allows for.
    count = 0

    def count_part(_module: nn.Module, _name: str, _part: nn.Module | nn.Parameter | None) -> None:
        nonlocal count
        count += 1
        if count > MOST_PARTS:
            raise DataError(f"{who} has more than {MOST_PARTS:,} layers and tensors of weights: make it less deep")

    hooks = (register_module_module_registration_hook(count_part),
             register_module_parameter_registration_hook(count_part))  # fmt: skip
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_parameters(network: nn.Module, who: str) -> None:
    """Check that a network does not have too many weights.

    Args:
        network: may be on the ``meta`` device, on which weights take no memory.
        who: name of the architecture, for the error message.

    Raises:
        DataError: the network has more than `MOST_PARAMETERS`.
    """
    count = sum(parameter.numel() for parameter in network.parameters())
    if count > MOST_PARAMETERS:
        raise DataError(f"{who} has {count:,} weights, more than {MOST_PARAMETERS:,}: make it less wide or less deep")
