"""A distilled set from a file and from the data set that tells what the file does not."""

from typing import Any

from harness.datasets.problems import preprocessing_known
from harness.plugins.registry import Resolved
from harness.types.class_names import are_whole_numbers, canonical_name, label_order
from harness.types.dataset import Dataset
from harness.types.distilled import DistilledSet
from harness.types.errors import DataError
from harness.types.formats import Content, Reading
from harness.types.problem import Problem


def complete(content: Content, reading: Reading, dataset: Resolved[Dataset[Any]], problem: Problem) -> DistilledSet:
    """Complete what a file tells by a problem that was made of ``dataset``.

    Raises:
        DataError: neither tells how the images were normalised, or the set is of other images than the problem's.
    """
    if content.lacks_normalisation and not preprocessing_known(dataset):
        told = f"say normalize= (cifar10, auto, ...) or like= in --dataset {dataset.entry.name}[...]"
        raise DataError(f"{content.where} does not tell how its images were normalised: {told}")
    distilled = content.completed(problem.preprocessing, problem.classes, reading.step_size)
    _check_fits(distilled, problem, content.where)
    return distilled


def label_order_notes(content: Content, problem: Problem) -> tuple[str, ...]:
    """A line if labels of a file may mean other classes than here: it has no names, and they sort in two ways."""
    classes = problem.classes
    if content.classes is not None or not are_whole_numbers(classes):
        return ()
    by_value, as_text = label_order(classes), sorted(classes)
    other, way = (as_text, "as text") if list(classes) == by_value else (by_value, "by value")
    if list(classes) == other or by_value == as_text:
        return ()
    label = next(label for label, names in enumerate(zip(classes, other, strict=True)) if names[0] != names[1])
    return (
        f"{content.where} has labels but no class names: label {label} is taken for class {classes[label]!r}, as in "
        f"{problem.name}; to a loader that sorts these names {way} it is {other[label]!r}, so if the set was made with "
        "one, give each class folder a letter before its number",
    )


def _check_fits(distilled: DistilledSet, problem: Problem, name: str) -> None:
    shape = tuple(distilled.training_data()[0].shape[1:])
    ours, theirs = tuple(map(canonical_name, distilled.classes)), problem.classes
    if shape != problem.shape:
        raise DataError(
            f"{name} has images of {shape}, but {problem.name} has {problem.shape}: choose another --dataset"
        )
    if len(ours) != len(theirs):
        told = f"{len(ours)} classes, but {problem.name} has {len(theirs)}"
        raise DataError(f"{name} has {told}: choose another --dataset")
    if ours != theirs and set(ours) == set(theirs):
        first = next(label for label, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
        told = f"label {first} is {ours[first]!r}, but in {problem.name} {theirs[first]!r}"
        raise DataError(f"{name} has the same classes in another order ({told}): choose another --dataset")
