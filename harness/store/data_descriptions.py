"""Descriptions of the real data that the cells of a store rest on, with a picture of a few real images.

``data/KEY/`` holds ``description.json`` and ``images.png``, in which each class is a column. They are no cells: nothing
depends on them but reports, and a store without them is whole. The key names the training and the scored images.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from harness.errors import StoreError
from harness.store.cells import key_of
from harness.store.files.folders import DATA, entries_of
from harness.store.files.left_out import left_out_reason
from harness.store.files.reading import DamagedFile, parse_checked, read_bytes, with_checksum
from harness.store.records import KEY, Count, Key, RecordPart, first_error
from harness.store.store_errors import cannot
from harness.system.whole_files import hidden_beside, sync

DESCRIPTION, IMAGES = "description.json", "images.png"
REMEDY = "delete this folder, and a run on the data set adds it again"
_FIELDS = ("problem", "scored", "score_on", "classes", "shape", "mean", "std", "preprocessing", "picture")
_MOST_BYTES = 2**24
"""Maximum size of each of the two files."""
_MOST_SHOWN = 100
"""Maximum number of columns and rows of a picture."""
_Side = Annotated[int, Field(ge=1, lt=2**31)]
_Tiles = Annotated[int, Field(ge=1, le=_MOST_SHOWN)]


class ClassCounts(RecordPart):
    """The numbers of training images and of scored images of a class."""

    name: str
    train: Count
    scored: Count


class PictureOfImages(RecordPart):
    """The picture beside a description: its digest, and the numbers of classes and of images of each.

    Attributes:
        digest: SHA-256 of the file.
        columns: classes beside each other: the first of the data set.
        rows: images of each, below each other; black where a class has fewer.
    """

    digest: Key
    columns: _Tiles
    rows: _Tiles


class DataDescription(RecordPart):
    """The description of a data set.

    Attributes:
        problem: fingerprint of the training images, labels, class names and preprocessing.
        scored: fingerprint of the scored images.
        shape: channels, height and width of an image.
        mean, std: of each channel of the training images, of pixels in [0, 1].
    """

    problem: Key
    scored: Key
    score_on: Literal["test", "validation"]
    classes: list[ClassCounts]
    shape: Annotated[list[_Side], Field(min_length=3, max_length=3)]
    mean: list[float]
    std: list[float]
    preprocessing: str
    picture: PictureOfImages

    @model_validator(mode="after")
    def _fits_itself(self) -> Self:
        if not self.picture.columns <= len(self.classes):
            raise ValueError(f"its picture shows {self.picture.columns} of {len(self.classes)} classes")
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError(f"it has {self.shape[0]} channels, {len(self.mean)} means and {len(self.std)} deviations")
        return self

    @property
    def key(self) -> str:
        """The name of its folder."""
        return data_key(self.problem, self.scored)


def data_key(problem: str, scored: str) -> str:
    """Return the key of a description by the fingerprints of the problem and of the scored images."""
    return key_of({"problem": problem, "scored": scored})


class DataDescriptions:
    """The descriptions in one store."""

    def __init__(self, store: Path) -> None:
        self._store, self.folder = store, store / DATA

    def holds(self, key: str) -> bool:
        """Return whether something lies in the place of a description, which may be damaged."""
        return os.path.lexists(self.folder / key)

    def add(self, description: DataDescription, picture: bytes) -> None:
        """Add a description with its picture, whole or not at all; two runs that add the same one do no harm.

        Raises:
            StoreError: the store cannot be written.
        """
        content = json.dumps(with_checksum(description.as_json()), indent=1, allow_nan=False).encode()
        target = self.folder / description.key
        scratch = hidden_beside(target)
        try:
            self.folder.mkdir(exist_ok=True)
            scratch.mkdir()
            for name, part in {DESCRIPTION: content, IMAGES: picture}.items():
                (scratch / name).write_bytes(part)
                sync(scratch / name)
            # The folder as a whole takes its place, so that no reader sees one of the two files without the other.
            scratch.rename(target)
            sync(self.folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another run has added it meanwhile
                raise cannot("write to", self._store, error) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def all_keys(self) -> list[str]:
        """Return the sorted keys of all descriptions.

        Raises:
            StoreError: the folder cannot be read.
        """
        try:
            return [entry.name for entry in entries_of(self.folder) if re.fullmatch(KEY, entry.name, re.ASCII)]
        except OSError as error:
            raise cannot("read", self._store, error) from None

    def read(self, key: str) -> DataDescription:
        """Return a description.

        Raises:
            StoreError: it is missing, was altered or is of other data; the message has the remedy.
        """
        path = self.folder / key / DESCRIPTION
        try:
            description = _parse(read_bytes(path, _MOST_BYTES))
        except FileNotFoundError:
            raise StoreError(f"{path} is missing: {REMEDY}") from None
        except DamagedFile as damage:
            raise StoreError(f"{damage}: {REMEDY}") from None
        except ValueError as error:
            raise StoreError(f"{path} cannot be read ({error}): {REMEDY}") from None
        # A folder that was renamed by hand would describe other data.
        if description.key != key:
            raise StoreError(f"{path} is of other data: {REMEDY}")
        return description

    def picture(self, description: DataDescription) -> bytes | None:
        """Return the picture of a description as a PNG; None if it was left out when the store was packed.

        Raises:
            StoreError: it is missing or was altered; the message has the remedy.
        """
        path = self.folder / description.key / IMAGES
        try:
            content = read_bytes(path, _MOST_BYTES)
        except FileNotFoundError:
            if left_out_reason(self._store, path):
                return None
            raise StoreError(f"{path} is missing: {REMEDY}") from None
        except DamagedFile as damage:
            raise StoreError(f"{damage}: {REMEDY}") from None
        if hashlib.sha256(content).hexdigest() != description.picture.digest:
            raise StoreError(f"{path} was altered: {REMEDY}")
        return content

    def damages(self, name: str) -> Iterator[str]:
        """Yield what is wrong with an entry of the folder, each with the remedy."""
        folder = self.folder / name
        if not re.fullmatch(KEY, name, re.ASCII) or folder.is_symlink() or not folder.is_dir():
            yield f"{folder} does not belong in a store: move it away"
            return
        for entry in entries_of(folder):
            if entry.name not in (DESCRIPTION, IMAGES):
                yield f"{entry.path} does not belong in a store: move it away"
        self.picture(self.read(name))


def _parse(content: bytes) -> DataDescription:
    """Return the description that JSON holds.

    Raises:
        ValueError: with the reason.
    """
    value: dict[str, Any] = parse_checked(content, _FIELDS)
    try:
        return DataDescription.model_validate(value)
    except ValidationError as error:
        raise ValueError(first_error(error)) from None
