"""A data set without files: three shapes at random places on noise."""

from pathlib import Path

import torch

from harness import Dataset, DatasetOptions, RawData, RunDefaults, Split, Streams, Traits, option

SIZE, SIDE = 16, 7
CLASSES = ("square", "cross", "stripes")


class ShapesOptions(DatasetOptions):
    """Options of `Shapes`."""

    per_class: int = option(20, "training images of each class; half as many are test images", ge=4)


class Shapes(Dataset[ShapesOptions]):
    """Grey images of 16x16 with a square, a cross or stripes of 7x7."""

    Options = ShapesOptions

    @property
    def traits(self) -> Traits:
        """Small runs."""
        return Traits(defaults=RunDefaults(iterations=(4,), evaluators=("anchored",), architectures=("patches", "mlp")))

    def load(self, root: Path) -> RawData:
        """Draw the images; ``root`` is not used."""
        return RawData(
            self._drawn("train", self.options.per_class), self._drawn("test", self.options.per_class // 2), CLASSES
        )

    def _drawn(self, part: str, per_class: int) -> Split:
        generator = Streams(0).generator(f"shapes-{part}")
        labels = torch.arange(len(CLASSES)).repeat_interleave(per_class)
        images = torch.randint(0, 60, (len(labels), 1, SIZE, SIZE), generator=generator)
        places = torch.randint(0, SIZE - SIDE, (len(labels), 2), generator=generator)
        for image, label, (top, left) in zip(images, labels.tolist(), places.tolist(), strict=True):
            image[0, top : top + SIDE, left : left + SIDE] += _shape(label)
        return Split(images.to(torch.uint8), labels)


def _shape(label: int) -> torch.Tensor:
    shape = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    middle = SIDE // 2
    if label == 0:
        shape[:] = 180
    elif label == 1:
        shape[middle, :] = shape[:, middle] = 180
    else:
        shape[::2] = 180
    return shape
