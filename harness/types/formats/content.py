"""The content of a file of a distilled set, and how the user's information completes it to a set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import DataError
from harness.types.data.class_names import are_whole_numbers, canonical_name, check_class_names
from harness.types.data.labels import LabelKind, check_label_form
from harness.types.data.preprocessing import Preprocessing
from harness.types.data.schedule import Schedule
from harness.types.distilled import DistilledSet, check_images, check_preprocessing, check_step_size
from harness.types.parametrisation import Encoding, StoredEncoding, check_pixels
from harness.types.problem import Shape

Opener = Callable[[StoredEncoding, Shape], Encoding]
"""Returns the encoding that a file describes; the shape is that of a training image."""
MOST_CLASSES = 2**17
"""Highest number of classes that labels may stand for if nothing names them."""


@dataclass(frozen=True)
class Reading:
    """Instructions for reading a file, as far as they are needed.

    Attributes:
        entry: index of the set in a file that holds several; -1 is the last.
        format: the name of its format with options, ``idc[factor=2]``; None to recognise it by its content.
        step_size: the students' learning rate that was learned with the images, if no file holds it.
    """

    entry: int = -1
    format: str | None = None
    step_size: float | None = None


@dataclass(frozen=True, eq=False)
class Content:
    """The content of a file; a value is None if the file does not hold it.

    Attributes:
        where: the file's name in messages.
        images: (n, channels, height, width), floats.
        labels: class indices (n,), or class weights or real values (n, classes); None: equally many for each class, in
            order.
        pixels: whether images are in [0, 1] and not yet preprocessed; of no meaning with an encoding.
        encoding: how images are stored; None for plain images.
        label_kind: the kind of the labels that students train on; None for what the type of the labels says.
        schedule: ordered steps with the images that each owns; None for none.
        named: whether label i stands for the name ``classes[i]``, whatever label a data set gives to that name.
        notes: lines to show when the file is used.
        fragment: the part of its name that says that it is one of several files; None if there is no such part.
    """

    where: str
    images: Tensor
    labels: Tensor | None
    pixels: bool = False
    classes: tuple[str, ...] | None = None
    named: bool = False
    preprocessing: Preprocessing | None = None
    step_size: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    encoding: StoredEncoding | None = None
    notes: tuple[str, ...] = ()
    fragment: str | None = None
    label_kind: LabelKind | None = None
    schedule: Schedule | None = None

    @property
    def lacks_normalisation(self) -> bool:
        """Whether images went through a preprocessing that the file does not describe."""
        return self.preprocessing is None and not self.pixels

    def completed(
        self,
        opener: Opener,
        preprocessing: Preprocessing | None = None,
        classes: Sequence[str] | None = None,
        step_size: float | None = None,
    ) -> DistilledSet:
        """Return the distilled set; arguments supply what the file lacks, and its own values take precedence.

        Args:
            opener: opens the encoding, if there is one.
            preprocessing: the preprocessing of images or pixels.
            classes: the class names.
            step_size: the students' learning rate.

        Raises:
            DataError: a value is missing, does not fit or cannot be used.
        """
        preprocessing = self.preprocessing or preprocessing
        if preprocessing is None:
            question = "how its images are to be" if self.pixels else "how its images were"
            raise DataError(f"{self.where} does not say {question} normalised: give preprocessing= (--dataset)")
        try:
            labels, names = self._labels(classes)
            check_class_names(names)
            rate = self._step_size(step_size)
            check_images(self.images, plain=self.encoding is None or self.encoding.shape is None)
            # Files hold halves, doubles or tensors that still require a gradient; students train on plain float32.
            images = self.images.detach().float()
            encoding = None
            if self.encoding is not None:
                channels, height, width = self.encoding.shape or images.shape[1:]
                encoding = opener(self.encoding, (channels, height, width))
            elif self.pixels:
                check_pixels(images)
                check_preprocessing(preprocessing, images.shape[1:])
                images = preprocessing.apply(images)
            kind = self.label_kind
            whole = DistilledSet(
                images, labels, names, preprocessing, rate, self.provenance, encoding, kind, self.schedule
            )
            if kind not in (None, whole.label_kind):
                raise DataError(f"labels are {whole.label_kind}, but its metadata says {kind!r}")
            return whole
        except DataError as error:
            raise DataError(f"{self.where}: {error}") from None

    def _labels(self, classes: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
        labels = self.labels
        if labels is None:
            names = self.classes or tuple(classes or ())
            return _in_order(len(self.images), len(names)), names
        check_label_form(labels)
        # A file that names its classes may count them in another order than the data set, which decides what a label
        # means.
        if self.named and self.classes and classes and (order := _by_name(self.classes, classes)) is not None:
            return order[labels.long()], tuple(classes)
        if labels.is_floating_point():
            return labels.detach().float(), self.classes or tuple(classes or map(str, range(labels.shape[1])))
        labels = labels.detach().long()
        count = int(labels.max()) + 1 if labels.numel() else 0
        # A single wild label would otherwise demand as many class names, and a weight for each.
        if count > MOST_CLASSES and not (self.classes or classes):
            raise DataError(f"labels go up to {count - 1}: they must be class indices from 0")
        return labels, self.classes or tuple(classes or map(str, range(max(count, 0))))

    def _step_size(self, rate: float | None) -> float | None:
        if self.step_size is not None and rate is not None:
            raise DataError(f"the step size is {self.step_size:g}, as the file says: leave out --step-size")
        rate = rate if self.step_size is None else self.step_size
        check_step_size(rate)
        return rate


def display_name(path: Path) -> str:
    """Return the name of a file or folder for messages and tables."""
    # ``.`` and ``/`` have no name of their own.
    return path.name or path.resolve().name or str(path)


def in_one_line(text: str) -> str:
    """Return the text with characters escaped that would break the line or control a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _in_order(images: int, classes: int) -> Tensor:
    if not classes:
        raise DataError("there are no labels, and the classes are not known: give classes= (--dataset)")
    if images % classes:
        raise DataError(f"there are no labels, and {images} images are not the same number for {classes} classes")
    return torch.arange(classes).repeat_interleave(images // classes)


def _by_name(names: tuple[str, ...], classes: Sequence[str]) -> Tensor | None:
    """Map each label of the file to the data set's; return None if both use the same labels under other names."""
    known = {canonical_name(name): label for label, name in enumerate(classes)}
    spelled = [canonical_name(name) for name in names]
    if len(known) == len(classes) and set(spelled) <= set(known):
        return torch.tensor([known[name] for name in spelled])
    # 1 and 01, or +1, are the same class under two spellings.
    if are_whole_numbers([*known, *spelled]):  # 1 and 01, or +1
        by_value = {int(name): label for name, label in known.items()}
        if len(by_value) == len(classes) and {int(name) for name in spelled} <= set(by_value):
            return torch.tensor([by_value[int(name)] for name in spelled])
    if all(name.isdecimal() for name in names) and all(int(name) < len(classes) for name in names):
        return torch.tensor([int(name) for name in names])
    unknown = next(name for name in spelled if name not in known)
    fault = f"its class {unknown!r} is none of {', '.join(list(classes)[:10])}"
    raise DataError(f"{fault}: call the folders as the data set calls its classes, or by their labels 0, 1, ...")
