"""Kernel regression in blocks of real images, so that its memory does not grow with their number (KIP)."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from harness.errors import UsageError
from harness.learning.kernels.kernel import Kernel
from harness.learning.kernels.ridge import ridge_predictions
from harness.system.memory import require_memory

BYTES = 8
"""Bytes of a float64."""


class Regression(NamedTuple):
    """Holds KIP's loss (a scalar), the predictions (m, outputs), and the gradients by learned images and labels."""

    loss: Tensor
    predictions: Tensor
    images: Tensor
    labels: Tensor


class BlockedKernel:
    """A kernel whose pairs are computed block by block, within a limit of memory.

    Args:
        kernel: the kernel.
        limit: most bytes of the graph of a block.
    """

    def __init__(self, kernel: Kernel, limit: float) -> None:
        self._kernel, self._limit = kernel, limit

    def matrix(self, first: Tensor, second: Tensor, *, own: bool = False) -> Tensor:
        """Return the kernel of images with images, (n, m), float64, without graph.

        Args:
            first: images (n, c, h, w).
            second: images (m, c, h, w).
            own: whether they are the same images.

        Raises:
            UsageError: not even a single pair is within the limit of memory.
            DataError: the matrix itself would not fit into the memory.
        """
        what = f"the kernel of {len(first):,} with {len(second):,} images"
        require_memory(BYTES * len(first) * len(second), what, "use fewer images")
        answer = torch.zeros(len(first), len(second), dtype=torch.float64, device=first.device)
        with torch.no_grad():
            for rows, columns in self._blocks(first, second):
                answer[rows, columns] = self._block(first, second, rows, columns, own)
        return answer

    def pull_back(self, first: Tensor, second: Tensor, outer: Tensor, *, own: bool = False) -> Tensor:
        """Return the gradient, by ``second``, of the sum of the kernel times ``outer`` (n, m).

        With ``own`` the first images are the second ones, and the gradient counts both places.
        """
        total = torch.zeros_like(second)
        for rows, columns in self._blocks(first, second):
            leaf = second.detach().requires_grad_()
            block = self._block(leaf if own else first, leaf, rows, columns, own)
            total += torch.autograd.grad(block, leaf, outer[rows, columns])[0]
        return total

    def _block(self, first: Tensor, second: Tensor, rows: slice, columns: slice, own: bool) -> Tensor:
        left, right = (torch.arange(len(images), device=images.device) for images in (first, second))
        same = own & (left[rows, None] == right[None, columns])
        return self._kernel(first[rows], second[columns], same)

    def _blocks(self, first: Tensor, second: Tensor) -> Iterator[tuple[slice, slice]]:
        channels, height, width = first.shape[1:]
        pair = BYTES * self._kernel.floats_of_pair((channels, height, width))
        most = int(self._limit // pair)
        if not most:
            needed = f"a pair of {height}x{width} images takes about {pair / 2**20:.0f} MB"
            raise UsageError(f"{needed} of this kernel, more than memory={self._limit / 2**20:g}: raise it")
        across = min(len(second), most)
        down = max(1, most // across)
        for row in range(0, len(first), down):
            for column in range(0, len(second), across):
                yield slice(row, row + down), slice(column, column + across)


def kernel_regression(
    kernel: BlockedKernel, images: Tensor, labels: Tensor, real: Tensor, targets: Tensor, ridge: float
) -> Regression:
    """Return KIP's loss, ½ mean (K(T, X) (K(X, X) + lambda I)^-1 Y - Y_T)^2, and its exact gradients.

    All kernels are computed twice: without graph for the loss, and then block by block, from the loss's gradient by the
    kernel, for the gradient by the images.

    Args:
        kernel: the kernel.
        images: learned images, X: (n, c, h, w).
        labels: their labels, Y: (n, outputs).
        real: real images, T: (m, c, h, w).
        targets: their labels, Y_T: (m, outputs).
        ridge: lambda, relative to the mean of the diagonal of K(X, X).
    """
    images = images.detach()
    cross = kernel.matrix(real, images).requires_grad_()
    own = kernel.matrix(images, images, own=True).requires_grad_()
    values = labels.detach().requires_grad_()
    predictions = ridge_predictions(cross, own, values, ridge)
    loss = 0.5 * (predictions - targets).square().mean()
    of_cross, of_own, of_labels = torch.autograd.grad(loss, (cross, own, values))
    of_images = kernel.pull_back(real, images, of_cross) + kernel.pull_back(images, images, of_own, own=True)
    return Regression(loss.detach(), predictions.detach(), of_images, of_labels)
