"""The section of curves: logged losses, and accuracy over iterations."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.report.page.drawing.curves import Curve, draw_curves
from harness.report.page.drawing.pictures import Key, Palette, Picture, draw_legend
from harness.report.page.panel import MOST_LINES, Line, Panel
from harness.report.page.tables import iterations_table
from harness.report.page.view import Part, Section
from harness.report.tables.wording import per_class
from harness.types.report import SetRecord

NO_POOL = "no pool"
_STYLES = ("--", ":", "-.")


def curves_section(panels: Sequence[Panel], trajectories: Sequence[SetRecord], palette: Palette) -> Section | None:
    """Return the logged losses and accuracy over iterations, as pictures and as tables."""
    parts = [*_losses(trajectories, palette), *(part for panel in panels for part in _accuracies(panel, palette))]
    intro = ["Lines are means over distillations; bands are one standard deviation between distillations."]
    return Section("curves", "Curves", intro, parts) if parts else None


def trajectories_of(sets: Iterable[SetRecord]) -> list[SetRecord]:
    """Return the set of each trajectory after the most iterations, whose history includes those of the others."""
    most: dict[tuple[Any, ...], SetRecord] = {}
    for record in sorted(sets, key=lambda record: record.iterations or 0):
        keys = ("dataset", "ipc", "method", "pool", "seed", "distillation")
        most[tuple(getattr(record, key) for key in keys)] = record
    return list(most.values())


def _losses(trajectories: Sequence[SetRecord], palette: Palette) -> Iterator[Part]:
    grouped: dict[tuple[Any, ...], dict[str | None, list[SetRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in trajectories:
        if record.scalars:
            grouped[record.dataset, record.ipc or 0, record.method][record.pool].append(record)
    pictures: dict[tuple[str, int], list[Picture]] = defaultdict(list)
    keys: dict[tuple[str, int], dict[str, Key]] = defaultdict(dict)
    for (dataset, ipc, method), by_pool in sorted(grouped.items(), key=lambda item: item[0]):
        scalar = _scalar(next(iter(by_pool.values()))[0])
        curves = []
        for pool in sorted(by_pool, key=palette.pools.index):
            key = Key(pool or NO_POOL, palette.colour(pool))
            curve = mean_curve(key, [record.scalars.get(scalar, ()) for record in by_pool[pool]])
            if curve:
                curves.append(curve)
                keys[dataset, ipc][key.name] = key
        if curves and len(pictures[dataset, ipc]) < MOST_LINES:
            drawn = draw_curves(curves, title=method, x="iteration", y=scalar, within=_range_of(curves))
            pictures[dataset, ipc].append(drawn)
    for (dataset, ipc), of_size in pictures.items():
        size = f", {per_class(ipc)}" if ipc else ""
        legend = draw_legend(list(keys[dataset, ipc].values()), "Legend")
        yield Part(f"What the methods minimise, on {dataset}{size}", pictures=[*of_size, legend])


def _scalar(record: SetRecord) -> str:
    return "loss" if "loss" in record.scalars else next(iter(record.scalars))


def mean_curve(key: Key, histories: Sequence[Sequence[float | None]]) -> Curve | None:
    """Return mean and standard deviation at each step at which all histories are finite; None if there is none."""
    x, y, spread = [], [], []
    for step, values in enumerate(zip(*histories, strict=False), 1):
        finite = [value for value in values if value is not None]
        # A mean over fewer distillations than before would jump.
        if len(finite) == len(values):
            x.append(float(step))
            y.append(statistics.fmean(finite))
            spread.append(statistics.stdev(finite) if len(finite) > 1 else 0.0)
    return Curve(key, x, y, spread) if x else None


def _range_of(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """Return the range that bands are cut to: from zero on if no value is negative, as those of squares never are."""
    return (0.0, math.inf) if min(min(curve.y) for curve in curves) >= 0 else None


def _accuracies(panel: Panel, palette: Palette) -> Iterator[Part]:
    table = iterations_table(panel)
    if table is None:
        return
    ends = [line for line in panel.last if line.iterations is not None]
    keys = {line.end: Key(str(line), palette.colour(line.pool), palette.marker(line.method)) for line in ends}
    real = [line for line in panel.last if line.is_baseline]
    levels = {line: Key(str(line), "0.5", line=_STYLES[i % len(_STYLES)]) for i, line in enumerate(real)}
    pictures = []
    for architecture in () if panel.is_long else panel.architectures:
        curves = [curve for end in ends if (curve := _accuracy(panel, end, architecture, keys[end.end]))]
        beside = [
            (key, 100 * panel.tiles[line, architecture].mean)
            for line, key in levels.items()
            if (line, architecture) in panel.tiles
        ]
        if curves:
            y = "accuracy, %"
            drawn = draw_curves(curves, title=architecture, x="iterations", y=y, levels=beside, within=(0, 100))
            pictures.append(drawn)
    legend = [draw_legend([*keys.values(), *levels.values()], "Legend")] if pictures else []
    yield Part(f"Accuracy, {panel.title}", pictures=[*pictures, *legend], folded=[table])


def _accuracy(panel: Panel, end: Line, architecture: str, key: Key) -> Curve | None:
    """Return accuracy at each scored iteration; None if there are fewer than two."""
    lines = [line for line in panel.lines if line.end == end.end and (line, architecture) in panel.tiles]
    if len(lines) < 2:
        return None
    arms = [panel.tiles[line, architecture] for line in lines]
    x = [float(line.iterations or 0) for line in lines]
    return Curve(key, x, [100 * arm.mean for arm in arms], [100 * (arm.std_distillations or 0.0) for arm in arms])
