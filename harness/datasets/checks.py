"""Checks that what a data set returns is what its contract promises."""

import torch

from harness.datasets.splits import classes_without
from harness.errors import DataError
from harness.types.data.class_names import check_class_names
from harness.types.dataset import RawData
from harness.types.problem import Split


def check(raw: RawData, name: str) -> None:
    """Check the class names, and images and labels of both splits.

    Raises:
        DataError: a class name is invalid, or `check_images` refuses the images.
    """
    _check_classes(raw.classes, name)
    check_images(raw, name)


def check_images(raw: RawData, name: str) -> None:
    """Check images and labels of both splits, whatever the classes are called.

    Raises:
        DataError: a type or shape is wrong, a label is out of range, a class has no images, or there is only one.
    """
    if len(raw.classes) < 2:
        raise DataError(f"{name}: there must be at least two classes, not {len(raw.classes)}")
    for split, what in ((raw.train, "training"), (raw.test, "test")):
        _check_types(split, f"{name}: the {what} set")
        _check_labels(split, raw.classes, f"{name}: the {what} set")
    train, test = (tuple(split.images.shape[1:]) for split in (raw.train, raw.test))
    if train != test:
        raise DataError(f"{name}: training images are {train} but test images {test} (channels, height, width)")


def _check_classes(classes: tuple[str, ...], name: str) -> None:
    if not isinstance(classes, tuple) or not all(isinstance(label_name, str) for label_name in classes):
        raise DataError(f"{name}: class names must be a tuple of texts, not {classes!r:.100}")
    try:
        check_class_names(classes)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _check_types(split: Split, where: str) -> None:
    images, labels = split.images, split.labels
    if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape:
        form = f"{images.dtype} {tuple(images.shape)}"
        raise DataError(f"{where} must have uint8 images (n, channels, height, width), not {form}")
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise DataError(f"{where} must have int64 labels (n,), not {labels.dtype} {tuple(labels.shape)}")
    if len(images) != len(labels):
        raise DataError(f"{where} has {len(images)} images but {len(labels)} labels")


def _check_labels(split: Split, classes: tuple[str, ...], where: str) -> None:
    # A label out of range would only fail deep inside a loss, on a GPU as an assertion without a line.
    beyond = split.labels[(split.labels < 0) | (split.labels >= len(classes))]
    if len(beyond):
        raise DataError(f"{where} has the label {int(beyond[0])}, but there are {len(classes)} classes")
    for label in classes_without(split.labels, 1, len(classes)):
        raise DataError(f"{where} has no image of class {classes[label]!r}: add some, or drop the class")
