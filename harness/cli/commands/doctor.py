"""``ddbench doctor``: check that everything a run needs is installed and works."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import click

from harness.cli.checkup import Check, disks, libraries, machine, plugin_health
from harness.cli.group import VERBS
from harness.cli.output import print_json, print_table


@click.command(help=VERBS["doctor"].summary)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("ddbench-store"),
    show_default=True,
    help="Store whose folder is checked; nothing is written there.",
)
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, store: Path) -> None:
    """Print a row for each check; exit status 1 if something is broken."""
    examinations: list[Callable[[], list[Check]]] = [libraries, machine, lambda: disks(store), plugin_health]
    checks = [check for examine in examinations for check in _surviving(examine)]
    healthy = all(check.status != "broken" for check in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        print_table(("what", "status", "detail"), [(c.name, c.status, c.detail) for c in checks])
        click.echo("\nNo problems." if healthy else "\nSome checks failed: see the rows above.")
    ctx.exit(0 if healthy else 1)


def _surviving(examine: Callable[[], list[Check]]) -> list[Check]:
    """Return the checks of an examination; if it raises, for instance because torch is broken, a failed check."""
    try:
        return examine()
    # A broken torch fails at import in many ways; the report must be printed all the same.
    except Exception as error:
        return [Check("examination", "broken", f"{type(error).__name__}: {error}")]
