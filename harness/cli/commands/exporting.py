"""``ddbench results export``: the results of stores for other programs."""

from pathlib import Path

import click

from harness.cli.errors import warn
from harness.cli.options import filters_of, score_filters
from harness.cli.output import put
from harness.errors import UsageError


@click.command(
    "export",
    epilog="The schema of --json is in the package: harness/report/exports/grid_summary.schema.json. --parquet "
    "needs the package polars: pip install 'ddbench[polars]'.",
)
@click.argument("stores", nargs=-1, type=click.Path(path_type=Path), metavar="[STORE]...")
@click.option("--csv", "form", flag_value="csv", help="A line for each student.")
@click.option("--parquet", "form", flag_value="parquet", help="The same as a Parquet file; needs --output.")
@click.option("--json", "form", flag_value="json", help="Means and spreads by arm and architecture, for leaderboards.")
@score_filters
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Output file. [stdout]")
def export(stores: tuple[Path, ...], form: str | None, output: Path | None, **only: tuple[str, ...]) -> None:
    """Export the scores in STOREs: a row for each student, or a summary of the grid. [./ddbench-store]

    Names are whole, without labels; accuracies are fractions.

    \b
    ddbench results export --csv -o students.csv
    ddbench results export --json --method dc benchmarks/paper/store.tar.xz
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.report.comparing.comparison import without_duplicates
    from harness.report.exports.grid_summary import summary_json
    from harness.report.exports.student_rows import students_csv, students_parquet
    from harness.report.scores import read_scores
    from harness.report.selection import selected_scores

    if form is None:
        raise UsageError("say what to export: --csv, --parquet or --json")
    if form == "parquet" and output is None:
        raise UsageError("a Parquet file is not text: name it by --output")
    stored = read_scores(stores or (Path("ddbench-store"),))
    scores, notes = without_duplicates(stored.scores)
    scores = selected_scores(scores, filters_of(only))
    for note in (*stored.notes, *notes):
        warn(note)
    if form == "parquet":
        assert output is not None, "checked above"
        put(output, students_parquet(scores))
        return
    text = students_csv(scores) if form == "csv" else summary_json(scores, stored.stores)
    if output is None:
        click.echo(text, nl=False)
    else:
        put(output, text)
