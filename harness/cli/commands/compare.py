"""``ddbench compare``: compare the scores in stores along one axis."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import label_option, score_filters, view_options
from harness.cli.output import put
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.report.comparing.comparison import Comparison

_FORMATS = ("terminal", "markdown", "csv", "latex", "json")


@click.command(
    epilog="Differences are paired over the distillations that both arms have, and within them over the students. If "
    "each arm has one distillation, its students are compared; this says nothing about other distilled sets, so that "
    "the verdict is undecided. Names are as in `ddbench run`; a name without options stands for every component of "
    "that name."
)
@click.argument("stores", nargs=-1, type=click.Path(path_type=Path), metavar="[STORE]...")
@click.option("--by", metavar="AXIS", default="pool", show_default=True, help="What to compare: pool, method, "
              "evaluator, architecture, dataset, ipc, iterations, precision or store.")  # fmt: skip
@click.option("--baseline", metavar="NAME", help="The value that all others are compared with. [the pool single, the "
              "smallest number or the first store; otherwise required]")  # fmt: skip
@score_filters
@click.option("--over", multiple=True, type=click.Choice(["architecture", "all", "others", "gap"]),
              help="Only these rows: each architecture, the mean over all, the mean over all but the pool's main one, "
              "or the gap between the main one and these. Fewer rows mean a smaller family of tests. "
              "Repeatable.")  # fmt: skip
@click.option("--equal-storage", is_flag=True, help="Compare only arms whose sets store as many numbers as the "
              "baseline's under the same conditions, stored labels and a decoder's weights included.")  # fmt: skip
@click.option("--score-on", type=click.Choice(["test", "validation"]), default="test", show_default=True,
              help="Images on which students were scored.")  # fmt: skip
@click.option("--metric", metavar="NAME", default="accuracy", show_default=True,
              help="What is compared: the accuracy, or any metric that the students' evaluators report.")  # fmt: skip
@click.option("--level", type=float, default=0.95, show_default=True, help="Confidence level of the intervals.")
@click.option("--interval", type=click.Choice(["t", "bootstrap"]), default="t", show_default=True,
              help="Kind of interval; bootstrap: BCa, if there are at least 10 units.")  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Seed of the bootstrap."
)
@click.option("--format", "form", type=click.Choice(_FORMATS), default="terminal", show_default=True,
              help="Output format; csv: a tidy table with unrounded numbers; latex: with booktabs.")  # fmt: skip
@label_option
@view_options
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Output file. [stdout]")
def compare(
    stores: tuple[Path, ...],
    form: str,
    published: bool,
    details: bool,
    output: Path | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Compare the results in STOREs along one axis, with confidence intervals and tests. [./ddbench-store]

    \b
    ddbench compare --by pool --baseline single
    ddbench compare old-store new-store --by store --format markdown
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.api.comparing import compare as answer

    if (published or details) and form != "terminal":
        raise UsageError(f"--{'details' if details else 'published'} is for --format terminal: {form} holds all of it")
    comparison = answer(*stores, **options).comparison
    if form == "terminal":
        _write_view(comparison, published, details, output)
    else:
        _write(comparison, form, output)


def _write_view(comparison: "Comparison", published: bool, details: bool, output: Path | None) -> None:
    from harness.report.tables.comparison_table import sheet_of
    from harness.report.tables.comparison_view import print_comparison
    from harness.report.tables.formats import print_sheet

    file = sys.stdout if output is None else io.StringIO()
    if details:
        print_sheet(sheet_of(comparison), file)
    else:
        print_comparison(comparison, published, file)
    if isinstance(file, io.StringIO) and output is not None:
        put(output, file.getvalue())


def _write(comparison: "Comparison", form: str, output: Path | None) -> None:
    from harness.report.exports.tidy import as_csv, as_json
    from harness.report.tables.comparison_table import sheet_of
    from harness.report.tables.formats import latex, markdown

    of_comparison: dict[str, Any] = {"csv": as_csv, "json": as_json}
    of_sheet: dict[str, Any] = {"markdown": markdown, "latex": latex}
    # A CSV table has no place for notes, and must stay readable by programs: they go to stderr.
    for note in (*comparison.warnings, *comparison.notes) if form == "csv" else ():
        click.echo(note, err=True)
    text = of_comparison[form](comparison) if form in of_comparison else of_sheet[form](sheet_of(comparison))
    if output is None:
        click.echo(text, nl=False)
        return
    put(output, text)
