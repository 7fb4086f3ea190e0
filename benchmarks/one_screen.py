"""The answer to *which pool helps which method?* in one screen, for the pages of benchmarks: sentences and a matrix."""

import base64
import textwrap
from dataclasses import replace

from harness.report.answer.matrix import UNSOUND, matrix_of
from harness.report.answer.sentences import sentences_of
from harness.report.comparing.comparison import compare
from harness.report.comparing.question import Question
from harness.report.page.answer import forest_plot
from harness.report.tables.wording import DASH, difference
from harness.types.plurals import counted

COLOURS = {"helps": "#bfe3cf", "hurts": "#f6cdb9", "no difference above 1 point": "#c9daf0", "undecided": "#e6e6e6"}
"""The colour of a cell by the word of its verdict."""


def matrix_from(scores, baseline="single"):
    """Return the matrix of pools against a baseline at each method's last iteration; None if nothing is compared."""
    compared = at_last_iterations([score for score in scores.scores if score.score_on == "test" and score.pool])
    if len({score.pool for score in compared}) < 2 or baseline not in {score.pool for score in compared}:
        return None
    matrix = matrix_of(compare(replace(scores, scores=tuple(compared)), Question("pool", baseline)))
    return matrix if matrix.rows else None


def at_last_iterations(scores):
    """Return the scores at the last iteration of each method."""
    last = {}
    for score in scores:
        last[score.method] = max(score.iterations or 0, last.get(score.method, 0))
    return [score for score in scores if (score.iterations or 0) == last[score.method]]


def as_markdown(matrix, picture):
    """Return the sentences, the picture and the matrix as a table."""
    heads = ["method" if matrix.methods > 1 else "", *matrix.others.values()]
    rows = [[row.name, *(_cell(row.cells.get(label)) for label in matrix.others)] for row in matrix.rows]
    _, verdicts, _ = sentences = sentences_of(matrix)
    words = (
        "Verdicts are by the interval alone; tests below are corrected for their number and may leave more undecided."
    )
    legend = [f"{line}." for line in matrix.legend]
    parts = [*sentences, f"![{verdicts}]({picture})", markdown_table(heads, rows).rstrip(), " ".join([words, *legend])]
    return "\n\n".join(parts) + "\n"


def markdown_table(headings, rows):
    """Return a table whose cells are Markdown already."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def draw(matrix, path):
    """Write the matrix as a picture: a coloured cell for each verdict."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, rows = list(matrix.others.values()), matrix.rows
    width = 2.3 + 1.9 * len(names)
    figure, axes = pyplot.subplots(figsize=(width, 0.8 + 0.55 * len(rows)), layout="constrained")
    for y, row in enumerate(rows):
        for x, label in enumerate(matrix.others):
            cell = row.cells.get(label)
            colour = COLOURS.get(cell.verdict.word, "white") if cell else "white"
            axes.add_patch(pyplot.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour))
            text = _cell(cell).replace("**", "").replace("; ", "\n")
            axes.text(x, y, "\n".join(textwrap.fill(line, 30) for line in text.split("\n")),
                      ha="center", va="center", fontsize=7.5)  # fmt: skip
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), names, fontsize=8.5)
    labels = [textwrap.fill(row.name, 30, break_long_words=False) for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    label = f"difference from {matrix.baseline} in points, {matrix.over or 'students'}"
    lines = [label, *(line for line in matrix.legend if line.startswith(UNSOUND))]
    figure.supxlabel("\n".join(textwrap.fill(line, round(16 * width)) for line in lines), fontsize=8)
    # Without the date and the version of the library, so that equal records give equal files.
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)


def draw_forest(matrix, path):
    """Write the differences as the forest plot of the report's page, and return what it shows in words."""
    picture = forest_plot(matrix)
    path.write_bytes(base64.b64decode(picture.source.partition(",")[2]))
    return picture.alt


def _cell(cell):
    if cell is None:
        return DASH
    estimate = cell.effect.estimate
    numbers = difference(estimate.difference, estimate.low, estimate.high)
    return f"**{cell.verdict.word}** {numbers}{cell.mark}; {counted(cell.distillations, 'distillation')} each"
