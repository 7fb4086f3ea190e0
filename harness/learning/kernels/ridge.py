"""Kernel ridge regression from a small set to real images, with labels as rows of real values (KIP; FRePo)."""

import torch
from torch import Tensor
from torch.nn import functional

from harness.errors import DDBenchError


def centred_one_hot(labels: Tensor, classes: int) -> Tensor:
    """Return one-hot vectors less their mean, onehot - 1/classes: (n, classes), float32, for class indices (n,)."""
    return functional.one_hot(labels, classes).float() - 1 / classes


def ridge_predictions(cross: Tensor, own: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """Return K(T, X) (K(X, X) + lambda I)^-1 Y, in float64, with lambda = ridge * tr K(X, X) / n.

    Differentiable by all three tensors; the trace counts too. With lambda near 0, float32 would not do: the smallest
    eigenvalues of K(X, X) are a millionth of the largest.

    Args:
        cross: kernel of the predicted and the learned images, K(T, X): (m, n).
        own: kernel of the learned images, K(X, X): (n, n).
        labels: labels of the learned images, Y: (n, outputs).
        ridge: weight of the identity, relative to the mean of the kernel's diagonal.

    Raises:
        DDBenchError: the regularised kernel is not positive definite, or not finite.
    """
    cross, own, labels = cross.double(), own.double(), labels.double()
    scale = ridge * own.trace() / len(own)
    factor, info = torch.linalg.cholesky_ex(own + scale * torch.eye(len(own), dtype=own.dtype, device=own.device))
    if int(info):
        why = "its features may all be zero, or the images have grown without bound"
        raise DDBenchError(
            f"the kernel of the learned images is not positive definite ({why}): use a lower rate, more ridge, "
            "or another architecture"
        )
    return cross @ torch.cholesky_solve(labels, factor)
