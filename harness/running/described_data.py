"""Descriptions of a run's real data, which it adds to its store for reports, with a few images of each class."""

import hashlib
import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.datasets.summary import DatasetSummary
from harness.store.data_descriptions import ClassCounts, DataDescription, DataDescriptions, PictureOfImages, data_key
from harness.store.store import Store
from harness.types.problem import Problem

MOST_CLASSES, OF_EACH = 20, 3
"""The first classes of a data set, and the first images of each, that the picture shows."""
LONGEST_SIDE = 64
"""Pixels of the longer side of an image in the picture; larger images are scaled down."""


def describe_data(problems: Iterable[Problem], store: Store) -> None:
    """Add the description of each data set that the store does not describe yet.

    Raises:
        StoreError: the store cannot be written.
    """
    descriptions = DataDescriptions(store.path)
    for problem in problems:
        # Asked first: to read all pixels for means and deviations takes seconds.
        if not descriptions.holds(data_key(problem.fingerprint, problem.score.fingerprint)):
            picture = _picture(problem)
            descriptions.add(_description(problem, picture), picture)


def _description(problem: Problem, picture: bytes) -> DataDescription:
    summary = DatasetSummary(problem)
    named = zip(problem.classes, *summary.counts, strict=True)
    facts = summary.as_json()
    return DataDescription(
        problem=problem.fingerprint,
        scored=problem.score.fingerprint,
        score_on=problem.score_on,
        classes=[ClassCounts(name=name, train=train, scored=scored) for name, train, scored in named],
        shape=list(problem.shape),
        mean=facts["mean"],
        std=facts["std"],
        preprocessing=problem.preprocessing.name,
        picture=PictureOfImages(
            digest=hashlib.sha256(picture).hexdigest(), columns=min(MOST_CLASSES, len(problem.classes)), rows=OF_EACH
        ),
    )


def _picture(problem: Problem) -> bytes:
    """Return a PNG with a column for each of the first classes: the first of its training images."""
    shown = problem.of_class[:MOST_CLASSES]
    columns = [[_tile(problem, int(index)) for index in members[:OF_EACH]] for members in shown]
    height, width, channels = columns[0][0].shape
    mosaic = np.zeros((OF_EACH * height, len(columns) * width, channels), np.uint8)
    for place, column in enumerate(columns):
        for row, tile in enumerate(column):
            mosaic[row * height : (row + 1) * height, place * width : (place + 1) * width] = tile
    file = io.BytesIO()
    Image.fromarray(mosaic.squeeze(-1) if channels == 1 else mosaic).save(file, "PNG", optimize=True)
    return file.getvalue()


def _tile(problem: Problem, index: int) -> NDArray[np.uint8]:
    """Return a training image (height, width, 1 or 3); without three channels, the first."""
    pixels = problem.train.images[index]
    levels = (pixels if len(pixels) == 3 else pixels[:1]).permute(1, 2, 0).numpy()
    height, width = levels.shape[:2]
    factor = LONGEST_SIDE / max(height, width)
    if factor >= 1:
        return levels
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    scaled = Image.fromarray(levels if levels.shape[2] == 3 else levels[..., 0]).resize(small, Image.Resampling.BOX)
    return np.asarray(scaled).reshape(small[1], small[0], levels.shape[2])
