"""Distilled sets from files, completed by the data set that knows what the file does not say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from harness.datasets.problems import preprocessing_known
from harness.errors import DataError
from harness.plugins.registry import Resolved
from harness.plugins.stored_sets import opened
from harness.types.data.class_names import are_whole_numbers, canonical_name, label_order
from harness.types.data.labels import class_indices
from harness.types.data.preprocessing import Preprocessing
from harness.types.dataset import Dataset
from harness.types.distilled import DistilledSet
from harness.types.formats import Content, Reading
from harness.types.plurals import counted
from harness.types.problem import Shape

_NAMED = 5
"""Classes that are named in a line; the others are counted."""


class DatasetFacts(Protocol):
    """The facts of a data set that complete a distilled set: a `Problem`, or what is known before images are read."""

    @property
    def name(self) -> str:
        """The name of the data set as it is typed."""
        ...

    @property
    def shape(self) -> Shape:
        """The channels, height and width of an image."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of their labels."""
        ...

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The preprocessing of images; None if it is computed from them."""
        ...


@dataclass(frozen=True, eq=False)
class CompletedSet:
    """A set that was completed from a file and a data set.

    Attributes:
        distilled: the set.
        notes: what the user should know when the set is used.
        part: what the set lacks, as one of the notes says it; None if it has the same number of images of each class.
    """

    distilled: DistilledSet
    notes: tuple[str, ...]
    part: str | None


def complete(content: Content, reading: Reading, dataset: Resolved[Dataset[Any]], facts: DatasetFacts) -> CompletedSet:
    """Complete the content of a file by what a data set knows.

    Raises:
        DataError: neither says how the images were normalised, or the set is of other images than the data set's.
    """
    if content.lacks_normalisation and not preprocessing_known(dataset):
        remedy = f"say normalize= (cifar10, auto, ...) or like= in --dataset {dataset.entry.name}[...]"
        raise DataError(f"{content.where} does not say how its images were normalised: {remedy}")
    distilled = content.completed(opened, facts.preprocessing, facts.classes, reading.step_size)
    _check_fits(distilled, facts, content.where)
    lacks = "labels but no class names" if content.labels is not None else "neither labels nor class names"
    order = None if content.classes else order_note(facts.classes, f"{content.where} has {lacks}", facts.name)
    return _completed_set(content, distilled, order)


def complete_alone(content: Content, reading: Reading) -> CompletedSet:
    """Complete a file that says everything by itself.

    Raises:
        DataError: it does not, or values cannot be used.
    """
    return _completed_set(content, content.completed(opened, step_size=reading.step_size), None)


def _completed_set(content: Content, distilled: DistilledSet, order: str | None) -> CompletedSet:
    part = part_note(distilled, content.where, content.fragment)
    notes = (*content.notes, *(note for note in (order, part) if note))
    return CompletedSet(distilled, notes, part)


def part_note(distilled: DistilledSet, where: str, fragment: str | None = None) -> str | None:
    """Describe which classes a set lacks, or of which it has fewer images; None if it has as many of each.

    Args:
        distilled: the set.
        where: what its file is called.
        fragment: the words of the file's name that say that it is one of several.
    """
    labels = class_indices(distilled.labels)
    counts = torch.bincount(labels.long(), minlength=len(distilled.classes)).tolist()
    # The kind of the stored labels, and not of the set's: a parametrisation may have learned ones of its own.
    largest = {"soft": "weight", "regression": "value"}.get(str(distilled.label_kind), "")
    by = f", by the largest {largest} of each label" if distilled.labels.is_floating_point() else ""
    count = f"{len(labels)} image{'s' if len(labels) > 1 else ''}"
    images = f"{count} of {sum(map(bool, counts))} of {len(counts)} classes{by}"
    named = f" (its name says {fragment!r}: one of several files)" if fragment else ""
    if 0 in counts:
        lacking = [name for name, number in zip(distilled.classes, counts, strict=True) if not number]
        return f"{where}{named} holds only part of a set: {images}, none of {_few_names(lacking)}{_part_remedy(counts)}"
    if min(counts) != max(counts):
        least, most = (distilled.classes[counts.index(number)] for number in (min(counts), max(counts)))
        spread = f"{min(counts)} of {least!r}, but {max(counts)} of {most!r}"
        return f"{where}{named} has not the same number of images of each class: {images}, {spread}"
    return f"{where}{named} holds only part of a set: {images}" if fragment else None


def _part_remedy(counts: Sequence[int]) -> str:
    """Describe what labels may stand for if only the last classes are absent: a part often counts its own from 0."""
    first = counts.index(0)
    if any(counts[first:]) or not first:
        return ""
    return f"; if this is one of several files, its labels 0 ... {first - 1} may stand for other classes"


def order_note(classes: Sequence[str], what: str, dataset: str) -> str | None:
    """Describe how labels without names are taken if classes are numbers, which text and value order differently."""
    if not are_whole_numbers(classes):
        return None
    by_value, as_text = label_order(classes), sorted(classes)
    if by_value == as_text:
        return None
    other, way = (as_text, "as text") if list(classes) == by_value else (by_value, "by value")
    label = next(label for label, names in enumerate(zip(classes, other, strict=True)) if len(set(names)) > 1)
    taken = f"label {label} is taken for class {classes[label]!r}, as in {dataset}"
    loader = f"to a loader that sorts these names {way} it is {other[label]!r}"
    return (
        f"{what}: {taken}; {loader}, so if the set was made with one, give each class folder a letter before its number"
    )


def _few_names(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*map(repr, names[:_NAMED]), *more])


def _check_fits(distilled: DistilledSet, facts: DatasetFacts, name: str) -> None:
    shape = tuple(distilled.training_data()[0].shape[1:])
    ours, theirs = tuple(map(canonical_name, distilled.classes)), facts.classes
    if shape != facts.shape:
        raise DataError(f"{name} has images of {shape}, but {facts.name} has {facts.shape}: choose another --dataset")
    if len(ours) != len(theirs):
        counts = f"{counted(len(ours), 'class', 'classes')}, but {facts.name} has {len(theirs)}"
        raise DataError(f"{name} has {counts}: choose another --dataset")
    if ours != theirs and set(ours) == set(theirs):
        first = next(label for label, (our, their) in enumerate(zip(ours, theirs, strict=True)) if our != their)
        example = f"label {first} is {ours[first]!r}, but in {facts.name} {theirs[first]!r}"
        raise DataError(f"{name} has the same classes in another order ({example}): choose another --dataset")
