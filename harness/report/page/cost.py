"""The section of costs: accuracy against time and memory."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import NullFormatter

from harness.report.page.drawing.pictures import (
    WIDTH,
    Key,
    Palette,
    Picture,
    as_svg,
    draw_legend,
    drawing,
    plain_number,
)
from harness.report.page.panel import Panel
from harness.report.page.view import Part, Section

_LEAST = 1e-3
"""Seconds below this are drawn here, because the axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    """A method with a pool, as a point of a picture.

    Attributes:
        key: its name, colour and marker.
        accuracy: mean over students and architectures in percent.
        seconds: duration of a distillation; None if unknown.
        memory: peak memory in bytes while its students were trained.
    """

    key: Key
    accuracy: float
    seconds: float | None
    memory: int


def draw_time(points: Sequence[Point], title: str) -> Picture:
    """Draw accuracy over the seconds of a distillation, on a logarithmic axis."""
    timed = [point for point in points if point.seconds is not None]

    def place(point: Point) -> float:
        return max(point.seconds or 0.0, _LEAST)

    return _draw(timed, place, "seconds of one distillation", title, logarithmic=True)


def draw_memory(points: Sequence[Point], title: str) -> Picture:
    """Draw accuracy over the peak memory while students were trained."""
    return _draw(points, lambda point: point.memory / 1e9, "peak memory of training students, GB", title)


def _draw(
    points: Sequence[Point], place: Callable[[Point], float], x: str, title: str, *, logarithmic: bool = False
) -> Picture:
    with drawing(WIDTH, 2.6) as figure:
        axes = figure.add_subplot()
        for point in points:
            axes.plot([place(point)], [point.accuracy], point.key.marker, color=point.key.colour, markersize=7.5)
        # Seconds range from milliseconds for random images to days; within a decade a logarithmic axis has no ticks.
        places = [place(point) for point in points]
        if logarithmic and places and max(places) > 10 * min(places) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(plain_number)
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(x)
        axes.set_ylabel("mean accuracy, %")
        values = "; ".join(f"{point.key.name} {point.accuracy:.1f} % at {place(point):.3g}" for point in points)
        return as_svg(figure, f"Accuracy over {x}, {title}: {values}", title)


def cost_section(panels: Sequence[Panel], palette: Palette) -> Section | None:
    """Return accuracy over seconds and over peak memory; None if no panel has two points."""
    parts = [Part(panel.title, pictures=pictures) for panel in panels if (pictures := _costs(panel, palette))]
    if not parts:
        return None
    intro = [
        "Mean over all architectures, for rows that have them all. Seconds: the method's steps up to the set, without "
        "experts and other artifacts that several sets share. Memory: of the process (CPU) or the device (GPU)."
    ]
    return Section("cost", "Accuracy against cost", intro, parts)


def _costs(panel: Panel, palette: Palette) -> list[Picture]:
    points = []
    for line in () if panel.is_long else panel.last:
        accuracy = panel.mean_of(line)
        # The mean of fewer architectures would not be comparable.
        if accuracy is None:
            continue
        scores = [score for name in panel.architectures for score in panel.tiles[line, name].scores]
        seconds = [score.set_seconds for score in scores if score.set_seconds is not None]
        key = Key(str(line), palette.colour(line.pool), palette.marker(line.method), "")
        mean = statistics.fmean(seconds) if seconds else None
        points.append(Point(key, accuracy, mean, max(score.peak_memory for score in scores)))
    if len(points) < 2:
        return []
    legend = draw_legend([point.key for point in points], "Legend")
    return [draw_time(points, "Time"), draw_memory(points, "Memory"), legend]
