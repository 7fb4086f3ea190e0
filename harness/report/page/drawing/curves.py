"""Drawing of curves with bands around them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from harness.report.page.drawing.pictures import WIDTH, Key, Picture, as_svg, drawing, plain_number

_HEIGHT = 2.6
_MOST_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """A line with the spread around it.

    Attributes:
        key: its name and how it is drawn.
        x, y: its points in order.
        spread: half the height of the band around each point; 0 for no band.
    """

    key: Key
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float]


def draw_curves(
    curves: Sequence[Curve],
    *,
    title: str,
    x: str,
    y: str,
    levels: Sequence[tuple[Key, float]] = (),
    within: tuple[float, float] | None = None,
    logarithmic: bool | None = None,
    whole_numbers: bool = True,
) -> Picture:
    """Draw lines over a common axis, which is logarithmic if positive values span more than a factor of 30.

    Args:
        curves: the lines.
        title: the text above the picture.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        levels: values without an x, drawn as horizontal lines.
        within: the range of possible values, to which bands are cut.
        logarithmic: whether the vertical axis is; None decides by the values.
        whole_numbers: whether the horizontal axis has ticks at whole numbers only.
    """
    with drawing(WIDTH, _HEIGHT) as figure:
        axes = figure.add_subplot()
        if _needs_logarithmic_axis(curves) if logarithmic is None else logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(plain_number)
            axes.yaxis.set_minor_formatter(NullFormatter())
            # A band down to zero has no place on a logarithmic axis.
            within = (min(min(curve.y) for curve in curves) / 2, np.inf)
        for curve in curves:
            _draw(axes, curve, within)
        for key, level in levels:
            axes.axhline(level, color=key.colour, linestyle=key.line, linewidth=1.2)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole_numbers))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        last = "; ".join(f"{curve.key.name} ends at {curve.y[-1]:.4g}" for curve in curves)
        return as_svg(figure, f"Curves of {y} over {x}, {title}: {last}", title)


def _draw(axes: Axes, curve: Curve, within: tuple[float, float] | None) -> None:
    # More points than pixels only make the page larger.
    step = max(1, len(curve.x) // _MOST_POINTS)
    x, y, spread = (np.asarray(values, float)[::step] for values in (curve.x, curve.y, curve.spread))
    axes.plot(x, y, color=curve.key.colour, marker=curve.key.marker, linestyle=curve.key.line, markersize=4.5)
    if np.any(spread > 0):
        low, high = within or (-np.inf, np.inf)
        band = np.maximum(y - spread, low), np.minimum(y + spread, high)
        axes.fill_between(x, *band, color=curve.key.colour, alpha=0.14, linewidth=0)


def _needs_logarithmic_axis(curves: Sequence[Curve]) -> bool:
    values = np.concatenate([np.asarray(curve.y, float) for curve in curves])
    return bool(values.min() > 0 and values.max() > 30 * values.min())
