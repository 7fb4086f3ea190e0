"""A problem: a real data set, ready for distillation and scoring."""

import hashlib
import json
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
Shape = tuple[int, int, int]
"""The channels, height and width of an image."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images as uint8 (n, channels, height, width), and labels as int64 (n,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> "Split":
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """Return a copy of the split on a device."""
        return Split(self.images.to(device), self.labels.to(device))

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
        like: the known data set whose defaults and published numbers apply; None if there is none.
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
        here = self.resident
        return here.preprocessing.to_inputs(here.train.images[send(chosen, self.device)])

    @cached_property
    def resident(self) -> "Problem":
        """The problem with pixels, labels and preprocessing on the device; on a CPU, the problem itself."""
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
        batches = torch.split(self.train.images, 4096)
        return max(float(self.preprocessing.to_inputs(batch).abs().max()) for batch in batches)
