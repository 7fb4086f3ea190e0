"""``ddbench table``: print the scores in stores as the table of a paper."""

from pathlib import Path

import click

from harness.cli.options import filters_of, label_option, score_filters
from harness.cli.output import put
from harness.errors import UsageError
from harness.types.names import split_names


@click.command(
    epilog="A mean is bold only if it is decided: if the interval of its difference to every other row of its group "
    "lies above zero. A rule divides what is not comparable. The LaTeX needs booktabs and graphicx."
)
@click.argument("stores", nargs=-1, type=click.Path(path_type=Path), metavar="[STORE]...")
@click.option("--rows", type=click.Choice(["pool", "method"]), default="pool", show_default=True,
              help="What stands in the rows.")  # fmt: skip
@score_filters
@click.option("--score-on", type=click.Choice(["test", "validation"]), default="test", show_default=True,
              help="Images on which students were scored.")  # fmt: skip
@click.option("--metric", metavar="NAME", default="accuracy", show_default=True,
              help="What is shown: the accuracy, or any metric of the students.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["latex", "markdown", "csv"]), default="latex", show_default=True,
              help="Output format; csv: unrounded numbers.")  # fmt: skip
@click.option("--caption", metavar="TEXT", help="Caption. [what the numbers have in common]")
@click.option("--reference", metavar="TEXT", help="Label of the table in LaTeX, for \\ref. [tab:ddbench-ROWS]")
@label_option
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Output file. [stdout]")
def table(
    stores: tuple[Path, ...],
    rows: str,
    score_on: str,
    metric: str,
    form: str,
    caption: str | None,
    reference: str | None,
    label: tuple[str, ...],
    output: Path | None,
    **only: tuple[str, ...],
) -> None:
    """Print the scores in STOREs as a paper shows them, architectures in columns. [./ddbench-store]

    \b
    ddbench table --rows pool --evaluator plain
    ddbench table --rows method --format markdown --label 'ours=main-similar[warmup=500]'
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.report.comparing.arm_labels import with_labels
    from harness.report.scores import read_scores
    from harness.report.tables.paper_table import PaperTable, as_csv, as_latex, as_markdown

    if reference and (form != "latex" or not reference.isprintable() or set(reference) & set("{}\\%#&$~^_ ,")):
        raise UsageError(f"--reference {reference!r} is for --format latex, of letters, digits, : and -")
    scores = with_labels(read_scores(stores or (Path("ddbench-store"),)), split_names(label))
    content = PaperTable(scores, rows, filters_of(only), score_on, metric)
    if form == "latex":
        text = as_latex(content, caption, reference or "")
    else:
        text = as_markdown(content, caption) if form == "markdown" else as_csv(content)
    if output is None:
        click.echo(text, nl=False)
    else:
        put(output, text)
