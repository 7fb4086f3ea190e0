"""The kernel of an infinitely wide convolutional network (Arora et al., NeurIPS 2019; Novak et al., ICLR 2019)."""

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from harness.errors import UsageError
from harness.learning.kernels.kernel import Kernel, KernelOptions
from harness.types.options import option
from harness.types.problem import Shape

MOST_PIXELS = 16 * 16
"""Pixels of the largest images: a pair of 32x32 has 8 MB of covariances, and takes several times that."""
COPIES = 40.0
"""Copies of a pair's covariances that the graph of one layer holds: measured, with some reserve."""


class ConvolutionalOptions(KernelOptions):
    """Options of `Convolutional`."""

    depth: int = option(3, "blocks of convolution, activation and 2x2 average pooling", source="KIP", ge=0)
    head: Literal["flatten", "gap"] = option(
        "flatten", "what the last linear layer takes: all pixels, or their mean (global average pooling)", source="KIP"
    )


class Convolutional(Kernel):
    """A convolution with activation, blocks with pooling, and a linear layer on the flattened or averaged maps.

    Kept is K[p, q], the covariance of a pixel p of one image and a pixel q of the other, for all pairs of pixels. A
    3x3 convolution averages K over the nine shifts of both pixels, with zeros outside; pooling averages over both
    windows; the linear layer takes the mean of K[p, p] (flatten) or of all K[p, q] (global average pooling).
    """

    Options: ClassVar[type[KernelOptions]] = ConvolutionalOptions

    def __call__(self, first: Tensor, second: Tensor, same: Tensor) -> Tensor:
        """Return the kernel of each pair of images: (n, m), float64.

        Raises:
            UsageError: the images have more pixels than `MOST_PIXELS`, or too few for the poolings.
        """
        options = self.options
        _check_size(self.options.depth, first.shape[-2], first.shape[-1])
        left, right = first.double(), second.double()
        nngp = torch.einsum("ncij,mckl->nmijkl", left, right) / left.shape[1]
        # The covariances of an image with itself decide the variances, pixel by pixel.
        owns = [torch.einsum("ncij,nckl->nijkl", each, each) / left.shape[1] for each in (left, right)]
        ntk = torch.zeros_like(nngp)
        for block in range(options.depth + 1):
            nngp = self._convolved(nngp) + options.bias
            ntk = nngp + self._convolved(ntk)
            owns = [self._convolved(own) + options.bias for own in owns]
            nngp, slope = self.activated(
                nngp, _variances(owns[0])[:, None, :, :, None, None], _variances(owns[1])[None, :, None, None],
                _same_pixel(same, nngp),
            )  # fmt: skip
            ntk = ntk * slope
            owns = [self._activated_own(own) for own in owns]
            if block:
                nngp, ntk, *owns = (_pooled(each) for each in (nngp, ntk, *owns))
        nngp = options.weight * self._read(nngp) + options.bias
        return nngp + options.weight * self._read(ntk) if options.of == "ntk" else nngp

    def _convolved(self, covariance: Tensor) -> Tensor:
        """Return what a 3x3 convolution makes of covariances (..., h, w, h, w), without its bias."""
        height, width = covariance.shape[-2:]
        padded = functional.pad(covariance, (1, 1) * 4)
        total = torch.zeros_like(covariance)
        for down in range(3):
            for across in range(3):
                rows, columns = slice(down, down + height), slice(across, across + width)
                total = total + padded[..., rows, columns, rows, columns]
        return total * (self.options.weight / 9)

    def _activated_own(self, own: Tensor) -> Tensor:
        variance = _variances(own)
        here = torch.ones(len(own), dtype=torch.bool, device=own.device)
        left, right = variance[:, :, :, None, None], variance[:, None, None]
        return self.activated(own, left, right, _same_pixel(here, own))[0]

    def _read(self, covariance: Tensor) -> Tensor:
        """Return the covariance of the linear layer's inputs (n, m), from that of their pixels."""
        if getattr(self.options, "head", "flatten") == "gap":
            return covariance.mean((-4, -3, -2, -1))
        return _variances(covariance).mean((-2, -1))

    def floats_of_pair(self, shape: Shape) -> float:
        """Return about how many float64 values of memory a pair of images takes, with the graph."""
        # Only the first block and the convolution before it have all pixels; each later one has a sixteenth of them.
        return COPIES * 2.2 * float(shape[1] * shape[2]) ** 2


def _check_size(depth: int, height: int, width: int) -> None:
    size = f"{height}x{width}"
    if height * width > MOST_PIXELS:
        megabytes = 8 * (height * width) ** 2 / 2**20
        raise UsageError(
            f"the kernel conv holds 8 bytes for each pair of pixels: {megabytes:.1f} MB for a pair of {size} images, "
            f"and takes at most {MOST_PIXELS} pixels (16x16): use kernel=fc, or smaller images"
        )
    if min(height, width) < 2**depth:
        raise UsageError(f"the kernel conv halves images {depth} times, for which {size} is too small: lower its depth")


def _variances(own: Tensor) -> Tensor:
    """Return K[p, p] (..., h, w) of covariances (..., h, w, h, w)."""
    height, width = own.shape[-2:]
    return own.flatten(-4, -3).flatten(-2).diagonal(dim1=-2, dim2=-1).reshape(*own.shape[:-4], height, width)


def _same_pixel(same: Tensor, covariance: Tensor) -> Tensor:
    """Return which entries of covariances (..., h, w, h, w) are the variance of one pixel, of images that are same."""
    height, width = covariance.shape[-2:]
    pixels = torch.eye(height * width, dtype=torch.bool, device=same.device).view(height, width, height, width)
    return same[..., None, None, None, None] & pixels


def _pooled(covariance: Tensor) -> Tensor:
    """Return the covariances of means over windows of 2x2 pixels."""
    *batch, height, width, _, _ = covariance.shape
    shape = (*batch, height // 2, 2, width // 2, 2, height // 2, 2, width // 2, 2)
    cut = covariance[..., : height // 2 * 2, : width // 2 * 2, : height // 2 * 2, : width // 2 * 2]
    return cut.reshape(shape).mean((-7, -5, -3, -1))
