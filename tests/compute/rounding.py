"""Random tensors, and how far apart what should be equal up to rounding is."""

import torch

CLOSE = 1e-5


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def apart(actual, right):
    return float((actual - right).detach().norm() / right.detach().norm())
