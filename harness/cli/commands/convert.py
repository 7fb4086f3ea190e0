"""``ddbench convert``: a distilled set from one format into another, or out of a store."""

from pathlib import Path

import click

from harness.cli.options import reading_of, reading_options


@click.command(
    epilog="Formats that are written: safetensors (ours) and npz, with everything; vico (.pt, hard labels); images (a "
    "folder CLASS/NNN.png, rounded to 8 bits, which tells its preprocessing). Nothing in a file is executed."
)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", metavar="FORMAT", help="Format of OUT. [by its suffix; a folder without one]")
@reading_options
@click.option(
    "--dataset",
    "-d",
    metavar="NAME",
    help="Tells what IN does not: normalisation and class names; of cifar10 and the like, no images are needed.",
)
@click.option("--store", type=click.Path(path_type=Path), help="IN begins a key in this store. [./ddbench-store]")
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
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
    """Write the distilled set IN, a file, a folder or the beginning of a key in a store, as OUT.

    \b
    ddbench convert res_DC_CIFAR10_ConvNet_1ipc.pt dc.safetensors --dataset cifar10
    ddbench convert 3f2a pictures --store ddbench-store
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.api.conversion import convert as carry_out
    from harness.plugins.registry import stdout_to_stderr

    with stdout_to_stderr():
        reading = reading_of(entry, format, step_size)
        made = carry_out(source, target, to=to, reading=reading, dataset=dataset, store=store, force=force)
    for note in made.notes:
        click.echo(note)
    click.echo(str(made))
