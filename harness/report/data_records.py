"""Descriptions of real data for reports, from the stores that hold them."""

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.errors import StoreError
from harness.store.data_descriptions import REMEDY, DataDescription, DataDescriptions
from harness.store.store import Store
from harness.types.report import DataRecord

DataRecords = dict[tuple[str, str], DataRecord]
"""By the fingerprints of the problem and of the scored images."""
_MOST_PIXELS = 2**24
_MODES = ("L", "RGB")


def read_data(store: Store) -> tuple[DataRecords, list[str]]:
    """Return the descriptions in a store, and a note for each that cannot be used, or whose images cannot.

    Raises:
        StoreError: their folder cannot be read.
    """
    descriptions, records, notes = DataDescriptions(store.path), DataRecords(), list[str]()
    for key in descriptions.all_keys():
        try:
            description = descriptions.read(key)
        except StoreError as error:
            notes.append(f"data set not described: {error}")
            continue
        images: tuple[NDArray[np.uint8], ...] = ()
        try:
            picture = descriptions.picture(description)
            images = tuple(_images(picture, description)) if picture is not None else ()
        except StoreError as error:
            notes.append(f"real images not shown: {error}")
        records[description.problem, description.scored] = _record(description, images)
    return records, notes


def _record(description: DataDescription, images: tuple[NDArray[np.uint8], ...]) -> DataRecord:
    channels, height, width = description.shape
    return DataRecord(
        classes=tuple(counts.name for counts in description.classes),
        train=tuple(counts.train for counts in description.classes),
        scored=tuple(counts.scored for counts in description.classes),
        score_on=description.score_on,
        shape=(channels, height, width),
        mean=tuple(description.mean),
        std=tuple(description.std),
        preprocessing=description.preprocessing,
        images=images,
    )


def _images(picture: bytes, description: DataDescription) -> Iterator[NDArray[np.uint8]]:
    """Yield the images (n, height, width, 1 or 3) of each class in a picture.

    Raises:
        StoreError: it cannot be decoded, or is not what the description says.
    """
    columns, rows = description.picture.columns, description.picture.rows
    try:
        with Image.open(io.BytesIO(picture), formats=["PNG"]) as image:
            width, height = image.size
            # Before it is decoded: a header of a few bytes may promise gigabytes.
            if width * height > _MOST_PIXELS or width % columns or height % rows or image.mode not in _MODES:
                raise ValueError(f"it is no picture of {columns} by {rows} images")
            pixels = np.asarray(image)
    except Exception as error:  # Pillow meets damage in many ways
        raise StoreError(f"the picture of data {description.key[:12]} cannot be used ({error}): {REMEDY}") from None
    tiles = pixels.reshape(rows, height // rows, columns, width // columns, -1)
    for place in range(columns):
        yield tiles[: description.classes[place].train, :, place]
