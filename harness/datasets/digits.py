"""Scikit-learn's embedded handwritten digits: real images without a download."""

from pathlib import Path

import torch
from torch.nn.functional import interpolate

from harness.datasets.known_classes import DIGITS
from harness.datasets.splits import cut
from harness.datasets.traits import DIGITS_TRAITS
from harness.types.dataset import Dataset, DatasetOptions, Outline, RawData, Traits
from harness.types.problem import Split
from harness.types.seeds import Streams

TEST_IMAGES = 36
"""Test images of each class: 360 of the 1797."""


class Digits(Dataset[DatasetOptions]):
    """1797 grey digits of 8x8 with 17 levels, enlarged to 16x16 (bilinear).

    The test set never changes: 36 images of each class, drawn from the streams of seed 0.
    """

    @property
    def traits(self) -> Traits:
        """The traits of the embedded digits: quick runs, pixels normalised by their own mean and standard deviation."""
        return DIGITS_TRAITS

    @property
    def outline(self) -> Outline:
        """The outline: ten classes of digits of 16x16."""
        return Outline(DIGITS, (1, 16, 16))

    def load(self, root: Path) -> RawData:
        """All digits; ``root`` is not used."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        levels = torch.from_numpy(digits.images).float().unsqueeze(1)
        # Exact in float32: levels and bilinear weights are multiples of 1/16.
        images = interpolate(levels, scale_factor=2, mode="bilinear", align_corners=False).mul(255 / 16)
        everything = Split(images.round().to(torch.uint8), torch.from_numpy(digits.target).long())
        train, test = cut(everything, lambda _: TEST_IMAGES, Streams(0), "digits-test")
        return RawData(train, test, DIGITS)
