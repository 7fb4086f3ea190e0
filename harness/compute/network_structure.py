"""Structures of networks: what a network computes, apart from the values of its weights."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

Structure = Hashable
"""A value that equals that of another network of the same structure; it has no other use."""

# Tensors are compared by shape, not by value, and submodules are visited by themselves.
_TENSOR_ATTRIBUTES = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"}
_PLAIN_TYPES = (str, int, float, bool, type(None), torch.dtype, torch.device, type)


def structure_of(network: nn.Module) -> Structure | None:
    """Return a value that is equal for networks which compute the same from equal weights, in their present mode.

    Two networks are alike if their modules have the same names, classes and plain attributes, and their parameters and
    buffers the same shapes.

    Returns:
        None if this cannot be decided: a module has a hook, or an attribute that is not plain data.
    """
    try:
        modules = tuple((name, type(module), _attributes(module)) for name, module in network.named_modules())
    except _UncomparableError:
        return None
    parameters = tuple((name, *_shape_and_type(part), part.requires_grad) for name, part in network.named_parameters())
    return modules, parameters, tuple((name, *_shape_and_type(part)) for name, part in network.named_buffers())


class _UncomparableError(Exception):
    """Raised for an attribute whose values cannot be compared."""


def _attributes(module: nn.Module) -> Hashable:
    return tuple(
        (name, _comparable(value)) for name, value in sorted(vars(module).items()) if name not in _TENSOR_ATTRIBUTES
    )


def _comparable(value: Any) -> Hashable:  # noqa: ANN401
    if isinstance(value, _PLAIN_TYPES):
        return value
    # Modules hold their hooks in dictionaries; a hook may do anything, so only empty ones compare.
    if isinstance(value, dict | set) and not value:
        return ()
    if isinstance(value, tuple | list):  # a list cannot be hashed; equal values make equal tuples
        return tuple(map(_comparable, value))
    raise _UncomparableError


def _shape_and_type(tensor: torch.Tensor) -> tuple[Hashable, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.device
