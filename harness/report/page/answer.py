"""The top of the page: the matrix of verdicts, and its differences as a forest plot."""

from matplotlib.axes import Axes

from harness.report.answer.matrix import Matrix, MatrixCell
from harness.report.comparing.verdict import HELPS, HIGHER, HURTS, LOWER, MARGIN, SAME, UNDECIDED
from harness.report.page.drawing.pictures import INK, WIDTH, Picture, as_svg, drawing, short
from harness.report.page.view import Column, Entry, Group, Part, Table, TableRow
from harness.report.tables.wording import DASH, difference, interval, percent
from harness.types.plurals import counted

MOST_DRAWN = 40
"""Maximum number of differences in the forest plot."""
_KINDS = {HELPS: "helps", HIGHER: "helps", HURTS: "hurts", LOWER: "hurts", SAME: "same", UNDECIDED: "undecided"}
"""The class of an entry, which decides its colour, by the word of its verdict."""
_COLOURS = {"helps": "#1a7f4b", "hurts": "#c2410c", "same": "#3b6fb6", "undecided": "#7f7f7f"}
"""Readable on light and dark pages, and distinguishable for the colour-blind; the words stand beside them."""
_NEED = (
    "“About N more distillations each” would decide a verdict if difference and spread stayed as they are: a t test "
    "would then find the difference in 80 % of cases, or the interval would lie within one point of zero."
)


def answer_part(matrix: Matrix) -> Part:
    """Return the matrix as a table, and its differences as a forest plot."""
    return Part(tables=[_table(matrix)], pictures=[forest_plot(matrix)])


def _table(matrix: Matrix) -> Table:
    over = f", mean accuracy of {matrix.over}" if matrix.over else ""
    caption = f"Difference from {matrix.baseline} in points{over}; in brackets its {100 * matrix.level:g} % interval"
    columns = [Column("method" if matrix.methods > 1 else ""), *(Column(name) for name in matrix.others.values())]
    rows = [TableRow(row.name, [_entry(row.cells.get(label)) for label in matrix.others]) for row in matrix.rows]
    words = (
        "helps: the interval lies above zero; hurts: below; no difference above 1 point: within one point on both "
        "sides; else undecided."
    )
    needs = any(cell.more for _, _, cell in matrix.cells)
    return Table(
        "answer-table", caption, columns, [Group("", rows)], [words, *([_NEED] if needs else []), *matrix.legend]
    )


def _entry(cell: MatrixCell | None) -> Entry:
    if cell is None:
        return Entry(DASH, number=False)
    estimate = cell.effect.estimate
    between = interval(estimate.low, estimate.high)
    below = f"{cell.verdict}; {counted(cell.distillations, 'distillation')} each"
    number = f"{percent(estimate.difference, signed=True)}{cell.mark}"
    return Entry(number, between, below, _KINDS[cell.verdict.word], number=False)


def forest_plot(matrix: Matrix) -> Picture:
    """Draw each difference with its interval, in the colour of its verdict; the band is one point on both sides."""
    cells = matrix.cells[:MOST_DRAWN]
    title = f"Difference from {matrix.baseline} in points"
    if len(matrix.cells) > len(cells):
        title += f", the first {len(cells)} of {len(matrix.cells)}"
    with drawing(WIDTH, 0.7 + 0.36 * len(cells)) as figure:
        axes = figure.add_subplot()
        axes.axvspan(-100 * MARGIN, 100 * MARGIN, color=INK, alpha=0.07, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        texts = []
        for place, (row, name, cell) in enumerate(cells):
            label = name if len(matrix.rows) == 1 else row.name if len(matrix.others) == 1 else f"{row.name} · {name}"
            _draw(axes, place, cell, label)
            estimate = cell.effect.estimate
            texts.append(f"{label} {difference(estimate.difference, estimate.low, estimate.high)} {cell.verdict.word}")
        axes.set_ylim(len(cells) - 0.4, -0.8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(False, axis="y")
        return as_svg(figure, f"Forest plot. {title}: {'; '.join(texts)}", title)


def _draw(axes: Axes, place: int, cell: MatrixCell, label: str) -> None:
    estimate, colour = cell.effect.estimate, _COLOURS[_KINDS[cell.verdict.word]]
    if estimate.low is not None and estimate.high is not None:
        axes.plot([100 * estimate.low, 100 * estimate.high], [place, place], color=colour, solid_capstyle="butt")
    axes.plot([100 * estimate.difference], [place], "s", color=colour, markersize=5)
    # Above its line, at the left edge: beside the axes, names would leave no room for the lines on a phone.
    axes.annotate(
        short(label, 60), (0, place), xycoords=("axes fraction", "data"), xytext=(0, 5), textcoords="offset points",
        fontsize=8, color=INK,
    )  # fmt: skip
