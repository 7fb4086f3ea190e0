"""The section of images: what the sets look like, and how they came to look so."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from harness.errors import DataError, StoreError
from harness.report.page.images import MOST_A_CLASS, MOST_CLASSES, draw_images
from harness.report.page.pictures import Palette, Picture
from harness.report.page.tables import count
from harness.report.page.view import Part, Section, Strips
from harness.types.plurals import counted
from harness.types.report import SetRecord

_SNAPSHOTS = 5
"""Points of one trajectory that are shown: the first, the last and some between."""
_OF_ALL = 3
"""Images of each class that are shown of a set of all training images."""
_LARGEST = 30_000_000
"""Sets of more numbers than this are not read for a picture."""


def images_section(sets: Sequence[SetRecord], palette: Palette, most: int) -> Section | None:
    """The first distillation of each method and pool, side by side, each over its snapshots.

    Args:
        sets: all of them.
        palette: the order of pools.
        most: at most so many pictures.
    """
    cards = list(_first_trajectories(sets, palette).items())
    shown, left, skipped, lost = 0, 0, 0, []
    parts: dict[tuple[Any, ...], list[Strips]] = defaultdict(list)
    classes: dict[tuple[Any, ...], tuple[str, ...]] = {}
    for (dataset, ipc, method, pool), snapshots in cards:
        chosen = [record for record in _spaced(snapshots) if record.storage_floats <= _LARGEST]
        skipped += not chosen
        if shown + len(chosen) > most:
            left += 1
            continue
        name = f"{method} · {pool}" if pool else method
        rows = []
        for record in chosen:
            try:
                picture, names = _picture(record, name)
            except (StoreError, DataError) as error:
                lost.append(str(error))
                continue
            rows.append(picture)
            classes[dataset, ipc] = names
        shown += len(rows)
        if rows:
            parts[dataset, ipc].append(Strips(name, rows))
    if not parts:
        return Section("images", "Images", lost, []) if lost else None
    intro = [
        "The first distillation of each; one column a class, pixels as they were before preprocessing, cut to [0, 1]."
    ]
    intro += [f"{count(left, 'method with its pool', 'methods with their pools')} more are not shown."] if left else []
    intro += [f"{count(skipped, 'set')} too large to be shown."] if skipped else []
    made = [Part(_title(*key), [_columns(classes[key])], strips=strips) for key, strips in parts.items()]
    return Section("images", "Images", intro + lost, made)


def _first_trajectories(sets: Sequence[SetRecord], palette: Palette) -> dict[tuple[Any, ...], list[SetRecord]]:
    """By data set, images per class, method and pool, the sets of one trajectory in the order of iterations."""
    found: dict[tuple[Any, ...], list[SetRecord]] = defaultdict(list)
    for record in sorted(sets, key=lambda one: (one.seed, one.distillation, one.iterations or 0)):
        known = found[record.dataset, record.ipc, record.method, record.pool]
        if not known or (known[0].seed, known[0].distillation) == (record.seed, record.distillation):
            known.append(record)
    order = sorted(found, key=lambda key: (key[0], key[1] is None, key[1] or 0, key[2], palette.pools.index(key[3])))
    return {key: found[key] for key in order}


def _spaced(snapshots: Sequence[SetRecord]) -> list[SetRecord]:
    """At most `_SNAPSHOTS` of them, evenly spaced, the first and the last among them."""
    if len(snapshots) <= _SNAPSHOTS:
        return list(snapshots)
    step = (len(snapshots) - 1) / (_SNAPSHOTS - 1)
    return [snapshots[round(step * place)] for place in range(_SNAPSHOTS)]


def _picture(record: SetRecord, name: str) -> tuple[Picture, tuple[str, ...]]:
    distilled = record.load()
    title = "" if record.iterations is None else f"{record.iterations:,}"
    when = f" after {counted(record.iterations, 'iteration')}" if record.iterations is not None else ""
    flag = f", {record.status}" if record.status != "done" else ""
    alt = f"Images of {name}{when}{flag}: one column a class"
    most = MOST_A_CLASS if record.ipc else _OF_ALL
    return draw_images(distilled, f"{title}{flag}", alt, most), distilled.classes


def _columns(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:MOST_CLASSES])
    more = f", and {len(classes) - MOST_CLASSES} classes that are not shown" if len(classes) > MOST_CLASSES else ""
    return f"Columns: {shown}{more}; the first images of each. At the side: iterations."


def _title(dataset: str, ipc: int | None) -> str:
    return f"{dataset}, {ipc} image{'s' if ipc != 1 else ''} per class" if ipc else f"{dataset}, all images"
