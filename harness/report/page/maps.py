"""The section of heat maps: methods by pools for each architecture, with a number on every tile."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm

from harness.report.comparing.comparison import Comparison
from harness.report.comparing.comparison_rows import ComparisonRow
from harness.report.page.drawing.pictures import Picture, as_svg, drawing, short
from harness.report.page.panel import Line, Panel
from harness.report.page.view import Part, Section
from harness.report.tables.wording import tenths

Values = Mapping[tuple[str, str], float]


def limits(maps: Sequence[Values]) -> tuple[float, float]:
    """Return the smallest and the largest value, the scale that all maps of a group share."""
    every = [value for values in maps for value in values.values()]
    return (min(every), max(every)) if every else (0.0, 1.0)


def heat_map(
    values: Values,
    methods: Sequence[str],
    pools: Sequence[str],
    scale: tuple[float, float],
    *,
    title: str,
    what: str,
    diverging: bool = False,
    good: bool = True,
    sure: Collection[tuple[str, str]] = (),
) -> Picture:
    """Draw percentages or percentage points by method and pool; missing values are dashes.

    Args:
        values: values by method and pool.
        methods: the rows.
        pools: the columns.
        scale: values of the first and the last colour.
        title: the text above the map.
        what: what the numbers are, for the description.
        diverging: whether the values are differences, with zero in white.
        good: whether larger differences are better, and blue; otherwise they are red.
        sure: tiles whose sign is decided, in bold.
    """
    height = 0.75 + 0.42 * len(methods)
    with drawing(1.5 + 0.95 * max(len(pools), 2), height + 0.5) as figure:
        axes = figure.add_subplot()
        _tiles(axes, values, methods, pools, scale, ("RdBu" if good else "RdBu_r") if diverging else None, sure)
        tiles = "; ".join(f"{method} with {pool} {values[method, pool]:.1f}" for method, pool in values)
        return as_svg(figure, f"Heat map of {what}, {title}: {tiles}", title)


def _tiles(
    axes: Axes,
    values: Values,
    methods: Sequence[str],
    pools: Sequence[str],
    scale: tuple[float, float],
    diverging: str | None,
    sure: Collection[tuple[str, str]],
) -> None:
    colours = colormaps[diverging or "viridis"]
    # Symmetric around zero, so that white is no difference; 1e-9 because a scale must not be empty.
    most = max(abs(scale[0]), abs(scale[1]), 1e-9)
    norm = TwoSlopeNorm(0, -most, most) if diverging else Normalize(scale[0], max(scale[1], scale[0] + 1e-9))
    grid = np.full((len(methods), len(pools), 4), 0.0)
    for row, method in enumerate(methods):
        for column, pool in enumerate(pools):
            value = values.get((method, pool))
            if value is None:
                axes.text(column, row, "–", ha="center", va="center")
                continue
            grid[row, column] = colours(norm(value))
            # The text is black on light tiles: 0.299, 0.587, 0.114 are the luma weights of ITU-R BT.601.
            light = grid[row, column, :3] @ (0.299, 0.587, 0.114) > 0.55
            text = tenths(value, signed=diverging is not None)
            weight = "bold" if (method, pool) in sure else "normal"
            colour = "black" if light else "white"
            axes.text(column, row, text, ha="center", va="center", color=colour, weight=weight)
    axes.imshow(grid, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(pools)), [short(pool) for pool in pools], rotation=25, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(methods)), [short(method) for method in methods])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def maps_section(panels: Sequence[Panel], comparison: Comparison | str) -> Section | None:
    """Return maps of accuracy, gain over the baseline pool and cross-architecture gap for each panel."""
    parts = [part for panel in panels for part in _maps_of(panel, comparison)]
    if not parts:
        return None
    intro = [
        "Each method at its last iteration. Maps that stand together share a scale; bold: the sign of the difference "
        "is decided (see the effects)."
    ]
    return Section("maps", "Methods by pools", intro, parts)


def _maps_of(panel: Panel, comparison: Comparison | str) -> Iterator[Part]:
    lines = [line for line in panel.last if line.pool]
    pools = list(dict.fromkeys(line.pool or "" for line in lines))
    methods = sorted({line.method for line in lines})
    if len(pools) * len(methods) < 2 or panel.is_long:
        return
    accuracy = {name: _accuracies(panel, lines, name) for name in panel.architectures}
    scale = limits(list(accuracy.values()))
    drawn = [
        heat_map(values, methods, pools, scale, title=name, what="accuracy in %")
        for name, values in accuracy.items()
        if values
    ]
    yield Part(panel.title, [f"Accuracy on {panel.score_on} in %, by the students' architecture."], pictures=drawn)
    if isinstance(comparison, Comparison):
        rows = [row for row in comparison.rows if panel.holds(row.condition)]
        yield from _gains(rows, methods, comparison)
        yield from _gaps(rows, methods, pools)


def _accuracies(panel: Panel, lines: Sequence[Line], architecture: str) -> Values:
    arms = {(line.method, line.pool or ""): panel.tiles.get((line, architecture)) for line in lines}
    return {key: 100 * arm.mean for key, arm in arms.items() if arm}


def _gains(rows: Sequence[ComparisonRow], methods: Sequence[str], comparison: Comparison) -> Iterator[Part]:
    others = [label for label in comparison.others if any(label in row.effects for row in rows)]
    gains: dict[str, dict[tuple[str, str], float]] = {}
    sure: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if row.kind in ("architecture", "all"):
            for label, effect in row.effects.items():
                gains.setdefault(row.over, {})[row.condition["method"], label] = 100 * effect.estimate.difference
                if effect.decided:
                    sure.setdefault(row.over, []).append((row.condition["method"], label))
    scale = limits(list(gains.values()))
    what = f"gain over {comparison.baseline} in points"
    drawn = [
        heat_map(gains[over], methods, others, scale, title=over, what=what, diverging=True, sure=sure.get(over, ()))
        for over in gains
    ]
    if drawn:
        yield Part(intro=[f"Gain over {comparison.baseline}, in points."], pictures=drawn)


def _gaps(rows: Sequence[ComparisonRow], methods: Sequence[str], pools: Sequence[str]) -> Iterator[Part]:
    gaps: dict[str, dict[tuple[str, str], float]] = {}
    for row in rows:
        if row.kind == "gap":
            for label, arm in row.arms.items():
                gaps.setdefault(row.over, {})[row.condition["method"], label] = 100 * arm.mean
    scale = limits(list(gaps.values()))
    what = "cross-architecture gap in points"
    drawn = [
        heat_map(gap, methods, pools, scale, title=over, what=what, diverging=True, good=False)
        for over, gap in gaps.items()
    ]
    if drawn:
        explanation = (
            "The cross-architecture gap, in points: the main architecture's accuracy minus the mean of the others."
        )
        yield Part(intro=[explanation], pictures=drawn)
