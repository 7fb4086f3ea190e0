"""Validity of a distilled set's labels: class indices, or one row of class weights or real values for each image."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from harness.errors import DataError

LabelKind = Literal["hard", "soft", "regression"]
"""The kind of labels: class indices; class weights; real values, on which students train with the squared error."""
LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
TOLERANCE = 5e-3
"""How far the weights of an image may sum from 1: bfloat16 rounds each weight by up to one part in 512."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Float types that labels and images may have; 8-bit floats are for storage only."""
SOFTMAX = "give their softmax (torch.softmax(labels, 1))"


def kind_of(labels: Tensor) -> LabelKind:
    """Return the kind of labels that nobody has declared: ``soft`` for floats, otherwise ``hard``."""
    return "soft" if labels.is_floating_point() else "hard"


def class_indices(labels: Tensor) -> Tensor:
    """Return class indices (n,): the labels themselves, or the place of the largest value of each row."""
    return labels.argmax(1) if labels.is_floating_point() else labels


def listed(kinds: Sequence[str]) -> str:
    """Return kinds of labels as words: ``hard, soft or regression``."""
    *others, last = kinds
    return f"{', '.join(others)} or {last}" if others else last


def check_labels(
    labels: Tensor, images: int, classes: int, logits: str = SOFTMAX, kind: LabelKind | None = None
) -> None:
    """Check that labels are of a kind, in form and values.

    Hard labels are class indices (n,), soft ones finite non-negative weights (n, classes) that sum to 1, and those of
    regression any finite values (n, classes).

    Args:
        labels: the labels, in any type of number.
        images: how many images they belong to.
        classes: how many classes there are.
        logits: what the user does if the labels turn out to be logits.
        kind: the kind of the labels; None for what their type says, which is never regression.

    Raises:
        DataError: they are something else; the line says what they are and what to do.
    """
    check_label_form(labels)
    if len(labels) != images:
        raise DataError(f"there are {images} images but {len(labels)} labels")
    check_kind(labels, kind)
    if kind == "regression":
        _check_rows(labels, classes, "values")
    elif labels.is_floating_point():
        _check_weights(labels, classes, logits)
    else:
        _check_indices(labels, classes)


def check_kind(labels: Tensor, kind: str | None, who: str = "label_kind") -> None:
    """Check that a declared kind, unless it is None, is one that labels of this type can be of.

    Args:
        labels: the labels.
        kind: the declared kind.
        who: what declares it, for the message.

    Raises:
        DataError: there is no such kind, or the labels are of another.
    """
    if kind is None:
        return
    if kind not in LABEL_KINDS:
        raise DataError(f"{who} says {kind!r:.50}, which is not {listed(LABEL_KINDS)}")
    if (kind == "hard") == labels.is_floating_point():
        raise DataError(f"labels are {kind_of(labels)}, but {who} says {kind!r}: one of them has to change")


def check_label_form(labels: Tensor) -> None:
    """Check the type and the shape of labels before their values are used.

    Raises:
        DataError: they are neither whole numbers (n,) nor floats (n, classes).
    """
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.ndim != (1 if whole else 2) or not (whole or labels.dtype in FLOATS):
        form = f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
        known = "labels must be integers (n,), class indices, or floats (n, classes), class weights"
        raise DataError(f"{known}, not {form}{_form_remedy(labels)}")


def are_weights(labels: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Return whether rows of floats are class weights: finite, not negative, and each row sums to 1."""
    sums = _sums(labels)
    return bool(torch.isfinite(labels).all() and (labels >= 0).all() and ((sums - 1).abs() <= tolerance).all())


def _form_remedy(labels: Tensor) -> str:
    """Return what to do about labels of this form, if that is clear; otherwise an empty text."""
    if labels.ndim == 1 and labels.is_floating_point():
        return ": give class indices as whole numbers (labels.long())"
    if labels.ndim == 2 and labels.dtype not in FLOATS and not labels.is_complex():
        return ": give weights as floats (labels.float()), or class indices (labels.argmax(1))"
    return ""


def _check_indices(labels: Tensor, classes: int) -> None:
    if not labels.numel():
        return
    low, high = (int(value) for value in torch.aminmax(labels.long()))
    if low < 0:
        known = f", and these labels must lie in 0 ... {classes - 1}" if classes else ""
        raise DataError(f"labels go from {low} to {high}: labels must be class indices from 0{known}")
    # Labels that count from 1 are the most common mistake, and can be recognised.
    if high >= classes:
        counted = ": they seem to count from 1, so subtract 1" if low == 1 and high == classes else ""
        raise DataError(f"labels must lie in 0 ... {classes - 1}, but go from {low} to {high}{counted}")


def _check_weights(labels: Tensor, classes: int, logits: str) -> None:
    _check_rows(labels, classes, "weights")
    if are_weights(labels):
        return
    low, high = (float(value) for value in torch.aminmax(labels.float()))
    least, most = (round(float(value), 6) + 0.0 for value in torch.aminmax(_sums(labels)))  # -0.0 becomes 0
    seen = f"values go from {low:g} to {high:g} and rows sum to {least:g} ... {most:g}"
    wanted = f"weights are not negative and each row sums to 1 (within {TOLERANCE:g})"
    raise DataError(f"labels are not class weights: {seen}, but {wanted}; {_weights_remedy(labels, classes, logits)}")


def _check_rows(labels: Tensor, classes: int, what: str) -> None:
    """Check that there is a finite value for each class."""
    if labels.shape[1] != classes:
        raise DataError(f"labels have {what} for {labels.shape[1]} classes, but there are {classes} classes")
    if not bool(torch.isfinite(labels).all()):
        raise DataError("labels have NaN or infinite values")


def _weights_remedy(labels: Tensor, classes: int, logits: str) -> str:
    """Return what to do about rows of floats that are not weights, as far as their values show what they are."""
    whole = labels.double()
    if are_weights((whole + 1 / classes).clamp_min(0)) and float(whole.min()) >= -1 / classes - TOLERANCE:
        return (
            f"they seem to be centred (weights less 1/{classes}): add 1/{classes} to each, or declare "
            "label_kind='regression' to train on them with the squared error"
        )
    if float(whole.max()) <= 0 and are_weights(whole.exp()):
        return "they seem to be logarithms of weights: give labels.exp()"
    empty = torch.nonzero(_sums(labels) == 0).flatten()
    if float(whole.min()) < 0:
        return f"if they are logits, {logits}"
    if len(empty):
        return f"row {int(empty[0])} is all zeros: leave out such images"
    return f"divide each row by its sum; if they are logits, {logits}"


def _sums(labels: Tensor) -> Tensor:
    # Sums in the labels' own type would add rounding errors that exceed the tolerance for many classes.
    return labels.sum(1, dtype=torch.float64)
