"""Data sets of the Hugging Face hub and files in their layouts, through the package ``datasets``."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.datasets.mapped import Pixels, filled, require_room
from harness.datasets.traits import OwnImagesOptions, sized
from harness.errors import DataError, did_you_mean
from harness.plugins.registry import stdout_to_stderr
from harness.system.home import expand_home
from harness.system.packages import require_packages
from harness.types.data.class_names import label_order
from harness.types.data.images import Fitting, decode_bytes, header_of_bytes, sizes_differ
from harness.types.dataset import Dataset, RawData, Traits
from harness.types.options import option
from harness.types.problem import Shape

SPLITS = ("train", "test")
_AT_ONCE = 64


class HuggingFaceOptions(OwnImagesOptions):
    """Options of the data set: which, its columns and splits, and the size of its images."""

    path: str = option(..., "a data set of the hub (OWNER/NAME), or a folder in a layout of the package datasets")
    config: str | None = option(None, "the configuration, if the data set has several")
    revision: str | None = option(None, "a commit, tag or branch of the hub; auto: the newest")
    image: str = option("image", "the column of the images")
    label: str = option("label", "the column of the labels: numbers or texts")
    train: str = option("train", "the split of the training images")
    test: str = option("test", "the split of the test images; of sets whose test set has no labels, validation")
    size: int | None = option(None, "resize all images to size x size pixels (bilinear); auto: all have one size", gt=0)


class HuggingFace(Dataset[HuggingFaceOptions]):
    """A data set of the hub, or parquet files and images in a folder, read by the package ``datasets``.

    Class names are those of the column's ``ClassLabel``; otherwise labels that are texts name the classes, and numbers
    must be 0 ... K-1. Images are grey if all of both splits are, and colour otherwise. They are decoded once; the key
    is the content of the encoded images, so that a changed data set is seen.
    """

    Options = HuggingFaceOptions

    @property
    def traits(self) -> Traits:
        """The traits of the set that the images are a copy of, with main models for the size if it is set."""
        options = self.options
        return options.traits if options.size is None or options.like else sized(options.traits, options.size)

    def load(self, root: Path) -> RawData:
        """Load both splits, from the package's cache if they were downloaded, and decode the images once."""
        both = {split: _Column(self._split(split), self.options.image, split) for split in SPLITS}
        classes, labels = self._labels({split: column.rows for split, column in both.items()})
        fitting = Fitting(self.options.size)
        key = hashlib.sha256(f"hf {self.version} {self.options.size}".encode())
        for column in both.values():
            column.add_to(key)

        def fill(pixels: Mapping[str, Pixels]) -> None:
            for split, column in both.items():
                column.decode_into(pixels[split], fitting)

        splits = filled(root, "hf", key.hexdigest(), labels, lambda: _shape(list(both.values()), fitting), fill)
        return RawData(splits["train"], splits["test"], classes)

    def _split(self, which: str) -> Any:  # noqa: ANN401
        """Return a split as the package has it."""
        require_packages("the data set hf", {"datasets": "ddbench[hf]"})
        import datasets

        options = self.options
        local = expand_home(options.path)
        path = str(local) if local.is_dir() else options.path
        if local.is_dir() and (special := sorted({*str(local)} & {*"*?[]"})):
            remedy = f"rename it, or link to it from a path without {' and '.join(special)}"
            raise DataError(f"hf[path={options.path}]: the package datasets takes the path for a pattern: {remedy}")
        try:
            with stdout_to_stderr():
                loaded = datasets.load_dataset(path, options.config, revision=options.revision)
        except Exception as error:  # of the package, the hub or the network
            reason = " ".join(str(error).split())[:300]
            raise DataError(
                f"hf[path={options.path}] cannot be loaded: name a data set of the hub that is downloaded or can be, "
                f"or a folder of parquet files ({reason})"
            ) from error
        name = getattr(options, which)
        if name not in loaded:
            raise DataError(f"hf[path={options.path}] has no split {name!r}: write {which}=, {_near(name, loaded)}")
        split = loaded[name]
        for column in (options.image, options.label):
            if column not in split.column_names:
                wanted = "image" if column == options.image else "label"
                fault = f"has no column {column!r}: write {wanted}=, {_near(column, split.column_names)}"
                raise DataError(f"hf[path={options.path}] {fault}")
        return split

    def _labels(self, splits: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Tensor]]:
        """Return the class names and the labels of both splits."""
        column, where = self.options.label, f"hf[path={self.options.path}]"
        values = {split: list(rows[column]) for split, rows in splits.items()}
        names = getattr(splits["train"].features[column], "names", None)
        if names is None and all(isinstance(value, str) for of_split in values.values() for value in of_split):
            names = label_order(set(values["train"]))
            if unknown := {*values["test"]} - {*names}:
                raise DataError(f"{where}: the label {min(unknown)!r} is in the test set but not in the training set")
            place = {name: label for label, name in enumerate(names)}
            values = {split: [place[value] for value in of_split] for split, of_split in values.items()}
        for split, of_split in values.items():
            if -1 in of_split:  # as data sets of the hub mark images whose labels are secret
                remedy = f"name another split by {split}="
                raise DataError(f"{where}: images of the {split} split have no label (-1): {remedy}")
        if any(type(value) is not int or value < 0 for of_split in values.values() for value in of_split):
            raise DataError(f"{where}: the column {column!r} must hold a class for each image: name another by label=")
        if names is None:
            names = [str(label) for label in range(max(values["train"], default=-1) + 1)]
        return tuple(names), {split: torch.tensor(of_split) for split, of_split in values.items()}


class _Column:
    """The encoded images of a split, read a few at a time."""

    def __init__(self, rows: Any, name: str, split: str) -> None:  # noqa: ANN401
        self.rows, self._name, self._split = rows, name, split

    def encoded(self) -> Iterator[tuple[str, bytes]]:
        """Yield what each image is called in messages, and its encoded content."""
        import datasets

        try:
            encoded = self.rows.select_columns([self._name]).cast_column(self._name, datasets.Image(decode=False))
        except Exception as error:  # a column of something else
            fault = f"the column {self._name!r} does not hold encoded images: name another by image="
            raise DataError(f"hf: {fault} ({' '.join(str(error).split())[:200]})") from error
        row = 0
        for batch in encoded.iter(batch_size=_AT_ONCE):
            for cell in batch[self._name]:
                shown = f"image {row} of the split {self._split}"
                yield shown, _content(cell, shown)
                row += 1

    def add_to(self, key: Any) -> None:  # noqa: ANN401
        """Add the content of all images to a digest."""
        key.update(f"{self._split} {len(self.rows)}".encode())
        for _, content in self.encoded():
            key.update(hashlib.sha256(content).digest())

    def decode_into(self, pixels: Pixels, fitting: Fitting) -> None:
        """Decode all images into an array (n, channels, height, width)."""
        for place, (shown, content) in enumerate(self.encoded()):
            image, _ = decode_bytes(content, shown, fitting)
            pixels[place] = image.transpose(2, 0, 1)[: pixels.shape[1]]


def _content(cell: Any, shown: str) -> bytes:  # noqa: ANN401
    if cell is None:
        raise DataError(f"hf: {shown} is empty: drop such rows")
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    try:
        return Path(cell["path"]).read_bytes()
    except OSError as error:
        raise DataError(f"hf: {shown}: {cell['path']} cannot be read: {error.strerror}") from None


def _shape(columns: Sequence[_Column], fitting: Fitting) -> Shape:
    """Return the shape of an image after comparing the sizes of all."""
    first: tuple[str, tuple[int, int]] | None = None
    grey, count = True, 0
    for column in columns:
        for shown, content in column.encoded():
            size, is_grey = header_of_bytes(content, shown, fitting)
            first = first or (shown, size)
            if size != first[1]:
                raise DataError(sizes_differ(*first, shown, size, fitting))
            grey, count = grey and is_grey, count + 1
    if first is None:
        raise DataError("hf: both splits are empty")
    shape = (1 if grey else 3, first[1][1], first[1][0])
    require_room(count * int(np.prod(shape)), f"decoding {count:,} images")
    return shape


def _near(word: str, known: Any) -> str:  # noqa: ANN401
    return did_you_mean(word, map(str, known))
