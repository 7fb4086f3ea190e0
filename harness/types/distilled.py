"""A distilled set: the learned images and labels, and all that is needed to use them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from harness.types.decoders import Decoder
from harness.types.errors import DataError
from harness.types.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """Images as network inputs (n, channels, height, width), float32, with their labels.

    Attributes:
        images: already preprocessed, as they were learned; with a decoder, what it decodes.
        labels: class indices (n,) int64, or one row of class weights for each image (n, classes), float32.
        classes: class names.
        preprocessing: what was done to the real images, and has to be done to test images.
        step_size: a learned learning rate for students, if the method learns one.
        provenance: where the set comes from: method, pool, seed, iteration and so on, as JSON.
        decoder: makes images in [0, 1] of packed ones, which are then preprocessed; None where there is nothing to do.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    step_size: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    decoder: Decoder | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or not self.images.numel():
            raise DataError(f"images must be (n, channels, height, width), not {tuple(self.images.shape)}")
        if len(self.labels) != len(self.images):
            raise DataError(f"there are {len(self.images)} images but {len(self.labels)} labels")
        if not bool(torch.isfinite(self.images).all()):
            raise DataError("the distilled images have NaN or infinite values")
        self._check_labels()

    def _check_labels(self) -> None:
        wanted = (len(self.images),) if self.label_kind == "hard" else (len(self.images), len(self.classes))
        if tuple(self.labels.shape) != wanted or not bool(torch.isfinite(self.labels).all()):
            told = f"not {self.labels.dtype} {tuple(self.labels.shape)}"
            raise DataError(f"labels must be class indices (n,) or finite weights (n, {len(self.classes)}), {told}")
        if self.label_kind == "hard" and not bool(((self.labels >= 0) & (self.labels < len(self.classes))).all()):
            raise DataError(f"labels must lie in 0 ... {len(self.classes) - 1}")

    def __iter__(self) -> Iterator[Tensor]:
        """Images and labels, so that ``TensorDataset(*distilled)`` works."""
        return iter(self.training_data())

    @property
    def label_kind(self) -> Literal["hard", "soft"]:
        """``hard``: class indices; ``soft``: weights of all classes."""
        return "soft" if self.labels.is_floating_point() else "hard"

    @property
    def storage_floats(self) -> int:
        """How many numbers the set takes, packed as it is stored: the budget that methods are compared at."""
        return self.images.numel() + (self.labels.numel() if self.label_kind == "soft" else 0)

    def training_data(self) -> tuple[Tensor, Tensor]:
        """Images and labels as a student trains on them: decoded and preprocessed."""
        return self._decoded

    @cached_property
    def _decoded(self) -> tuple[Tensor, Tensor]:
        if self.decoder is None:
            return self.images, self.labels
        images, labels = self.decoder.decode(self.images, self.labels)
        return self.preprocessing.apply(images), labels

    def statistics(self) -> dict[str, float]:
        """Largest absolute value and standard deviation over all values, by which a set that blew up is known."""
        images, _ = self.training_data()
        return {"largest": float(images.abs().max()), "std": float(images.std())}
