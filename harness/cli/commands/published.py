"""``ddbench published``: list the published sets that ``ddbench eval --as`` knows."""

import dataclasses

import click

from harness.cli.output import print_json, print_table
from harness.cli.usable_plugins import usable_published_sets
from harness.report.tables.wording import percent
from harness.types.formats.published_set import PublishedSet


@click.command(
    epilog="A plugin adds sets by the hook `published_sets`, which names a TOML file. The files themselves are their "
    "authors', and are not downloaded."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with checksums and notes.")
def published(as_json: bool) -> None:
    """List the published sets: file, evaluator, stated accuracy and source.

    \b
    ddbench eval res_DC_CIFAR10_ConvNet_1ipc_3000.pt --as dc/cifar10/ipc1
    """  # noqa: D301 - the backspace is how click knows lines to keep
    sets = usable_published_sets().sets.values()
    if as_json:
        print_json([dataclasses.asdict(each) for each in sets])
        return
    rows = [(each.name, each.file, each.evaluator, _accuracy(each), each.source) for each in sets]
    print_table(("name", "file", "evaluator", "accuracy in %", "source"), rows)


def _accuracy(published: PublishedSet) -> str:
    return ", ".join(f"{name} {percent(stated.mean)}" for name, stated in published.stated.items())
