"""Bringing what was drawn on the CPU to where it is used."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor's copy on ``device``, itself on a CPU; a GPU's unfinished work is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
