"""The distilled set: learned images and labels, with everything that is needed to train on them."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from harness.errors import DataError
from harness.types.data.class_names import canonical_name, check_class_names
from harness.types.data.labels import FLOATS, LabelKind, check_labels, kind_of
from harness.types.data.preprocessing import Normalize, Preprocessing, Whiten
from harness.types.data.schedule import Schedule
from harness.types.parametrisation import Encoding, check_pixels
from harness.types.problem import Problem

BITS = 32
"""Bits of a value of a plain image, a label or a step size, in which storage is counted."""


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """A distilled set: images as network inputs (n, channels, height, width), float32, with their labels.

    A set of another parametrisation stores what its encoding decodes to such images.

    Attributes:
        images: already preprocessed, as they were learned; with an encoding, the stored images that it decodes.
        labels: class indices (n,) int64, or one row for each image (n, classes), float32: class weights, or real
            values. With an encoding, the labels of the stored images, from which it decodes those of training images.
        classes: class names.
        preprocessing: the preprocessing of the real images, which test images need as well.
        step_size: the learning rate for students if the method learned one; otherwise None.
        provenance: the origin of the set (method, pool, seed, iteration, ...), as JSON.
        encoding: how images are stored, and how training images are decoded from them; None for plain images.
        label_kind: the kind of the labels that students train on: the one that the parametrisation decodes to, and
            otherwise ``hard`` for indices and ``soft`` for floats, unless it is declared to be ``regression``. Never
            None once the set is built.
        schedule: ordered steps that own their training images, each with a learning rate; None if there are none. Its
            indices are those of the images that `training_data` returns.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    step_size: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    encoding: Encoding | None = None
    label_kind: LabelKind | None = None
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        # Whatever is declared: in a copy with other labels (`dataclasses.replace`), it is the kind of those before.
        if self.label_kind in (None, "hard", "soft") and isinstance(self.labels, Tensor):
            object.__setattr__(self, "label_kind", self._decoded_kind or kind_of(self.labels))
        self._check_data()

    @property
    def _decoded_kind(self) -> LabelKind | None:
        """The kind of labels that the parametrisation has of its own; None if it passes on the stored ones."""
        return self.encoding.parametrisation.label_kind if self.encoding else None

    @property
    def _declared_kind(self) -> LabelKind | None:
        """The kind if it had to be declared; None if the type of the labels says it, and may have changed since."""
        return None if self.label_kind in ("hard", "soft") else self.label_kind

    def check(self) -> None:
        """Check everything that a reader of a file checks; tensors may have changed since the set was built.

        Raises:
            DataError: no student could be trained on the set, or a file of it could not be read again.
        """
        self._check_data()
        # Not checked when the set is built: an evaluator may ignore the rate and use one of its own.
        check_step_size(self.step_size)
        # Only decoding shows whether a parametrisation keeps its promises.
        if self.encoding is not None:
            images, labels = self.encoding.decode(self.images.detach(), self.labels)
            check_images(images)
            check_labels(labels, len(images), len(self.classes), kind=self._decoded_kind or self._declared_kind)
            self._check_schedule(len(images))
            if self.encoding.parametrisation.decodes_to == "pixels":
                check_pixels(images)

    def _check_data(self) -> None:
        check_images(self.images, plain=self.encoding is None)
        if not isinstance(self.labels, Tensor):
            raise DataError(f"labels must be a tensor, not {type(self.labels).__name__}")
        if not isinstance(self.classes, tuple) or not all(isinstance(name, str) for name in self.classes):
            raise DataError("classes must be a tuple of names")
        check_class_names(self.classes)
        own = self._decoded_kind
        if own is not None and own != self.label_kind:
            raise DataError(f"its parametrisation decodes to {own} labels, but label_kind says {self.label_kind!r:.50}")
        if own is not None and kind_of(self.labels) != "hard":
            raise DataError("its parametrisation has labels of its own, so the stored ones must be class indices")
        check_labels(self.labels, len(self.images), len(self.classes), kind="hard" if own else self._declared_kind)
        if self.schedule is not None and not isinstance(self.schedule, Schedule):
            raise DataError(f"the schedule must be a Schedule, not {type(self.schedule).__name__}")
        if self.encoding is None:
            self._check_schedule(len(self.images))
        check_preprocessing(self.preprocessing, self._image_shape())
        if self.encoding is not None:
            self.encoding.check(self.images)
        _check_provenance(self.provenance)

    def _check_schedule(self, images: int) -> None:
        if self.schedule is not None:
            self.schedule.check(images)

    def misfit(self, problem: Problem) -> str | None:
        """Return why the set does not belong to this problem, as a phrase; None if it does."""
        shape = self._image_shape()
        if shape != problem.shape:
            return f"its images are {shape}, but those of {problem.name} are {problem.shape}"
        if [*map(canonical_name, self.classes)] != [*map(canonical_name, problem.classes)]:
            return f"its classes are not those of {problem.name}, or in another order"
        if self.preprocessing.identity() != problem.preprocessing.identity():
            return f"its preprocessing {self.preprocessing.name!r} is not that of {problem.name}"
        return None

    def _image_shape(self) -> tuple[int, ...]:
        """Return the shape (channels, height, width) of a training image."""
        return tuple(self.images.shape[1:]) if self.encoding is None else self.encoding.shape

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over images and labels, so that ``TensorDataset(*distilled)`` works."""
        return iter(self.training_data())

    @property
    def storage_floats(self) -> int:
        """The storage in values of 32 bits, rounded up: the budget at which methods are compared."""
        return -(-self.storage_bits // BITS)

    @property
    def storage_bits(self) -> int:
        """The bits that the set stores.

        That is images or what they are decoded from, a decoder's weights, labels unless they are class indices, and
        the step sizes of a schedule.
        """
        # Which images a step owns is their order, as it is with class indices, and costs nothing.
        steps = BITS * len(self.schedule.steps) if self.schedule else 0
        if self.encoding is not None:
            return steps + self.encoding.storage_bits(self.images, self.labels)
        return steps + BITS * (self.images.numel() + (0 if self.label_kind == "hard" else self.labels.numel()))

    def training_data(self) -> tuple[Tensor, Tensor]:
        """Return images and labels as a student trains on them, decoded and preprocessed."""
        return self._decoded

    @cached_property
    def _decoded(self) -> tuple[Tensor, Tensor]:
        if self.encoding is None:
            return self.images, self.labels
        images, labels = self.encoding.decode(self.images, self.labels)
        self._check_schedule(len(images))
        is_pixels = self.encoding.parametrisation.decodes_to == "pixels"
        return self.preprocessing.apply(images) if is_pixels else images, labels

    def statistics(self) -> dict[str, float]:
        """Return the largest absolute value and the standard deviation of all values; they show a set that blew up."""
        images, _ = self.training_data()
        return {"largest": float(images.abs().max()), "std": float(images.std())}


def check_images(images: Tensor, plain: bool = True) -> None:
    """Check that images are finite floats, at least one: (n, channels, height, width) if plain, (n, ...) if not.

    Raises:
        DataError: they are something else.
    """
    if not isinstance(images, Tensor):
        raise DataError(f"images must be a tensor (n, channels, height, width), not {type(images).__name__}")
    if (images.ndim != 4 if plain else not images.ndim) or not images.numel():
        raise DataError(f"images must be (n, channels, height, width), not {tuple(images.shape)}")
    if images.dtype not in FLOATS:
        raise DataError(f"images must be floats, not {str(images.dtype).removeprefix('torch.')}")
    if not bool(torch.isfinite(images).all()):
        raise DataError("the distilled images have NaN or infinite values")


def check_step_size(step_size: float | None) -> None:
    """Check that a step size, unless it is None, can be a learning rate.

    Raises:
        DataError: it is not a finite number above 0.
    """
    if step_size is None:
        return
    if isinstance(step_size, bool) or not isinstance(step_size, int | float):
        raise DataError(f"the step size is a {type(step_size).__name__}, which is not a learning rate")
    if not 0 < step_size < math.inf:
        raise DataError(f"the step size is {step_size:g}, which is not a learning rate")


def check_preprocessing(preprocessing: Preprocessing, shape: Sequence[int]) -> None:
    """Check that a preprocessing can be written to a file and fits images of a shape (channels, height, width).

    Raises:
        DataError: no file format knows it, or it does not fit the shape.
    """
    # Exactly these types: a subclass would be written as its base class and read back as something else.
    if type(preprocessing) not in (Normalize, Whiten):
        raise DataError(f"its preprocessing is a {type(preprocessing).__name__}, which no file can name")
    # Trying it on one black image finds wrong shapes and zero divisors without knowing the class's internals.
    black = torch.zeros(1, *shape)
    try:
        inputs = preprocessing.apply(black)
    except RuntimeError:
        inputs = black.new_zeros(())
    if inputs.shape != black.shape or not bool(torch.isfinite(inputs).all()):
        raise DataError(f"its preprocessing {preprocessing.name!r} does not fit images {tuple(black.shape)}")


def _check_provenance(provenance: Mapping[str, Any]) -> None:
    try:
        # Checked when the set is built, so that the fault names its author and not, hours later, whoever saves the set.
        json.dumps(dict(provenance), sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:100]
        raise DataError(f"its provenance cannot be written as JSON ({type(error).__name__}: {reason})") from None
