"""A picture of a distilled set: one row a class, and many classes side by side in several columns of rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from harness.types.data.labels import class_indices
from harness.types.distilled import DistilledSet

Pixels = NDArray[np.float32]

MOST_CLASSES, MOST_OF_CLASS, MOST_IMAGES = 1000, 50, 2000
"""What is shown of a set, so that the memory and the time of a picture do not grow with it."""
_MANY_ROWS = 40
"""Classes below each other, however few images they have."""
_PITCH, _MOST_ACROSS = 66, 3960
"""Pixels of an image with its gap, and of a side of the picture, unless there are few and large rows."""
_GAP, _MARGIN = 2, 18
_LABEL_WIDTH, _LABEL_GAP = 156, 6
"""Pixels of the widest class name, and between it and the images."""
_FONT_SIZE, _TITLE_SIZE = 17, 33
_LONGEST_LABEL = 24
_AT_ONCE = 2**22
"""Numbers that are taken back to pixels at once."""


def pixels_by_class(distilled: DistilledSet, classes: int, most: int) -> list[Pixels]:
    """Return the first images (n, height, width, channels) of each of the first classes before preprocessing.

    Values are clipped to [0, 1].
    """
    images, labels = distilled.training_data()
    hard = class_indices(labels)
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
    """The layout of a picture: how many classes and images it shows, and where.

    Attributes:
        classes: how many are shown.
        columns: images of a class, at most.
        rows: classes below each other.
        blocks: such columns of classes beside each other.
        pitch: pixels from one image to the next, at most.
    """

    classes: int
    columns: int
    rows: int
    blocks: int
    pitch: int


def layout(classes: int, most_of_class: int) -> Layout:
    """Return a layout of about as many images across as down, if one column cannot take all classes."""
    shown = min(classes, MOST_CLASSES)
    columns = max(1, min(most_of_class, MOST_OF_CLASS, MOST_IMAGES // shown))
    label = _LABEL_WIDTH / _PITCH
    rows = min(shown, max(_MANY_ROWS, math.ceil(math.sqrt(shown * (columns + label)))))
    blocks = math.ceil(shown / rows)
    rows = math.ceil(shown / blocks)
    pitch = min(_PITCH, int(_MOST_ACROSS / max(rows, blocks * (columns + label))))
    return Layout(shown, columns, rows, blocks, pitch)


def draw_grid(distilled: DistilledSet, target: Path | IO[bytes]) -> None:
    """Write a PNG of the images as they look before preprocessing: of the first classes, the first of each."""
    labels = distilled.training_data()[1]
    hard = class_indices(labels)
    placed = layout(len(distilled.classes), int(torch.bincount(hard.long()).max()))
    pixels = pixels_by_class(distilled, placed.classes, placed.columns)
    names = [_label(name) for name in distilled.classes[: placed.classes]]
    left_out = len(distilled.classes) - placed.classes
    title = f"the first {placed.classes} of {len(distilled.classes)} classes" if left_out else ""
    _draw(pixels, names, placed, title).save(target, format="png")


def _draw(pixels: Sequence[Pixels], names: Sequence[str], placed: Layout, title: str) -> Image.Image:
    """Draw the images of each class beside its name, below a title if there is one."""
    width, height = _tile_size(pixels[0], placed.pitch - _GAP)
    fonts = _fonts(names, placed)
    label_width = math.ceil(max(font.getlength(name) for font, name in zip(fonts, names, strict=True)))
    if placed.blocks > 1:
        label_width = _label_width(placed)  # the layout counts on it
    row_height = max(height + _GAP, math.ceil(_FONT_SIZE * 1.2))  # flat images lie as far apart as lines of text
    block_width = label_width + _LABEL_GAP + placed.columns * (width + _GAP)
    top = _MARGIN + (2 * _TITLE_SIZE if title else 0)
    size = (placed.blocks * block_width + 2 * _MARGIN, placed.rows * row_height + top + _MARGIN)
    picture = Image.new("RGB" if pixels[0].shape[3] == 3 else "L", size, "white")
    pen = ImageDraw.Draw(picture)
    for index, (images, name, font) in enumerate(zip(pixels, names, fonts, strict=True)):
        block, row = divmod(index, placed.rows)
        left, middle = _MARGIN + block * block_width + label_width, top + row * row_height + row_height // 2
        pen.text((left, middle), name, "black", font, anchor="rm")
        for column, image in enumerate(images):
            at = (left + _LABEL_GAP + column * (width + _GAP), middle - height // 2)
            picture.paste(_tile(image, (width, height)), at)
    if title:
        pen.text((size[0] // 2, _MARGIN), title, "black", _font(_TITLE_SIZE), anchor="ma")
    return picture


def _tile_size(pixels: Pixels, largest: int) -> tuple[int, int]:
    """Return width and height of a drawn image: enlarged by a whole factor, or scaled down to the largest side."""
    height, width = pixels.shape[1:3]
    factor = largest / max(height, width)
    factor = math.floor(factor) if factor > 1 else factor  # by a whole factor, all pixels are of one size
    return max(1, round(width * factor)), max(1, round(height * factor))


def _tile(image: Pixels, size: tuple[int, int]) -> Image.Image:
    """Return one image (height, width, channels) at its size in the picture; without three channels, the first."""
    levels = np.rint(image * 255).astype(np.uint8)
    # The box filter repeats pixels where it enlarges and averages them where it scales down.
    return Image.fromarray(levels if levels.shape[2] == 3 else levels[..., 0]).resize(size, Image.Resampling.BOX)


def _label_width(placed: Layout) -> int:
    """Return the pixels that the layout counts on for a class name."""
    return _LABEL_WIDTH * placed.pitch // _PITCH


def _fonts(names: Sequence[str], placed: Layout) -> list[ImageFont.FreeTypeFont]:
    """Return a font for each name: a smaller one if the name would reach into the block to its left."""
    font = _font(_FONT_SIZE)
    widths = [font.getlength(name) for name in names]
    most = _label_width(placed) if placed.blocks > 1 else math.inf
    return [font if width <= most else _font(_FONT_SIZE * most / width) for width in widths]


def _font(size: float) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans from matplotlib's files: the font inside Pillow has no letters beyond ASCII."""
    # Located, not imported: importing matplotlib would take longer than drawing the picture.
    spec = find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("matplotlib, whose font labels pictures, is not installed: pip install matplotlib")
    return ImageFont.truetype(Path(spec.submodule_search_locations[0]) / "mpl-data/fonts/ttf/DejaVuSans.ttf", size)


def _label(name: str) -> str:
    """Return a class name as it can be drawn: characters without a glyph become question marks."""
    drawable = "".join(sign if sign.isprintable() else "?" for sign in name)
    return drawable if len(drawable) <= _LONGEST_LABEL else f"{drawable[: _LONGEST_LABEL - 1]}…"
