"""``ddbench convert``: convert a distilled set to another format, or export one from a store."""

from pathlib import Path

import click

from harness.cli.options import ListsFormats, reading_of, reading_options


@click.command(
    cls=ListsFormats,
    epilog="`ddbench formats` lists the formats, and `ddbench formats show NAME` says whether one is written. What OUT "
    "cannot hold is said. No code in a file is executed.",
)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", metavar="FORMAT", help="Format of OUT. [from its suffix; images if it has none]")
@reading_options
@click.option(
    "--dataset",
    "-d",
    metavar="NAME",
    help="Data set that supplies what IN lacks: normalisation and class names. Known data sets such as cifar10 need no "
    "images for this.",
)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    help="Store, as a folder or packed, in which IN is the beginning of a key. [./ddbench-store]",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
def convert(
    source: str,
    target: Path,
    to: str | None,
    entry: int | None,
    format: str | None,
    step_size: float | None,
    dataset: str | None,
    store: Path | None,
    force: bool,
) -> None:
    """Convert the distilled set IN (a file, a folder, or the beginning of a key in a store) to OUT.

    \b
    ddbench convert res_DC_CIFAR10_ConvNet_1ipc.pt dc.safetensors --dataset cifar10
    ddbench convert 3f2a pictures --store ddbench-store
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.api.conversion import convert as convert_set
    from harness.plugins.registry import stdout_to_stderr

    with stdout_to_stderr():
        reading = reading_of(entry, format, step_size)
        conversion = convert_set(source, target, to=to, reading=reading, dataset=dataset, store=store, force=force)
    for note in conversion.notes:
        click.echo(note)
    click.echo(str(conversion))
