"""Formats with a ``torch.save`` file each for images, labels and step size: MTT's and DD-Ranking's."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import DataError
from harness.types.data.labels import are_weights, check_label_form, check_labels
from harness.types.formats.content import Content
from harness.types.formats.format import Format
from harness.types.formats.limits import beside, within
from harness.types.formats.pickled import read_pickled
from harness.types.options import Options, option

MTT_FILE, RANKED_FILE = "images_best.pt", "images.pt"
_IMAGES = re.compile(r"images(?=[_.])")


class LabelOptions(Options):
    """Options of the format: how DD-Ranking's soft labels become class weights."""

    temperature: float = option(
        1.0, "soft labels are logits: weights are softmax(logits / temperature)", source="DD-Ranking, sce", gt=0
    )


def read_mtt(path: Path, _options: Options, _entry: int) -> Content:
    """Read files of MTT and its successors: network inputs, and labels as class indices or class weights.

    ``images_best.pt`` with ``labels_best.pt`` beside it. MTT itself keeps its learned step size in no file; others of
    its family (DATM) write it to ``lr_best.pt``.
    """
    path = within(path, MTT_FILE)
    images, labels, rate = _parts(path)
    if labels is None:
        raise DataError(f"{path.name} needs its labels beside it, in {_sibling(path, 'labels')}")
    if labels.is_floating_point():
        try:
            check_labels(labels, len(images), labels.shape[1], logits="say --from ddranking")
        except DataError as error:
            raise DataError(f"{path.name}: {error}") from None
    return Content(path.name, images, labels, step_size=rate, provenance={"file": path.name, "format": "mtt"})


def read_ranked(path: Path, options: LabelOptions, _entry: int) -> Content:
    """Read files of DD-Ranking: network inputs, and logits as labels; without labels, classes are in order.

    ``images.pt`` with ``labels.pt`` and ``lr.pt`` beside it, both optional.
    """
    path = within(path, RANKED_FILE)
    images, labels, rate = _parts(path)
    provenance: dict[str, Any] = {"file": path.name, "format": "ddranking"}
    notes: tuple[str, ...] = ()
    if labels is not None and labels.is_floating_point():
        note = f"labels of {path.name}: softmax of its logits at temperature {options.temperature:g}"
        doubt = (
            f"; but they are class weights already: to take them as they are, say --from mtt with {path.name} itself"
        )
        notes = (note + (doubt if are_weights(labels) else ""),)
        # DD-Ranking's soft cross-entropy applies the same softmax to its stored labels while it trains.
        labels = torch.softmax(labels.float() / options.temperature, dim=-1)
        provenance["label_temperature"] = options.temperature
    return Content(path.name, images, labels, step_size=rate, provenance=provenance, notes=notes)


def _parts(path: Path) -> tuple[Tensor, Tensor | None, float | None]:
    """Return images, labels and step size; the last two are None if their files do not exist."""
    images = read_pickled(path)
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        raise DataError(f"{path.name} is not a tensor of images (n, channels, height, width), floats")
    labels, rate = (beside(path, name) for name in (_sibling(path, "labels"), _sibling(path, "lr")))
    return images, _labels(labels) if labels else None, _rate(rate) if rate else None


def _sibling(path: Path, kind: str) -> str:
    """Return the name of the file that belongs to one of images: ``labels_best.pt`` to ``images_best.pt``."""
    if not _IMAGES.match(path.name):
        raise DataError(
            f"{path.name} is a bare tensor: call it images_NAME.pt, and its labels labels_NAME.pt beside it"
        )
    return _IMAGES.sub(kind, path.name)


def _labels(path: Path) -> Tensor:
    labels = read_pickled(path)
    if not isinstance(labels, Tensor):
        raise DataError(f"{path.name} holds no labels: they must be a tensor, not {type(labels).__name__}")
    try:
        check_label_form(labels)
    except DataError as error:
        raise DataError(f"{path.name} holds no labels: {error}") from None
    return labels


def _rate(path: Path) -> float:
    rate = read_pickled(path)
    # DATM saves the rate as a tensor of one value, others as a number.
    if isinstance(rate, Tensor) and rate.numel() == 1 and not rate.is_complex():
        rate = rate.item()
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise DataError(f"{path.name} holds no step size: it must be one number")
    return float(rate)


MTT = Format("mtt", (), "MTT's images_best.pt with labels_best.pt (and lr_best.pt) beside it", read_mtt)
DDRANKING = Format(
    "ddranking", (), "DD-Ranking's images.pt; labels.pt (logits) and lr.pt if there", read_ranked, options=LabelOptions
)
