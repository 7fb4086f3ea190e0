"""``ddbench prepare``: download and decode data sets before a run."""

from pathlib import Path
from typing import Any

import click

from harness.cli.errors import message_for, report
from harness.cli.group import VERBS
from harness.cli.usable_plugins import usable_plugins
from harness.datasets.problems import data_root, make_problem
from harness.errors import DataError
from harness.plugins.registry import Resolved
from harness.types.dataset import Dataset
from harness.types.plurals import counted


@click.command(
    help=f"{VERBS['prepare'].summary}\n\nDATASET is the name of a data set, with options in brackets if it needs any."
)
@click.argument("names", metavar="DATASET...", nargs=-1, required=True)
@click.pass_context
def prepare(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Prepare every data set; continue after one that fails, but report wrong names before any work."""
    registry, root = usable_plugins().registry, data_root()
    # All names first: a typing error should not be found after hours of downloads.
    datasets = [registry.resolve("dataset", name) for name in names]
    failed = False
    for dataset in datasets:
        try:
            click.echo(_prepared(dataset, root))
        # The other data sets are still worth preparing.
        except Exception as error:
            message = message_for(error)
            if message is None:
                raise
            report(message)
            failed = True
    ctx.exit(2 if failed else 0)


def _prepared(dataset: Resolved[Dataset[Any]], root: Path) -> str:
    """Download, decode and check a data set, and describe it in one line."""
    try:
        dataset.make().prepare(root)
    except OSError as error:
        remedy = "set DDBENCH_DATA to another folder"
        raise DataError(f"{dataset} cannot be prepared in {root}: {error}; {remedy}") from error
    problem = make_problem(dataset, root=root)
    shape = "x".join(map(str, problem.shape))
    return (
        f"{dataset}: {len(problem.train):,} training and {counted(len(problem.score), 'test image')} of {shape} "
        f"in {counted(len(problem.classes), 'class', 'classes')}, ready in {root}"
    )
