"""Pictures of the page: drawn by matplotlib, embedded in the page, readable on light and dark screens."""

import base64
import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

INK = "#010203"
"""A placeholder for the colour of text, which is dark on a light page and light on a dark one."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Colours that the colour-blind can distinguish (Okabe and Ito), visible on light and dark."""
MARKERS = "osD^vPX*<>ph"
WIDTH = 4.6
"""Width of a plot in inches: two fit side by side on a wide page, one on a phone."""
_STYLE = """<style>svg { color: #1d2430 } @media (prefers-color-scheme: dark) { svg { color: #dfe4ea } }
@media print { svg { color: #000 } }</style>"""
_RC: Any = {
    "svg.hashsalt": "ddbench",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.6,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@dataclass(frozen=True)
class Palette:
    """Colours of pools and markers of methods, the same everywhere on the page.

    Attributes:
        pools: pools in the order of their colours; None stands for methods without a pool.
        methods: methods in the order of their markers.
    """

    pools: Sequence[str | None]
    methods: Sequence[str]

    def colour(self, pool: str | None) -> str:
        """Return the colour of a pool."""
        return COLOURS[self.pools.index(pool) % len(COLOURS)]

    def marker(self, method: str) -> str:
        """Return the marker of a method."""
        return MARKERS[self.methods.index(method) % len(MARKERS)]


@dataclass(frozen=True)
class Picture:
    """An image for the page.

    Attributes:
        source: a data URI.
        alt: a description for people who cannot see it.
        width, height: size in CSS pixels.
        title: the text above it.
        pixelated: whether it is enlarged without smoothing.
    """

    source: str
    alt: str
    width: int
    height: int
    title: str = ""
    pixelated: bool = False


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a name with its colour, and a marker or a line style."""

    name: str
    colour: str
    marker: str = ""
    line: str = "-"


def draw_legend(keys: Sequence[Key], title: str) -> Picture:
    """Draw a legend for all pictures of a group."""
    with drawing(WIDTH, 0.2 + 0.2 * len(keys)) as figure:
        lines = [Line2D([], [], color=key.colour, marker=key.marker, ls=key.line, markersize=5.5) for key in keys]
        names = [short(key.name, 60) for key in keys]
        figure.legend(lines, names, loc="upper left", bbox_to_anchor=(0, 1), handlelength=2.2, borderaxespad=0)
        return as_svg(figure, f"Legend: {', '.join(key.name for key in keys)}", title)


def short(name: str, longest: int = 26) -> str:
    """Shorten a name for an axis or a legend; tables show it in full."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def plain_number(value: float, _place: object = None) -> str:
    """Format the label of a tick without mathematical markup."""
    # "text.parse_math" is off, so that names with dollar signs are not taken for formulas.
    return f"{value:g}"


@contextlib.contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """Create a figure of a size in inches (96 CSS pixels each) in the page's style."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        # Not pyplot, which keeps figures alive globally and chooses a backend by the screen.
        FigureCanvasAgg(figure)
        yield figure


def as_svg(figure: Figure, alt: str, title: str = "") -> Picture:
    """Render a figure as SVG whose text adapts to light and dark pages; call it within `drawing`."""
    # No date and a fixed hash salt (see _RC): equal figures give equal bytes, so pages can be compared.
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    whole = file.getvalue()
    text = whole[whole.index("<svg") :].replace(INK, "currentColor")
    head, body = text.split(">", 1)
    source = _uri("image/svg+xml", f"{head}>{_STYLE}{body}".encode())
    width, height = figure.get_size_inches()
    return Picture(source, alt, round(96 * width), round(96 * height), title)


def as_png(pixels: NDArray[np.float32], alt: str, title: str = "", scale: int = 1) -> Picture:
    """Encode pixels (h, w, 1, 3 or 4) in [0, 1] as a PNG of that size, shown ``scale`` times as large."""
    from PIL import Image

    levels = (pixels * 255).round().clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    # Pillow has no mode for one channel with an axis of its own.
    Image.fromarray(levels.squeeze(-1) if levels.shape[-1] == 1 else levels).save(file, "PNG", optimize=True)
    height, width = levels.shape[:2]
    return Picture(_uri("image/png", file.getvalue()), alt, width * scale, height * scale, title, pixelated=True)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
