"""``ddbench plugins``: list the installed plugins, check one, or create a new one."""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.group import VERBS
from harness.cli.output import print_json, print_table
from harness.errors import PluginError, UsageError, did_you_mean
from harness.plugins.discovery import GROUP, PluginRow, Plugins, entry_points, row_of
from harness.plugins.discovery import plugins as discover
from harness.plugins.registry import OWN
from harness.plugins.skeleton import KINDS, write_skeleton
from harness.plugins.trial import tried
from harness.types.plurals import counted

if TYPE_CHECKING:
    from harness.testing.checking import Checkable
    from harness.testing.contract import Outcome

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True, help=VERBS["plugins"].summary)
@_json
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """Print a row for each entry point; a broken plugin is a row with the reason, not an error."""
    ctx.obj = as_json
    if ctx.invoked_subcommand is not None:
        return
    rows = discover().rows
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
        return
    columns = ("name", "distribution", "version", "status", "reason", "hooks")
    lines = [(r.name, r.distribution, r.version, r.status, r.reason, ", ".join(r.hooks)) for r in rows]
    print_table(columns, lines)


@plugins.command()
@click.argument("name")
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@click.option("--traceback", is_flag=True, help="Print the traceback of each failed check.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    metavar="SECONDS",
    help="Maximum time for importing the plugin. [120]",
)
@_json
@click.pass_context
def check(
    ctx: click.Context, name: str, components: tuple[str, ...], traceback: bool, timeout: float, as_json: bool
) -> None:
    """Check that the components of plugin NAME fulfil their contracts.

    The plugin is first imported in a separate process, so that an import that never returns, or that ends the
    process, is reported as an error.

    Each COMPONENT is the name of one of its components, with options in brackets if needed: 'mine[share=0.2]'. Without
    any, all components are checked. Without options, a component is checked with its defaults, or if these would take
    minutes with the smaller ones that it declares. Exit code: 0 all checks passed, 1 some failed, 2 wrong usage.
    """
    # Before discovery imports all plugins into this process.
    _try_import(_candidate(name), timeout)
    installed = discover()
    row = _row(installed, name)
    from harness.compute.deferred_dynamo import defer_dynamo  # imports torch
    from harness.testing.checking import checkables

    defer_dynamo()  # as runs do: else the first optimiser imports torch's compiler, which takes seconds
    results: list[dict[str, object]] = []
    outcomes: list[Outcome] = []
    as_json = as_json or bool(ctx.obj)
    for checkable in checkables(installed, row.name, components):
        if not as_json:
            click.echo(f"{checkable.entry.kind} {checkable.name} ({checkable.entry.target})")
        for outcome in checkable.outcomes():
            outcomes.append(outcome)
            results.append(_as_json(checkable, outcome))
            if not as_json:
                _print(outcome, traceback)
    if as_json:
        print_json(results)
    else:
        click.echo(_summary(row, outcomes, len({(result["kind"], result["name"]) for result in results})))
    ctx.exit(1 if any(outcome.status == "FAILED" for outcome in outcomes) else 0)


@plugins.command()
@click.argument("name")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    default=("pool",),
    show_default=True,
    help="Kind of component that the plugin provides; repeatable.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder in which the plugin's folder is created. [.]",
)
def new(name: str, kinds: tuple[str, ...], into: Path) -> None:
    """Create a working plugin NAME with a test, to start from.

    The folder NAME holds a pyproject.toml, a module for each kind of component, and a test that runs the contracts.
    """
    written = write_skeleton(name, tuple(dict.fromkeys(kinds)), into)
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"next: pip install -e {shlex.quote(str(written[0].parent))} && ddbench plugins check {name}")


def _candidate(name: str) -> PluginRow:
    """Return the plugin of this name, or the only one of a distribution of this name, without importing it.

    Raises:
        UsageError: there is none, or a distribution has several.
    """
    return _chosen([row_of(point) for point in entry_points()], name)


def _row(installed: Plugins, name: str) -> PluginRow:
    """Return the loaded plugin of this name.

    Raises:
        PluginError: it is broken, disabled, or implements no hook.
    """
    row = _chosen(installed.rows, name)
    if row.status != "active" or not row.hooks:
        state = f" is {row.status}" if row.status != "active" else ""
        raise PluginError(f"plugin {row.name!r} of {row.distribution}{state}: {row.reason}")
    return row


def _chosen(all_rows: Sequence[PluginRow], name: str) -> PluginRow:
    rows = [row for row in all_rows if row.name == name] or [row for row in all_rows if row.distribution == name]
    if not rows:
        raise UsageError(_not_here(name, {row.name for row in all_rows}))
    # The name of a distribution stands for its plugin only if it has one.
    if len({row.name for row in rows}) > 1:
        raise UsageError(f"{name} has several plugins: name {' or '.join(row.name for row in rows)}")
    return rows[0]


def _not_here(name: str, known: Iterable[str]) -> str:
    """Explain why there is no plugin of this name: its package is not installed, or has none."""
    try:
        version = metadata.distribution(name).version
    except (metadata.PackageNotFoundError, ValueError):
        return f"there is no plugin {name!r}: {did_you_mean(name, known)} No package of that name is installed here"
    remedy = f"add [project.entry-points.{GROUP}] to its pyproject.toml and install it again"
    return f"the package {name} {version} is installed, but has no entry point in the group {GROUP!r}: {remedy}"


def _try_import(row: PluginRow, timeout: float) -> None:
    """Import a plugin in a separate process, and print its output there on stderr.

    Raises:
        PluginError: the import failed, ended the process or took too long.
    """
    # ddbench's own modules are imported already, and need no trial.
    if row.distribution == OWN:
        return
    trial = tried(row, timeout)
    if trial.printed:
        click.echo(f"output of its import:\n{_indented(trial.printed)}", err=True)
    if trial.failure:
        raise PluginError(f"plugin {row.name!r} of {row.distribution} is broken: {trial.failure}")


def _as_json(checkable: "Checkable", outcome: "Outcome") -> dict[str, object]:
    return {"kind": checkable.entry.kind, "name": checkable.name, **dataclasses.asdict(outcome)}


def _print(outcome: "Outcome", traceback: bool) -> None:
    detail = f": {' '.join(outcome.detail.split())}" if outcome.detail else ""
    click.echo(f"  {outcome.status:8}{outcome.check}{detail}")
    if traceback and outcome.trace:
        click.echo(_indented(outcome.trace.splitlines()), err=True)


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _summary(row: PluginRow, outcomes: Sequence["Outcome"], components: int) -> str:
    if not outcomes:
        return f"plugin {row.name!r} registers no components ({', '.join(row.hooks)}): there is nothing to check"
    return f"{counted(components, 'component')}: {', '.join(_counts(outcomes))}"


def _counts(outcomes: Sequence["Outcome"]) -> Iterator[str]:
    for status in ("ok", "FAILED", "skipped"):
        yield f"{sum(outcome.status == status for outcome in outcomes)} {status.lower()}"
