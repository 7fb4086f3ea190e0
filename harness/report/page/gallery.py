"""The section of images: distilled sets, each at several iterations of its trajectory."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, StoreError
from harness.report.page.drawing.pictures import Palette, Picture, as_png
from harness.report.page.view import Part, Section, Strips
from harness.report.tables.wording import per_class
from harness.running.set_picture import pixels_by_class
from harness.types.distilled import DistilledSet
from harness.types.plurals import counted
from harness.types.report import DataRecord, SetRecord

_SNAPSHOTS = 5
"""Maximum number of sets of a trajectory that are shown, the first and the last among them."""
_OF_ALL = 3
"""Number of images per class that are shown of a set of all training images."""
_LARGEST = 30_000_000
"""Sets with more stored numbers are not read for a picture."""
_MOST_CLASSES = 20
"""Maximum number of classes of a set that are shown."""
_MOST_PER_CLASS = 10
_REAL = "real"
"""At the side of real images."""
_GAP = 2
"""Pixels between images; the page shows through."""
_GRID_WIDTH = 560
"""Maximum width in CSS pixels to which a grid is enlarged by a whole factor."""


def images_section(
    sets: Sequence[SetRecord], palette: Palette, most: int, data: Mapping[tuple[str, str], DataRecord]
) -> Section | None:
    """Return the images of the first distillation of each method and pool, at several iterations.

    Args:
        sets: all distilled sets.
        palette: the order of pools.
        most: maximum number of pictures of sets.
        data: the real data by store and key of the sets, whose first images stand above theirs.
    """
    cards = list(_first_trajectories(sets, palette).items())
    shown, left, skipped, lost = 0, 0, 0, []
    parts: dict[tuple[Any, ...], list[Strips]] = defaultdict(list)
    classes: dict[tuple[Any, ...], tuple[str, ...]] = {}
    for (dataset, ipc, method, pool), snapshots in cards:
        chosen = [record for record in _evenly_spaced(snapshots) if record.storage_floats <= _LARGEST]
        skipped += not chosen
        # Whole trajectories only: half of one would hide how it ended.
        if shown + len(chosen) > most:
            left += 1
            continue
        name = f"{method} · {pool}" if pool else method
        rows = []
        for record in chosen:
            try:
                picture, names = _picture(record, name)
            # A damaged set costs its picture, not the page.
            except (StoreError, DataError) as error:
                lost.append(str(error))
                continue
            rows.append(picture)
            classes[dataset, ipc] = names
        shown += len(rows)
        if rows:
            record = chosen[0]
            real = _real_images(data.get((record.store, record.key)), classes[dataset, ipc], rows[0]) if ipc else []
            parts[dataset, ipc].append(Strips(name, [*real, *rows]))
    if not parts:
        return Section("images", "Images", lost, []) if lost else None
    intro = ["The first distillation of each; a column for each class, pixels before preprocessing, clipped to [0, 1]."]
    hidden = counted(left, "method with its pool", "methods with their pools")
    intro += [f"{hidden} more are not shown."] if left else []
    intro += [f"{counted(skipped, 'set')} too large to be shown."] if skipped else []
    shown_parts = []
    for key, strips in parts.items():
        with_real = any(row.title == _REAL for strip in strips for row in strip.rows)
        shown_parts.append(Part(_title(*key), [_columns(classes[key], with_real)], strips=strips))
    return Section("images", "Images", intro + lost, shown_parts)


def _first_trajectories(sets: Sequence[SetRecord], palette: Palette) -> dict[tuple[Any, ...], list[SetRecord]]:
    """Return, by data set, images per class, method and pool, the sets of a trajectory in the order of iterations."""
    by_condition: dict[tuple[Any, ...], list[SetRecord]] = defaultdict(list)
    for record in sorted(sets, key=lambda record: (record.seed, record.distillation, record.iterations or 0)):
        known = by_condition[record.dataset, record.ipc, record.method, record.pool]
        if not known or (known[0].seed, known[0].distillation) == (record.seed, record.distillation):
            known.append(record)
    order = sorted(
        by_condition, key=lambda key: (key[0], key[1] is None, key[1] or 0, key[2], palette.pools.index(key[3]))
    )
    return {key: by_condition[key] for key in order}


def _evenly_spaced(snapshots: Sequence[SetRecord]) -> list[SetRecord]:
    """Return at most `_SNAPSHOTS` of the sets, evenly spaced, the first and the last among them."""
    if len(snapshots) <= _SNAPSHOTS:
        return list(snapshots)
    step = (len(snapshots) - 1) / (_SNAPSHOTS - 1)
    return [snapshots[round(step * place)] for place in range(_SNAPSHOTS)]


def _picture(record: SetRecord, name: str) -> tuple[Picture, tuple[str, ...]]:
    distilled = record.load()
    title = "" if record.iterations is None else f"{record.iterations:,}"
    when = f" after {counted(record.iterations, 'iteration')}" if record.iterations is not None else ""
    flag = f", {record.status}" if record.status != "done" else ""
    alt = f"Images of {name}{when}{flag}: a column for each class"
    most = _MOST_PER_CLASS if record.ipc else _OF_ALL
    return _draw_images(distilled, f"{title}{flag}", alt, most), distilled.classes


def _columns(classes: Sequence[str], with_real: bool) -> str:
    shown = ", ".join(classes[:_MOST_CLASSES])
    more = f", and {len(classes) - _MOST_CLASSES} classes that are not shown" if len(classes) > _MOST_CLASSES else ""
    side = f"iterations, or {_REAL} for training images" if with_real else "iterations"
    return f"Columns: {shown}{more}; the first images of each. At the side: {side}."


def _title(dataset: str, ipc: int | None) -> str:
    return f"{dataset}, {per_class(ipc)}" if ipc else f"{dataset}, all images"


def _draw_images(distilled: DistilledSet, title: str, alt: str, most: int) -> Picture:
    """Draw the first images of the first classes, with transparent gaps."""
    pixels = _mosaic(pixels_by_class(distilled, _MOST_CLASSES, most))
    scale = max(1, min(4, _GRID_WIDTH // pixels.shape[1]))
    return as_png(pixels, alt, title, scale)


def _real_images(data: DataRecord | None, classes: tuple[str, ...], below: Picture) -> list[Picture]:
    """Return a picture of real images of the same classes, as wide as the one below; none if there are none."""
    columns = min(len(classes), _MOST_CLASSES)
    if data is None or data.classes != classes or len(data.images) < columns:
        return []
    pixels = _mosaic([(images / 255).astype(np.float32) for images in data.images[:columns]])
    picture = as_png(pixels, "Real images: the first training images of each class, a column for each", _REAL)
    # Large images are stored scaled down: shown at the same width, their columns lie above those of the set.
    return [replace(picture, width=below.width, height=round(picture.height * below.width / picture.width))]


def _mosaic(columns: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Arrange columns of images (n, h, w, c) into one RGBA image with transparent gaps."""
    height, width, channels = columns[0].shape[1:]
    # Classes of real data sets can have different numbers of images.
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
