"""Preprocessing from stored pixels to network inputs, and its inverse; it travels with every distilled set."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import DataError
from harness.system.memory import require_memory

NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2861,), (0.3530,)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tinyimagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of each channel, as the field's code bases have them (DC, utils.py). CIFAR-10's standard
deviation is the mean over images of each image's own, not that of all pixels."""

_COPIES_OF_IMAGES, _COPIES_OF_COVARIANCE = 2, 16
"""Copies that `Whiten.fitted` holds at once: images as floats and less their mean; the covariance, its decomposition
with LAPACK's work space, the transform and its inverse (measured: 15 to 16 covariances at 1024 to 3072 pixels)."""


_COUNTED = 2**24
"""Values of images whose levels are counted at once."""


class Preprocessing(ABC):
    """A map from images (n, channels, height, width) in [0, 1] to network inputs of the same shape, and back."""

    name: str

    @abstractmethod
    def apply(self, images: Tensor) -> Tensor:
        """Return the network inputs for ``images`` in [0, 1], of the same shape."""

    @abstractmethod
    def invert(self, inputs: Tensor) -> Tensor:
        """Return the images for network inputs; those of a learned set may leave [0, 1]."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that `preprocessing_from` needs to build it again."""

    @abstractmethod
    def identity(self) -> str:
        """Return the text that, with the training images, decides it: part of a problem's fingerprint."""

    def to_inputs(self, pixels: Tensor) -> Tensor:
        """Return network inputs (float32) for stored pixels (uint8, 0 to 255), of the same shape."""
        return self.apply(pixels.to(torch.float32).div_(255.0))


@dataclass(frozen=True, eq=False)
class Normalize(Preprocessing):
    """Normalisation: subtract each channel's mean and divide by its standard deviation."""

    name: str
    mean: Tensor
    std: Tensor

    @classmethod
    def named(cls, name: str, channels: int) -> "Normalize":
        """Return the normalisation of a known data set (a key of ``NORMALIZATIONS``).

        Raises:
            DataError: they are for another number of channels.
        """
        mean, std = (torch.tensor(values) for values in NORMALIZATIONS[name])
        if len(mean) != channels:
            raise DataError(f"normalize={name} is for {len(mean)} channels, but the images have {channels}")
        return cls(name, mean, std)

    @classmethod
    def computed(cls, pixels: Tensor) -> "Normalize":
        """Compute mean and standard deviation of each channel from ``pixels`` (n, channels, height, width), uint8."""
        # Counting the 256 levels gives the exact moments in one pass, independent of the order of summation; in parts,
        # because a channel is copied to be counted.
        parts = torch.split(pixels, max(1, _COUNTED // pixels[0].numel()))
        counts = sum(map(_levels, parts), torch.zeros((), dtype=torch.int64))
        levels = torch.arange(256, dtype=torch.float64) / 255
        weights = counts.double() / counts.sum(1, keepdim=True)
        mean = weights @ levels
        std = (weights @ levels.square() - mean.square()).clamp_min(0).sqrt()
        # A constant channel has standard deviation 0; the lower limit keeps the division finite.
        return cls("auto", mean.float(), std.clamp_min(1e-3).float())

    def apply(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std for each channel."""
        return (images - _per_channel(self.mean, images)) / _per_channel(self.std, images)

    def invert(self, inputs: Tensor) -> Tensor:
        """Return inputs * std + mean for each channel."""
        return inputs * _per_channel(self.std, inputs) + _per_channel(self.mean, inputs)

    def tensors(self) -> dict[str, Tensor]:
        """Return ``mean`` and ``std``, each (channels,)."""
        return {"mean": self.mean, "std": self.std}

    def identity(self) -> str:
        """Return mean and standard deviation to the digit that float32 holds, as text."""
        return f"normalize {[f'{value:.7g}' for value in torch.cat([self.mean, self.std]).tolist()]}"


@dataclass(frozen=True, eq=False)
class Whiten(Preprocessing):
    """ZCA whitening of pixels in [0, 1], by default without any other normalisation (as MTT has it: eps 0.1).

    Attributes:
        name: says which whitening it is, with its regulariser.
        mean: the mean of a flat image (d,), after its normalisation if there is one.
        transform: maps a flat image less the mean to its inputs (d, d).
        inverse: the inverse of ``transform`` (d, d).
        typical: if it is set, each image first loses its own mean and gets unit norm (KIP): the mean and norm (2,)
            that `invert` gives back to all images in place of their own.
    """

    name: str
    mean: Tensor
    transform: Tensor
    inverse: Tensor
    typical: Tensor | None = None

    @classmethod
    def fitted(cls, pixels: Tensor, eps: float) -> "Whiten":
        """Fit on training pixels (n, channels, height, width), uint8, with kornia's ZCA whitening.

        Raises:
            DataError: the covariance of so many pixels would not fit into the memory.
        """
        # kornia takes a second to import, and only whitening needs it.
        from kornia.enhance import ZCAWhitening

        count, side = len(pixels), pixels.shape[1:].numel()
        needed = 4 * (_COPIES_OF_IMAGES * count * side + _COPIES_OF_COVARIANCE * side**2)
        shape = "x".join(map(str, pixels.shape[1:]))
        require_memory(needed, f"whitening (zca) {count:,} images of {shape}", "leave out zca, or use smaller images")
        zca = ZCAWhitening(eps=eps, compute_inv=True)
        zca.fit(pixels.float().div_(255.0))
        return cls(f"zca eps={eps:g}", zca.mean_vector.flatten(), zca.transform_matrix, zca.transform_inv)

    def apply(self, images: Tensor) -> Tensor:
        """Return the whitened images, of the same shape."""
        own = images if self.typical is None else layer_normalised(images)
        flat = own.flatten(1) - self.mean.to(images)
        return (flat @ self.transform.to(images)).view_as(images)

    def invert(self, inputs: Tensor) -> Tensor:
        """Return the images for whitened inputs, of the same shape."""
        flat = inputs.flatten(1) @ self.inverse.to(inputs) + self.mean.to(inputs)
        if self.typical is not None:
            mean, norm = self.typical.to(inputs)
            flat = flat * norm + mean
        return flat.view_as(inputs)

    def tensors(self) -> dict[str, Tensor]:
        """Return ``mean``, ``transform``, ``inverse`` and, if it is set, ``typical``."""
        typical = {} if self.typical is None else {"typical": self.typical}
        return {"mean": self.mean, "transform": self.transform, "inverse": self.inverse, **typical}

    def identity(self) -> str:
        """Return the regulariser as text; the matrices follow from the training images, up to machine rounding."""
        return self.name


def preprocessing_from(name: str, tensors: dict[str, Tensor]) -> Preprocessing:
    """Build a preprocessing from its name and the tensors that ``tensors()`` returned.

    Raises:
        DataError: tensors are missing.
    """
    kind = Whiten if "transform" in tensors else Normalize
    try:
        return kind(name, **tensors)
    except TypeError:
        raise DataError(f"the preprocessing {name!r} cannot be built from {sorted(tensors)}") from None


def layer_normalised(images: Tensor) -> Tensor:
    """Return each image (n, c, h, w) less its mean and divided by its norm; an even image becomes zero."""
    centred = images - images.mean((1, 2, 3), keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=(1, 2, 3), keepdim=True)
    # Rounding leaves an even image a norm of about 1e-7 times its pixels, which would be scaled to 1.
    normalised: Tensor = centred / norm.clamp(min=1e-4)
    return normalised


def _levels(pixels: Tensor) -> Tensor:
    """Count the levels (channels, 256) of pixels (n, channels, height, width), uint8."""
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.transpose(0, 1)])


def _per_channel(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images).view(1, -1, 1, 1)
