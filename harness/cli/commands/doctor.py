"""``ddbench doctor``: whether everything that a run needs is there and works."""

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
    help="The store whose folder is examined; nothing is written there.",
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
        click.echo("\nAll is well." if healthy else "\nSomething is broken: see the rows above.")
    ctx.exit(0 if healthy else 1)


def _surviving(examine: Callable[[], list[Check]]) -> list[Check]:
    """What an examination finds; if it fails itself (say because torch cannot be imported), that is a finding too."""
    try:
        return examine()
    except Exception as error:
        return [Check("examination", "broken", f"{type(error).__name__}: {error}")]
