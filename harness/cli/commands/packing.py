"""``ddbench results pack`` and ``unpack``: a store in one file, and back."""

from pathlib import Path

import click

from harness.cli.errors import warn
from harness.cli.options import filters_of, score_filters
from harness.cli.output import size_told
from harness.errors import UsageError
from harness.types.plurals import counted


@click.command(
    "pack",
    epilog="`compare`, `report`, `convert`, `results list`, `show` and `verify` take FILE wherever they take a store. "
    "The filters choose scores as those of `ddbench compare` do; the sets, teachers and choices that these rest on go "
    "in too, and notes of failures and experts, which belong to no score, do not.",
)
@click.argument("store", metavar="STORE", type=click.Path(path_type=Path))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--without-sets", is_flag=True, help="Leave out the tensors and pictures of sets and artifacts; records stay."
)
@click.option("--without-artifacts", is_flag=True, help="Leave out teachers and experts, which a run makes again.")
@score_filters
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def pack(
    store: Path, file: Path, without_sets: bool, without_artifacts: bool, force: bool, **only: tuple[str, ...]
) -> None:
    """Write STORE, or a part of it, into one compressed FILE: the same content always gives the same bytes.

    \b
    ddbench results pack ddbench-store store.tar.xz
    ddbench results pack ddbench-store scores.tar.xz --without-sets --method dc --pool single
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.report.selection import selected_cells
    from harness.store.packing import Selection, open_store
    from harness.store.packing import pack as write_packed

    if not force and (file.exists() or file.is_symlink()):
        raise UsageError(f"{file} is there already: give another name, or --force to replace it")
    filters = {axis: names for axis, names in filters_of(only).items() if names}
    keys = None
    if filters:
        keys, notes = selected_cells(store, filters)
        for note in notes:
            warn(note)
    selection = Selection(keys, sets=not without_sets, artifacts=not without_artifacts)
    packed = write_packed(open_store(store, warn), file, selection)
    without = f", without {counted(packed.left_out, 'file')}" if packed.left_out else ""
    click.echo(f"{file}: {counted(packed.cells, 'cell')}{without}, {size_told(packed.size)}")


@click.command("unpack")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("store", metavar="STORE", type=click.Path(path_type=Path))
def unpack(file: Path, store: Path) -> None:
    """Write the packed FILE as the folder STORE, which runs can add to; each file is checked against its digest."""
    from harness.store.packing import unpack as write_folder

    click.echo(f"{store}: {counted(write_folder(file, store), 'file')}")
