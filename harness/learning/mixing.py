"""Mixing images of a batch and their labels: CutMix and Mixup, and augmentations one after the other."""

import math
from abc import abstractmethod

import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional

from harness.learning.recipe import Augment, LabelledAugment, augmented
from harness.types.seeds import send


class _Mixing(LabelledAugment):
    """Mixes a batch with a permutation of itself, with some probability.

    All random numbers of a batch are drawn at every call, mixed or not, so that a batch's fate does not depend on those
    before it.

    Args:
        classes: number of classes, to turn class indices into class weights.
        probability: probability of mixing a batch, in [0, 1].
        beta: both parameters of the beta distribution of the share λ that an image keeps; 1 is uniform in [0, 1).

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(self, classes: int, probability: float = 1.0, beta: float = 1.0) -> None:
        if classes < 1:
            raise ValueError(f"there is at least one class, not {classes}")
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability of mixing is in [0, 1], not {probability:g}")
        if not 0 < beta < math.inf:
            raise ValueError(f"a beta distribution has a finite parameter above 0, not {beta:g}")
        self.classes, self.probability, self.beta = classes, probability, beta

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the images (n, c, h, w), mixed or not, and their labels as weights (n, classes)."""
        coin, quantile, row, column = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        partners = torch.randperm(len(images), generator=generator)
        weights = labels if labels.ndim == 2 else functional.one_hot(labels, self.classes).to(images.dtype)
        if coin >= self.probability:
            return images, weights
        # The inverse of the distribution function: torch's own sampler of it takes no generator.
        share = float(betaincinv(self.beta, self.beta, quantile))
        height, width = images.shape[2:]
        centre = int(row * height), int(column * width)
        return self.mix(images, weights, send(partners, images.device), share, centre)

    @abstractmethod
    def mix(
        self, images: Tensor, weights: Tensor, partners: Tensor, share: float, centre: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return mixed images and class weights.

        Args:
            images: images (n, c, h, w).
            weights: class weights (n, classes).
            partners: index of the image (n,) that each is mixed with.
            share: λ, the share of its own that an image keeps, in [0, 1].
            centre: a pixel (row, column), uniform over the image.
        """


class CutMix(_Mixing):
    """Replaces a box of each image by that of another, and weights the labels by area (Yun et al., ICCV 2019).

    The box has sides int(h sqrt(1 - λ)) and int(w sqrt(1 - λ)) around a uniform pixel and is clipped at the border; the
    labels are weighted by the area that remains (section 3.1 and the appendix).
    """

    def mix(
        self, images: Tensor, weights: Tensor, partners: Tensor, share: float, centre: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the images with boxes pasted in, and the class weights by area."""
        top, left, bottom, right = cutmix_box(share, centre, (images.shape[2], images.shape[3]))
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
        own = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
        return mixed, own * weights + (1 - own) * weights[partners]


class Mixup(_Mixing):
    """Averages each image and its label with those of another, with weights λ and 1 - λ (Zhang et al., ICLR 2018)."""

    def mix(
        self, images: Tensor, weights: Tensor, partners: Tensor, share: float, centre: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the averages of images and of class weights."""
        return share * images + (1 - share) * images[partners], share * weights + (1 - share) * weights[partners]


class Composed(LabelledAugment):
    """Applies augmentations in turn, each to the images and labels of the one before.

    Args:
        augmentations: functions of images, or of images and labels.
    """

    def __init__(self, *augmentations: Augment) -> None:
        self.augmentations = augmentations

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the images (n, c, h, w) and labels after the last augmentation."""
        for augment in self.augmentations:
            images, labels = augmented(augment, images, labels, generator)
        return images, labels


def cutmix_box(share: float, centre: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return CutMix's box as top, left, bottom, right, the last two exclusive.

    Args:
        share: λ, the share of the area outside of the box before it is clipped, in [0, 1].
        centre: its middle pixel (row, column).
        shape: height and width of the image.
    """
    sides = [int(side * math.sqrt(1 - share)) for side in shape]
    top, left = (max(middle - side // 2, 0) for middle, side in zip(centre, sides, strict=True))
    bottom, right = (min(middle + side // 2, most) for middle, side, most in zip(centre, sides, shape, strict=True))
    return top, left, bottom, right
