"""``ddbench report``: what stores hold, as a page or in another form."""

import sys
from pathlib import Path

import click

from harness.cli.errors import report as tell
from harness.cli.output import put
from harness.cli.streams import write_bytes
from harness.cli.usable_plugins import found_plugins
from harness.types.names import split_names


@click.command(
    epilog="`ddbench reports` lists what there is, `ddbench reports show NAME` its options. Exit code: 0 all written, "
    "1 a report could not be made, 2 wrong usage."
)
@click.argument("stores", metavar="[STORE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--report", "-r", "names", multiple=True, metavar="NAME,...", help="Report; repeatable. [page]")
@click.option("--dataset", "-d", multiple=True, metavar="NAME,...", help="Only these data sets; repeatable.")
@click.option("--method", "-m", multiple=True, metavar="NAME,...", help="Only these methods; repeatable.")
@click.option("--pool", "-p", multiple=True, metavar="NAME,...", help="Only these pools; repeatable.")
@click.option("--evaluator", "-e", multiple=True, metavar="NAME,...", help="Only these evaluators; repeatable.")
@click.option("--architecture", "-a", multiple=True, metavar="NAME,...", help="Only these students; repeatable.")
@click.option("--output", "-o", metavar="FILE", help="File to write, - for stdout. [./ddbench-NAME.SUFFIX]")
@click.option("--open", "opened", is_flag=True, help="Open what was written in the browser.")
def report(
    stores: tuple[Path, ...],
    names: tuple[str, ...],
    output: str | None,
    opened: bool,
    **only: tuple[str, ...],
) -> None:
    """Write reports on the results in one or more STOREs [./ddbench-store].

    The page is one HTML file that needs no network.

    \b
    ddbench report
    ddbench report first-store second-store --report page --output page.html
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.report.rendering import rendered, targets
    from harness.report.results import read_results

    registry = found_plugins().registry
    reports = [registry.resolve("report", name) for name in split_names(names) or ("page",)]
    files = targets(reports, output)
    filters = {axis: split_names(given) for axis, given in only.items()}
    results = read_results(stores or (Path("ddbench-store"),), registry, filters)
    failed = False
    for resolved, file in zip(reports, files, strict=True):
        try:
            content = rendered(resolved, results)
        except Exception as error:  # of any plugin: the other reports are still made
            tell(error)
            failed = True
            continue
        if file is None:
            write_bytes(content)
            continue
        put(file, content)
        click.echo(f"{resolved}: {file} ({len(content) / 1e6:.1f} MB)")
        if opened:
            click.launch(str(file))
    if failed:
        sys.exit(1)
