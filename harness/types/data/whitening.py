"""Whitenings relative to the mean variance, as FRePo and KIP have them; MTT's is `Whiten.fitted`."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from harness.system.memory import require_memory
from harness.types.data.preprocessing import Normalize, Whiten, layer_normalised

COPIES = 8
"""Copies of the covariance, in float64, that are held at once."""
BLOCK = 4096
"""Images whose values are floats at once."""


def fit_frepo(pixels: Tensor, reg: float) -> Whiten:
    """Fit FRePo's whitening: each channel standardised, then each pixel's mean removed, then ZCA (Zhou et al., 2022).

    Args:
        pixels: training images (n, channels, height, width), uint8.
        reg: regulariser, relative to the mean of the covariance's diagonal.

    Raises:
        DataError: the covariance of so many pixels would not fit into the memory.
    """
    normal = Normalize.computed(pixels)
    mean, covariance = _moments(pixels, normal.apply)
    transform, inverse = _symmetric_root(covariance, reg)
    # Standardising and whitening are linear, so that one matrix does both, on pixels less their own mean.
    scale = normal.std.double()[:, None, None].expand(pixels.shape[1:]).flatten()
    center = normal.invert(mean.view(1, *pixels.shape[1:]).float()).flatten()
    return Whiten(f"frepo-zca reg={reg:g}", center, (transform / scale[:, None]).float(), (inverse * scale).float())


def fit_kip(pixels: Tensor, reg: float) -> Whiten:
    """Fit KIP's whitening: each image less its mean and of unit norm, then ZCA (Nguyen et al., 2021).

    The arguments are those of `fit_frepo`.
    """
    mean, covariance = _moments(pixels, layer_normalised)
    transform, inverse = _symmetric_root(covariance, reg)
    flat = torch.cat([block.flatten(1) for block in _blocks(pixels, lambda images: images)])
    centred = flat - flat.mean(1, keepdim=True)
    typical = torch.stack([flat.mean(), torch.linalg.vector_norm(centred, dim=1).mean()])
    return Whiten(f"kip-zca reg={reg:g}", mean.float(), transform.float(), inverse.float(), typical.float())


FITS: dict[str, Callable[[Tensor, float], Whiten]] = {"frepo-zca": fit_frepo, "kip-zca": fit_kip}
"""The whitenings by the value of a data set's option ``normalize``."""


def _blocks(pixels: Tensor, normalise: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    for part in torch.split(pixels, BLOCK):
        yield normalise(part.float().div_(255.0)).double()


def _moments(pixels: Tensor, normalise: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean (d,) and covariance (d, d), divided by n, of normalised images, in float64."""
    count, side = len(pixels), pixels.shape[1:].numel()
    shape = "x".join(map(str, pixels.shape[1:]))
    require_memory(
        8 * COPIES * side**2, f"whitening {count:,} images of {shape}", "use another normalize, or smaller images"
    )  # fmt: skip
    total = torch.zeros(side, dtype=torch.float64)
    for block in _blocks(pixels, normalise):
        total += block.flatten(1).sum(0)
    mean, covariance = total / count, torch.zeros(side, side, dtype=torch.float64)
    for block in _blocks(pixels, normalise):
        centred = block.flatten(1) - mean
        covariance += centred.T @ centred / count
    return mean, covariance


def _symmetric_root(covariance: Tensor, reg: float) -> tuple[Tensor, Tensor]:
    """Return (C + reg tr C / d I)^(-1/2) and its inverse, both symmetric."""
    values, vectors = torch.linalg.eigh(covariance)
    spectrum = values.clamp(min=0) + reg * covariance.trace() / len(covariance)
    return (vectors * spectrum.rsqrt()) @ vectors.T, (vectors * spectrum.sqrt()) @ vectors.T
