"""A picture of a distilled set: one row a class."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.types.distilled import DistilledSet

_GAP = 2
_MOST_COLUMNS = 50


def pixels_by_class(distilled: DistilledSet) -> list[NDArray[np.float32]]:
    """For each class, its images (n, height, width, channels) as they look before preprocessing, clipped to [0, 1]."""
    images, labels = distilled.training_data()
    pixels = distilled.preprocessing.invert(images).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    hard = (labels if distilled.label_kind == "hard" else labels.argmax(1)).numpy()
    return [pixels[hard == label] for label in range(len(distilled.classes))]


def draw_grid(distilled: DistilledSet, path: Path) -> None:
    """Write a PNG of the images as they look before preprocessing, clipped to [0, 1], at most 50 of each class."""
    rows = [pixels[:_MOST_COLUMNS] for pixels in pixels_by_class(distilled)]
    columns = max(len(row) for row in rows)
    height, width, channels = rows[0].shape[1:]
    mosaic = np.ones((len(rows) * (height + _GAP), columns * (width + _GAP), channels))
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = r * (height + _GAP), c * (width + _GAP)
            mosaic[top : top + height, left : left + width] = image
    inches = 0.55
    figure = Figure(figsize=(1.6 + inches * columns, 0.3 + inches * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(mosaic.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks([r * (height + _GAP) + height / 2 for r in range(len(rows))], distilled.classes, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.savefig(path, format="png")
