"""What a network computes, told apart from its weights."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

Structure = Hashable
"""What `structure_of` tells: only good for comparing."""

_TENSORS = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
_PLAIN = (str, int, float, bool, type(None), torch.dtype, torch.device, type)


def structure_of(network: nn.Module) -> Structure | None:
    """Equal for networks that compute the same from equal weights, in their present mode; None where nobody can tell.

    Two networks are alike if their modules have the same names, classes and plain attributes, and their parameters and
    buffers the same shapes. A module with a hook or with an attribute of another kind is beyond telling.
    """
    try:
        modules = tuple((name, type(module), _attributes(module)) for name, module in network.named_modules())
    except _BeyondTellingError:
        return None
    parameters = tuple((name, *_form(part), part.requires_grad) for name, part in network.named_parameters())
    return modules, parameters, tuple((name, *_form(part)) for name, part in network.named_buffers())


class _BeyondTellingError(Exception):
    """An attribute whose value cannot be compared."""


def _attributes(module: nn.Module) -> Hashable:
    return tuple((name, _plain(value)) for name, value in sorted(vars(module).items()) if name not in _TENSORS)


def _plain(value: Any) -> Hashable:  # noqa: ANN401
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, dict | set) and not value:  # no hooks
        return ()
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    raise _BeyondTellingError


def _form(tensor: torch.Tensor) -> tuple[Hashable, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.device
