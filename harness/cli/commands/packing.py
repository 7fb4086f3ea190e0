"""``ddbench results pack`` and ``unpack``: pack a store into one file, and unpack it."""

from pathlib import Path

import click

from harness.cli.errors import warn
from harness.cli.options import filters_of, score_filters
from harness.cli.output import format_size
from harness.errors import UsageError
from harness.types.plurals import counted


@click.command(
    "pack",
    epilog="`compare`, `report`, `convert`, `results list`, `show` and `verify` accept FILE instead of a store. The "
    "filters select scores as in `ddbench compare`, together with the sets, teachers and choices that they depend on. "
    "Logs of failures and experts belong to no score, and are left out if there is a filter.",
)
@click.argument("store", metavar="STORE", type=click.Path(path_type=Path))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--without-sets",
    is_flag=True,
    help="Leave out the tensors and pictures of sets and artifacts, and real images, but keep all records.",
)
@click.option("--without-artifacts", is_flag=True, help="Leave out teachers and experts, which a run computes again.")
@score_filters
@click.option("--force", is_flag=True, help="Replace FILE if it exists; never a folder.")
def pack(
    store: Path, file: Path, without_sets: bool, without_artifacts: bool, force: bool, **only: tuple[str, ...]
) -> None:
    """Pack STORE, or a part of it, into one compressed FILE. Equal content always gives equal bytes.

    \b
    ddbench results pack ddbench-store store.tar.xz
    ddbench results pack ddbench-store scores.tar.xz --without-sets --method dc --pool single
    """  # noqa: D301 - click keeps the lines of a paragraph that begins with a backspace
    from harness.report.selection import selected_cells
    from harness.store.packing import Selection, open_store
    from harness.store.packing import pack as write_packed

    if not force and (file.exists() or file.is_symlink()):
        raise UsageError(f"{file} is there already: choose another name, or replace it with --force")
    filters = {axis: names for axis, names in filters_of(only).items() if names}
    keys = None
    if filters:
        keys, notes = selected_cells(store, filters)
        for note in notes:
            warn(note)
    selection = Selection(keys, sets=not without_sets, artifacts=not without_artifacts)
    packed = write_packed(open_store(store, warn), file, selection)
    without = f", without {counted(packed.left_out, 'file')}" if packed.left_out else ""
    click.echo(f"{file}: {counted(packed.cells, 'cell')}{without}, {format_size(packed.size)}")


@click.command("unpack")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("store", metavar="STORE", type=click.Path(path_type=Path))
def unpack(file: Path, store: Path) -> None:
    """Unpack FILE into the folder STORE, and check each file against its digest. Runs can then add to it."""
    from harness.store.packing import unpack as write_folder

    click.echo(f"{store}: {counted(write_folder(file, store), 'file')}")
