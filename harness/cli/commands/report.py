"""``ddbench report``: write the results in stores as an HTML page or as another report."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.errors import report as report_error
from harness.cli.options import label_option
from harness.cli.output import put
from harness.cli.streams import write_bytes
from harness.cli.usable_plugins import usable_plugins
from harness.errors import UsageError
from harness.types.names import Name, parse_name, split_names

if TYPE_CHECKING:
    from harness.plugins.registry import Registry


@click.command(
    epilog="`ddbench reports` lists the reports, and `ddbench reports show NAME` the options of one. Exit code: 0 all "
    "written, 1 a report could not be written, 2 wrong usage."
)
@click.argument("stores", metavar="[STORE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--report", "-r", "names", multiple=True, metavar="NAME,...", help="Report to write; repeatable. [page]")
@click.option("--dataset", "-d", multiple=True, metavar="NAME,...", help="Only these data sets; repeatable.")
@click.option("--method", "-m", multiple=True, metavar="NAME,...", help="Only these methods; repeatable.")
@click.option("--pool", "-p", multiple=True, metavar="NAME,...", help="Only these pools; repeatable.")
@click.option("--evaluator", "-e", multiple=True, metavar="NAME,...", help="Only these evaluators; repeatable.")
@click.option(
    "--architecture", "-a", multiple=True, metavar="NAME,...", help="Only students of these architectures; repeatable."
)
@click.option("--metric", multiple=True, metavar="NAME,...", help="Metrics of the students to show beside the accuracy "
              "on the page; repeatable. [all, without their parts]")  # fmt: skip
@label_option
@click.option("--output", "-o", metavar="FILE", help="Output file; - for stdout. [./ddbench-NAME.SUFFIX]")
@click.option("--open", "opened", is_flag=True, help="Open the written file in the browser.")
def report(
    stores: tuple[Path, ...],
    names: tuple[str, ...],
    metric: tuple[str, ...],
    label: tuple[str, ...],
    output: str | None,
    opened: bool,
    **only: tuple[str, ...],
) -> None:
    """Write reports about the results in one or more STOREs. [./ddbench-store]

    The report page is a single HTML file that loads nothing from the network.

    \b
    ddbench report
    ddbench report first-store second-store --report page --output page.html
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.report.rendering import render_report, targets
    from harness.report.results import read_results

    registry = usable_plugins().registry
    reports = [registry.resolve("report", _named(name, metric, registry)) for name in split_names(names) or ("page",)]
    # Before the stores are read, which may take a while.
    files = targets(reports, output)
    filters = {axis: split_names(texts) for axis, texts in only.items()}
    results = read_results(stores or (Path("ddbench-store"),), registry, filters, split_names(label))
    failed = False
    for resolved, file in zip(reports, files, strict=True):
        try:
            content = render_report(resolved, results)
        except Exception as error:  # of any plugin: the other reports are still made
            report_error(error)
            failed = True
            continue
        # A report may be binary, such as a picture.
        if file is None:
            write_bytes(content)
            continue
        put(file, content)
        click.echo(f"{resolved}: {file} ({len(content) / 1e6:.1f} MB)")
        if opened:
            click.launch(str(file))
    if failed:
        sys.exit(1)


def _named(text: str, metrics: tuple[str, ...], registry: "Registry") -> Name:
    """Return the name of a report with the metrics that it is to show."""
    name = parse_name(text)
    if not metrics:
        return name
    if "metrics" not in registry.find("report", name.name).load().Options.fields_by_name():
        raise UsageError(f"--metric is for reports that show metrics, and {name.name} does not: leave it out")
    return name.with_defaults({"metrics": "+".join(split_names(metrics))})
