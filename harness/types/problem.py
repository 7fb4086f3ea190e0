"""A problem: a real data set, ready for distillation and scoring."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from harness.system.memory import require_memory
from harness.types.data.hold_out import HoldOut
from harness.types.data.preprocessing import Preprocessing, preprocessing_from
from harness.types.seeds import send

if TYPE_CHECKING:
    from harness.types.students.metric import Metric

CPU = torch.device("cpu")
_SMALL, _MOST_VALUES = 2**14, 2**21
"""Values of an image that is small, and values of larger images that `Problem.real_extreme` preprocesses at once."""
Shape = tuple[int, int, int]
"""The channels, height and width of an image."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images as uint8 (n, channels, height, width), and labels as int64 (n,).

    Attributes:
        images: the pixels; they may be mapped from a file, so nothing writes into them.
        labels: the label of each image.
        on_disk: whether the images are mapped from a file because they do not fit in memory: batches are gathered by
            index, and the rest stays where it is.
    """

    images: Tensor
    labels: Tensor
    on_disk: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> "Split":
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """Return a copy of the split on a device; images that do not fit in memory stay where they are."""
        return Split(self.images if self.on_disk else self.images.to(device), self.labels.to(device), self.on_disk)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 digest of shape, pixels and labels."""
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        digest.update(self.images.cpu().contiguous().numpy().data)
        digest.update(self.labels.cpu().contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Problem:
    """The real images that a method learns from and those that students are scored on.

    Attributes:
        name: the data set with its options, as it is typed.
        train: the training images, from which a set is distilled.
        score: the images that students are scored on.
        score_on: whether these are the test set or a validation split of the training set.
        classes: class names; label i is ``classes[i]``.
        preprocessing: the map from pixels to network inputs.
        like: the known data set whose defaults and published settings apply; None if there is none.
        scored_like: the known data set whose published accuracies apply; None if there is none.
        augmentations: by family of augmentation (``dc``, ``dsa``), the operations that suit the data set.
        provider: distribution and version of the data set's plugin, for records.
        device: the device of networks and their inputs.
        hold_out: the validation split that was cut from the training set; None if ``train`` is all of it.
        metrics: by full name, what `train_students` measures of each student beside the accuracy.
    """

    name: str
    train: Split
    score: Split
    score_on: Literal["test", "validation"]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    like: str | None = None
    scored_like: str | None = None
    augmentations: Mapping[str, str] = field(default_factory=dict)
    provider: Mapping[str, str] = field(default_factory=dict)
    device: torch.device = CPU
    hold_out: HoldOut | None = None
    metrics: Mapping[str, "Metric[Any]"] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """The channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def of_class(self) -> list[Tensor]:
        """The indices of the training images of each label."""
        return [torch.nonzero(self.train.labels == label).flatten() for label in range(len(self.classes))]

    def real_batch(self, label: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw training images of one class uniformly without replacement; all of them if there are fewer.

        Returns:
            Network inputs (at most count, channels, height, width), float32.
        """
        members = self.of_class[label]
        # The draw is made on the CPU whatever the device, so that a GPU sees the same real images as a CPU.
        chosen = members[torch.randperm(len(members), generator=generator)[:count]]
        return self.inputs_of(self.pixels_of(chosen))

    def pixels_of(self, index: Tensor) -> Tensor:
        """Gather training images by index.

        Args:
            index: positions in the training set (n,), int64, on the CPU.

        Returns:
            Pixels (n, channels, height, width), uint8, on the device.
        """
        images = self.resident.train.images
        return images[send(index, images.device)].to(self.device)

    def inputs_of(self, pixels: Tensor) -> Tensor:
        """Return network inputs (n, channels, height, width), float32, on the device, for pixels of any device."""
        return self.resident.preprocessing.to_inputs(pixels.to(self.device))

    @cached_property
    def resident(self) -> "Problem":
        """The problem with pixels, labels and preprocessing on the device; on a CPU, the problem itself.

        Pixels that do not fit in memory stay on the CPU: `pixels_of` gathers those of a batch.
        """
        if self.device.type == "cpu":
            return self
        tensors = {name: tensor.to(self.device) for name, tensor in self.preprocessing.tensors().items()}
        preprocessing = preprocessing_from(self.preprocessing.name, tensors)
        return replace(
            self, train=self.train.to(self.device), score=self.score.to(self.device), preprocessing=preprocessing
        )

    @cached_property
    def train_inputs(self) -> Tensor:
        """All training images as network inputs (n, channels, height, width), float32, on the device."""
        if self.device.type == "cpu":
            count, shape = len(self.train), "x".join(map(str, self.shape))
            needed = 2 * 4 * self.train.images.numel()  # float32, in parts and then in one
            require_memory(needed, f"all {count:,} training images of {shape} as floats", "use smaller or fewer images")
        # In parts, so that no second copy of all images as floats is needed while they are normalised.
        parts = torch.split(self.train.images, 4096)
        return torch.cat([self.preprocessing.to_inputs(part.to(self.device)) for part in parts])

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 digest of training images, labels, preprocessing and class names.

        Names that only number the labels ("0", "1", ...) add nothing: a data set without names has the same ones.
        """
        parts = [self.train.fingerprint, self.preprocessing.identity()]
        # Keys of data sets without names stay what they were before class names became part of the fingerprint.
        if self.classes != tuple(map(str, range(len(self.classes)))):
            parts.append(json.dumps(self.classes))  # a name may hold any sign, a space included
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @cached_property
    def real_extreme(self) -> float:
        """The largest absolute value of a training input after preprocessing."""
        # Floats take many times the memory of pixels. Of small images as many at once as ever: how many decides the
        # last bit of what is whitened.
        values = math.prod(self.shape)
        batches = torch.split(self.train.images, 4096 if values <= _SMALL else max(1, _MOST_VALUES // values))
        return max(float(self.preprocessing.to_inputs(batch).abs().max()) for batch in batches)
