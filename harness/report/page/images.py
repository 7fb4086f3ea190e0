"""Grids of distilled images: one column a class, all by the same way back to pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.report.page.pictures import Picture, as_png
from harness.running.set_picture import pixels_by_class
from harness.types.distilled import DistilledSet

MOST_CLASSES = 20
MOST_A_CLASS = 10
_GAP = 2
_WIDTH = 560
"""CSS pixels that a grid is enlarged to, at most, by a whole factor."""


def draw_images(distilled: DistilledSet, title: str, alt: str, most: int = MOST_A_CLASS) -> Picture:
    """The images of the first classes, the first of each; between them the page shows through."""
    pixels = _mosaic(pixels_by_class(distilled, MOST_CLASSES, most))
    scale = max(1, min(4, _WIDTH // pixels.shape[1]))
    return as_png(pixels, alt, title, scale)


def _mosaic(columns: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Images (n, height, width, channels) of each column, with transparent gaps: (rows, columns, 4)."""
    height, width, channels = columns[0].shape[1:]
    rows = max(len(column) for column in columns)
    shape = (rows * (height + _GAP) - _GAP, len(columns) * (width + _GAP) - _GAP, 4)
    mosaic = np.zeros(shape, np.float32)
    for c, column in enumerate(columns):
        for r, image in enumerate(column):
            top, left = r * (height + _GAP), c * (width + _GAP)
            tile = mosaic[top : top + height, left : left + width]
            tile[..., :3] = image if channels in (1, 3) else image[..., :1]
            tile[..., 3] = 1
    return mosaic
