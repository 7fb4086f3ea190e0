"""Tensors of several owners in one dictionary, each under its owner's prefix."""

from collections.abc import Mapping

from torch import Tensor


def copies_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors on the CPU, with a prefix before their names."""
    # copy=True: on a CPU, `to` would return the tensor itself, and training would go on changing the copy.
    return {f"{prefix}{name}": tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names; they are not copied."""
    # By name: an artifact's tensors are read from its file at each access, and the others are not wanted.
    return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
