"""From the name of a data set to a problem."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from harness.datasets.cache import cached
from harness.datasets.checks import check
from harness.datasets.mapped import part_of
from harness.datasets.splits import classes_without, cut_indices
from harness.errors import DataError, PluginError, UsageError, did_you_mean
from harness.plugins.registry import Resolved
from harness.plugins.returns import call_of, returned, traits
from harness.system.home import cache_home, expand_home
from harness.types.data.class_names import canonical_name
from harness.types.data.hold_out import HoldOut
from harness.types.data.preprocessing import NORMALIZATIONS, Normalize, Preprocessing, Whiten
from harness.types.data.whitening import FITS
from harness.types.dataset import Dataset, DatasetOptions, Outline, RawData, Traits
from harness.types.problem import Problem, Shape, Split
from harness.types.seeds import Streams

VALIDATION_SHARE = 10
"""One in so many training images of each class goes into the validation split, and at least one."""


def data_root() -> Path:
    """Return the folder that holds data sets: the variable DDBENCH_DATA, or ``~/.cache/ddbench-data``.

    For a user without a home folder it is below the system's folder for temporary files.

    Raises:
        UsageError: DDBENCH_DATA begins with a home folder that does not exist.
    """
    named = os.environ.get("DDBENCH_DATA")
    if not named:
        return cache_home() / "ddbench-data"
    try:
        return expand_home(named)
    except UsageError as error:
        raise UsageError(f"DDBENCH_DATA={error}") from None


def make_problem(
    dataset: Resolved[Dataset[Any]],
    *,
    root: Path,
    score_on: Literal["test", "validation"] = "test",
    hold_out: bool = False,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),  # noqa: B008
    name: str | None = None,
) -> Problem:
    """Load a data set, check it, split it and compute its preprocessing.

    Args:
        dataset: the data set with its options.
        root: the folder that holds data sets.
        score_on: ``validation`` scores students on a part of the training set, which is held out of it.
        hold_out: whether to hold that part out even if the test set is scored.
        seed: the seed of the validation split.
        device: the device of the problem's batches.
        name: the name of the problem; by default the data set as it is typed.

    Raises:
        UsageError: ``normalize`` names no known set.
        DataError: the images are missing or cannot be used.
    """
    name = name or str(dataset)
    source, options = dataset.make(), _options(dataset)
    known = traits_of(dataset)
    normalization = _normalization(known, options, name)
    raw = returned(source.load(root), RawData, call_of(source, "load"))
    check(raw, name)
    # The same folder gives the same problem on macOS, whose file system returns decomposed names.
    classes = tuple(canonical_name(label_name) for label_name in raw.classes)
    train, score, held_out = raw.train, raw.test, None
    # The split depends on the run's seed alone, so that every method of a study leaves out the same images.
    if hold_out or score_on == "validation":
        train, validation = _hold_out(raw, seed, name, root)
        held_out = HoldOut(len(validation), len(raw.train), seed)
        score = validation if score_on == "validation" else raw.test
    return Problem(
        name=name,
        train=train,
        score=score,
        score_on=score_on,
        classes=classes,
        preprocessing=_preprocessing(train, normalization, options, root),
        like=known.like,
        scored_like=None if known.like_in_training_alone else known.like,
        augmentations=known.augmentations,
        provider=dataset.provenance(),
        hold_out=held_out,
        device=device,
    )


@dataclass(frozen=True, eq=False)
class Facts:
    """The facts about a data set's images that are known before they are read.

    Attributes:
        name: the data set as it is typed.
        shape: channels, height, width of an image.
        classes: class names; label i is ``classes[i]``.
        preprocessing: None if it is computed from the images.
    """

    name: str
    shape: Shape
    classes: tuple[str, ...]
    preprocessing: Preprocessing | None


def known_facts(dataset: Resolved[Dataset[Any]]) -> Facts | None:
    """Return the facts of a data set without reading images; None if its class names or shape are unknown.

    Raises:
        UsageError: ``normalize`` names no known set.
        DataError: it is for another number of channels.
    """
    source, options, name = dataset.make(), _options(dataset), str(dataset)
    known = traits_of(dataset)
    normalization = _normalization(known, options, name)
    if source.outline is None:
        return None
    outline = returned(source.outline, Outline, f"{dataset.described}: outline")
    computed = options.zca or normalization in ("auto", *FITS)
    preprocessing = None if computed else Normalize.named(normalization, outline.shape[0])
    return Facts(name, outline.shape, outline.classes, preprocessing)


def traits_of(dataset: Resolved[Dataset[Any]]) -> Traits:
    """Return the traits of a data set, checked.

    Raises:
        PluginError: its plugin returns something else.
    """
    return traits(dataset.make().traits, f"{dataset.described}: traits")


def preprocessing_known(dataset: Resolved[Dataset[Any]]) -> bool:
    """Return whether options or the data set itself decide how images are preprocessed.

    If not, a problem computes its normalisation, but a distilled set made elsewhere may well have had another.
    """
    options = _options(dataset)
    return options.zca or options.normalize != "own" or traits_of(dataset).normalize is not None


def _options(dataset: Resolved[Dataset[Any]]) -> DatasetOptions:
    if not isinstance(dataset.options, DatasetOptions):
        raise PluginError(f"the options of the dataset {dataset.entry.name!r} do not derive from DatasetOptions")
    return dataset.options


def _normalization(known: Traits, options: DatasetOptions, name: str) -> str:
    """Return the name of a known data set, or ``auto``."""
    if options.zca and options.normalize != "own":
        raise UsageError(f"{name}: zca whitens instead of normalising, so leave out either zca or normalize")
    wanted = (known.normalize or "auto") if options.normalize == "own" else options.normalize
    if wanted not in NORMALIZATIONS and wanted not in ("auto", *FITS):
        nearest = did_you_mean(wanted, [*NORMALIZATIONS, *FITS, "auto", "own"])
        raise UsageError(f"{name}: there is no normalisation {wanted!r}: {nearest}")
    return wanted


def _hold_out(raw: RawData, seed: int, name: str, root: Path) -> tuple[Split, Split]:
    for label in classes_without(raw.train.labels, 2, len(raw.classes)):
        problem = f"{name}: class {raw.classes[label]!r} has one training image, too few for a validation split"
        needing = "--choose, --keep-hold-out, --score-on validation and pools that ask for probes"
        raise DataError(f"{problem}: add images, or leave out what needs one: {needing}")
    share = lambda count: max(1, count // VALIDATION_SHARE)  # noqa: E731
    parts = cut_indices(raw.train.labels, share, Streams(seed), "validation")
    train, validation = (_part(raw.train, index, root) for index in parts)
    return train, validation


def _part(split: Split, index: Tensor, root: Path) -> Split:
    if not split.on_disk:  # hashing it would take longer than copying it
        return split[index]
    digest = hashlib.sha256(f"part 1 {split.fingerprint}".encode())
    digest.update(index.numpy().data)
    return part_of(split, index, root, digest.hexdigest())


def _preprocessing(train: Split, normalization: str, options: DatasetOptions, root: Path) -> Preprocessing:
    if options.zca:
        return _whitening(train, options.zca_eps, root)
    if normalization in FITS:
        return _relative_whitening(train, normalization, options.zca_eps, root)
    if normalization == "auto":
        return Normalize.computed(train.images)
    return Normalize.named(normalization, train.images.shape[1])


def _whitening(train: Split, eps: float, root: Path) -> Whiten:
    # The digit is the version of the computation: raise it when the matrices change.
    key = hashlib.sha256(f"zca 1 {train.fingerprint} {eps!r}".encode()).hexdigest()
    names = ("mean", "transform", "inverse")
    fitted = cached(root, "zca", key, names, lambda: Whiten.fitted(train.images, eps).tensors())
    return Whiten(f"zca eps={eps:g}", **fitted)


def _relative_whitening(train: Split, kind: str, reg: float, root: Path) -> Whiten:
    key = hashlib.sha256(f"{kind} 1 {train.fingerprint} {reg!r}".encode()).hexdigest()
    names = ("mean", "transform", "inverse", *(["typical"] if kind == "kip-zca" else []))
    fitted = cached(root, kind, key, names, lambda: FITS[kind](train.images, reg).tensors())
    return Whiten(f"{kind} reg={reg:g}", **fitted)
