"""``ddbench publish``: share a set on the Hugging Face hub; ``published``: list the sets of others that are known."""

import dataclasses
from pathlib import Path

import click

from harness.cli.options import reading_of, reading_options
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


@click.command(
    epilog="It needs `pip install 'ddbench[hub]'`, and a token with write access: `hf auth login`, or HF_TOKEN. "
    "`ddbench convert KEY FOLDER` writes the same card without a network."
)
@click.argument("source", metavar="KEY|FILE")
@click.argument("repository", metavar="REPO")
@reading_options
@click.option("--dataset", "-d", metavar="NAME", help="Data set that supplies what FILE lacks.")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Store, as a folder or packed, that holds KEY or the students on FILE. [./ddbench-store]",
)
@click.option(
    "--license",
    "licence",
    metavar="ID",
    help="Licence of the source data, as the hub lists them. [that of the data set, if known]",
)
@click.option("--private", is_flag=True, help="Make REPO private if it is new.")
def publish(
    source: str,
    repository: str,
    entry: int | None,
    format: str | None,
    step_size: float | None,
    dataset: str | None,
    store: Path | None,
    licence: str | None,
    private: bool,
) -> None:
    """Share a distilled set as the data set REPO (OWNER/NAME) of the Hugging Face hub.

    What is uploaded: the set's file, its picture, and a card made from its provenance and from the students in the
    store, with the command that evaluates it. No path, no host's and no user's name leaves this machine.

    \b
    ddbench publish 3f2a jane/dm-digits
    ddbench eval hf:jane/dm-digits --dataset digits --evaluator plain
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.api.hub import HubName
    from harness.api.publishing import publish as publish_set
    from harness.plugins.registry import stdout_to_stderr

    with stdout_to_stderr():
        name, reading = HubName.parse(repository), reading_of(entry, format, step_size)
        done = publish_set(
            source, name, reading=reading, dataset=dataset, store=store, private=private, licence=licence
        )
    for note in done.notes:
        click.echo(note)
    click.echo(str(done))


def _accuracy(published: PublishedSet) -> str:
    return ", ".join(f"{name} {percent(stated.mean)}" for name, stated in published.stated.items())
