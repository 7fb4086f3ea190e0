"""``ddbench compare``: what the scores in stores say about a question."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import filters_of, score_filters
from harness.cli.output import put

if TYPE_CHECKING:
    from harness.report.comparing.comparison import Comparison

_FORMATS = ("terminal", "markdown", "csv", "latex", "json")


@click.command(
    epilog="Differences are paired over the distillations, and in them over the students, that both have. Where each "
    "has one distillation its students are compared, which says nothing of other sets, so no star is given. Names "
    "are as in `ddbench run`; one without options is every one with that name."
)
@click.argument("stores", nargs=-1, type=click.Path(path_type=Path), metavar="[STORE]...")
@click.option("--by", metavar="AXIS", default="pool", show_default=True, help="What is compared: pool, method, "
              "evaluator, architecture, dataset, ipc, iterations, precision or store.")  # fmt: skip
@click.option("--baseline", metavar="NAME", help="What the others are compared with. [single, the smallest number, "
              "the first store; else it must be given]")  # fmt: skip
@score_filters
@click.option("--over", multiple=True, type=click.Choice(["architecture", "all", "others", "gap"]),
              help="Only these rows: each architecture, the mean of all, of all but the pool's main one, or the gap "
              "between. Fewer rows are a smaller family of tests. Repeatable.")  # fmt: skip
@click.option("--score-on", type=click.Choice(["test", "validation"]), default="test", show_default=True,
              help="Which images the scores are of.")  # fmt: skip
@click.option("--level", type=float, default=0.95, show_default=True, help="Of the intervals.")
@click.option("--interval", type=click.Choice(["t", "bootstrap"]), default="t", show_default=True,
              help="bootstrap: BCa, where there are at least 10 units.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of the bootstrap.")
@click.option("--format", "form", type=click.Choice(_FORMATS), default="terminal", show_default=True,
              help="csv: one tidy table with numbers unrounded. latex: booktabs.")  # fmt: skip
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="File to write. [stdout]")
def compare(
    stores: tuple[Path, ...],
    by: str,
    baseline: str | None,
    over: tuple[str, ...],
    score_on: str,
    level: float,
    interval: str,
    seed: int,
    form: str,
    output: Path | None,
    **only: tuple[str, ...],
) -> None:
    """Compare what STOREs hold along one axis, with intervals and tests. [./ddbench-store]

    \b
    ddbench compare --by pool --baseline single
    ddbench compare old-store new-store --by store --format markdown
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.report.comparing.comparison import compare as answer
    from harness.report.comparing.question import Question
    from harness.report.comparing.statistics import Bootstrap
    from harness.report.scores import read_scores

    bootstrap = Bootstrap(seed) if interval == "bootstrap" else None
    question = Question(by, baseline, filters_of(only), over, score_on, level, bootstrap)
    found = read_scores(stores or (Path("ddbench-store"),))
    _write(answer(found, question), form, output)


def _write(comparison: "Comparison", form: str, output: Path | None) -> None:
    from harness.report.tables.comparison_table import sheet_of
    from harness.report.tables.formats import latex, markdown, print_sheet, terminal
    from harness.report.tables.tidy import as_csv, as_json

    if form == "terminal" and output is None:
        print_sheet(sheet_of(comparison))
        return
    made: dict[str, Any] = {"csv": as_csv, "json": as_json}
    of_sheet: dict[str, Any] = {"terminal": terminal, "markdown": markdown, "latex": latex}
    for note in (*comparison.warnings, *comparison.notes) if form == "csv" else ():  # which has no place for them
        click.echo(note, err=True)
    text = made[form](comparison) if form in made else of_sheet[form](sheet_of(comparison))
    if output is None:
        click.echo(text, nl=False)
        return
    put(output, text)
