"""Formats with a ``torch.save`` file each for images, labels and step size: MTT's and DD-Ranking's."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import DataError
from harness.types.data.labels import are_weights, check_label_form, check_labels
from harness.types.formats.content import Content
from harness.types.formats.format import SetFormat
from harness.types.formats.limits import beside, within
from harness.types.formats.pickled import MTT_FILE, PICKLED, RANKED_FILE, file_of_folder, pickled_form, read_pickled
from harness.types.options import Options, option

_IMAGES = re.compile(r"images(?=[_.])")


class LabelOptions(Options):
    """Options of the format: how DD-Ranking's soft labels become class weights."""

    temperature: float = option(
        1.0, "soft labels are logits: weights are softmax(logits / temperature)", source="DD-Ranking, sce", gt=0
    )


class MTT(SetFormat[Options]):
    """Files of MTT and its successors: network inputs, and labels as class indices or class weights.

    ``images_best.pt`` with ``labels_best.pt`` beside it. MTT itself keeps its learned step size in no file; others of
    its family (DATM) write it to ``lr_best.pt``.
    """

    def recognises(self, path: Path) -> bool:
        """Return whether it is a folder of MTT's, or a tensor was pickled under any name but DD-Ranking's."""
        if path.is_dir():
            return file_of_folder(path) == MTT_FILE
        return path.name != RANKED_FILE and path.suffix.lower() in PICKLED and pickled_form(path) == "tensor"

    def read(self, path: Path, entry: int) -> Content:
        """Read images and labels, and the step size if there is one."""
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


class DDRanking(SetFormat[LabelOptions]):
    """Files of DD-Ranking: network inputs, and logits as labels; without labels, classes are in order.

    ``images.pt`` with ``labels.pt`` and ``lr.pt`` beside it, both optional.
    """

    Options = LabelOptions

    def recognises(self, path: Path) -> bool:
        """Return whether it is a folder of DD-Ranking's, or its file of images."""
        if path.is_dir():
            return file_of_folder(path) == RANKED_FILE
        return path.name == RANKED_FILE and pickled_form(path) == "tensor"

    def read(self, path: Path, entry: int) -> Content:
        """Read images, labels and step size, as far as they are there."""
        path = within(path, RANKED_FILE)
        images, labels, rate = _parts(path)
        provenance: dict[str, Any] = {"file": path.name, "format": "ddranking"}
        notes: tuple[str, ...] = ()
        if labels is not None and labels.is_floating_point():
            temperature = self.options.temperature
            note = f"labels of {path.name}: softmax of its logits at temperature {temperature:g}"
            doubt = (
                "; but they are class weights already: to take them as they are, "
                f"say --from mtt with {path.name} itself"
            )
            notes = (note + (doubt if are_weights(labels) else ""),)
            # DD-Ranking's soft cross-entropy applies the same softmax to its stored labels while it trains.
            labels = torch.softmax(labels.float() / temperature, dim=-1)
            provenance["label_temperature"] = temperature
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
