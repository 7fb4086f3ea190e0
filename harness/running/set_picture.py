"""A picture of a distilled set: one row a class, and many classes side by side in several columns of rows."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harness.types.distilled import DistilledSet

Pixels = NDArray[np.float32]

MOST_CLASSES, MOST_OF_CLASS, MOST_IMAGES = 1000, 50, 2000
"""What is shown of a set, so that the memory and the time of a picture do not grow with it."""
MOST_PIXELS = 64
"""Height and width of an image in the picture: larger ones are scaled down."""
_MANY_ROWS = 40
"""Classes below each other, however few images they have."""
_GAP = 2
_INCHES, _MOST_INCHES = 0.55, 33
"""Of an image with its gap, and of a side of the picture, unless there are few and large rows."""
_DPI = 120
_LABEL_INCHES = 1.3
_LONGEST_LABEL = 24
_AT_ONCE = 2**22
"""Numbers that are taken back to pixels at once."""


def pixels_by_class(distilled: DistilledSet, classes: int, most: int) -> list[Pixels]:
    """For each of the first classes, its first images (n, height, width, channels) as they look before preprocessing.

    Values are clipped to [0, 1].
    """
    images, labels = distilled.training_data()
    hard = labels if distilled.label_kind == "hard" else labels.argmax(1)
    chosen = [torch.nonzero(hard == label).flatten()[:most] for label in range(min(classes, len(distilled.classes)))]
    return [_pixels(distilled, images[indices]) for indices in chosen]


def _pixels(distilled: DistilledSet, inputs: Tensor) -> Pixels:
    if len(inputs):
        at_once = max(1, _AT_ONCE // inputs[0].numel())
        inputs = torch.cat([distilled.preprocessing.invert(part.detach()) for part in torch.split(inputs, at_once)])
    pixels: Pixels = inputs.float().nan_to_num().clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return pixels


@dataclass(frozen=True)
class Layout:
    """How many classes and images are shown, and where.

    Attributes:
        classes: how many are shown.
        columns: images of a class, at most.
        rows: classes below each other.
        blocks: such columns of classes beside each other.
        inches: of an image with its gap.
    """

    classes: int
    columns: int
    rows: int
    blocks: int
    inches: float


def layout(classes: int, most_of_class: int) -> Layout:
    """A layout of about as many images across as down, once there are more classes than one column takes."""
    shown = min(classes, MOST_CLASSES)
    columns = max(1, min(most_of_class, MOST_OF_CLASS, MOST_IMAGES // shown))
    label = _LABEL_INCHES / _INCHES
    rows = min(shown, max(_MANY_ROWS, math.ceil(math.sqrt(shown * (columns + label)))))
    blocks = math.ceil(shown / rows)
    rows = math.ceil(shown / blocks)
    inches = min(_INCHES, _MOST_INCHES / max(rows, blocks * (columns + label)))
    return Layout(shown, columns, rows, blocks, inches)


def draw_grid(distilled: DistilledSet, target: Path | IO[bytes]) -> None:
    """Write a PNG of the images as they look before preprocessing: of the first classes, the first of each."""
    labels = distilled.training_data()[1]
    hard = labels if distilled.label_kind == "hard" else labels.argmax(1)
    placed = layout(len(distilled.classes), int(torch.bincount(hard.long()).max()))
    tiles = [_scaled_down(pixels) for pixels in pixels_by_class(distilled, placed.classes, placed.columns)]
    scale = placed.inches / _INCHES
    width = placed.blocks * (_LABEL_INCHES * scale + placed.inches * placed.columns)
    figure = Figure(figsize=(0.3 + width, 0.3 + placed.inches * placed.rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, placed.blocks, squeeze=False)[0]
    for block, ax in enumerate(axes):
        part = slice(block * placed.rows, min((block + 1) * placed.rows, placed.classes))
        _draw_block(ax, tiles[part], distilled.classes[part], placed, 10 * scale)
    if placed.classes < len(distilled.classes):
        figure.suptitle(f"the first {placed.classes} of {len(distilled.classes)} classes", fontsize=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks is drawn as a box
        figure.savefig(target, format="png")


def _draw_block(ax: Axes, tiles: Sequence[Pixels], names: Sequence[str], placed: Layout, font: float) -> None:
    """Draw some classes below each other."""
    height, width, channels = tiles[0].shape[1:]
    mosaic = np.ones((placed.rows * (height + _GAP), placed.columns * (width + _GAP), channels), np.float32)
    for r, row in enumerate(tiles):
        for c, image in enumerate(row):
            top, left = r * (height + _GAP), c * (width + _GAP)
            mosaic[top : top + height, left : left + width] = image
    levels = np.rint(mosaic * 255).astype(np.uint8)  # floats take three times as long
    ax.imshow(levels if channels == 3 else levels[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ticks = [r * (height + _GAP) + height / 2 for r in range(len(tiles))]
    ax.set_yticks(ticks, [_label(name) for name in names], parse_math=False, fontsize=font)
    ax.set_xticks([])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _scaled_down(pixels: Pixels) -> Pixels:
    """The same images, not larger than a place in the picture."""
    height, width = pixels.shape[1:3]
    largest = max(height, width)
    if largest <= MOST_PIXELS:
        return pixels
    size = [max(1, round(side * MOST_PIXELS / largest)) for side in (height, width)]
    if not len(pixels):
        return np.zeros((0, *size, pixels.shape[3]), np.float32)
    scaled: Pixels = functional.interpolate(
        torch.from_numpy(pixels).permute(0, 3, 1, 2), size=size, mode="area"
    ).numpy()
    return scaled.transpose(0, 2, 3, 1)


def _label(name: str) -> str:
    """A class name as it can be drawn: signs without a picture become question marks."""
    drawable = "".join(sign if sign.isprintable() else "?" for sign in name)
    return drawable if len(drawable) <= _LONGEST_LABEL else f"{drawable[: _LONGEST_LABEL - 1]}…"
