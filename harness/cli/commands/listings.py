"""``ddbench methods``, ``ddbench pools`` and so on: list the components of a kind, or show one."""

from typing import Any, NoReturn

import click

from harness.cli.group import VERBS
from harness.cli.output import print_json, print_table
from harness.cli.usable_plugins import usable_plugins
from harness.plugins.registry import Entry, Registry

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_NOUNS = {"dataset": "data set"}
"""How kinds of components are called in sentences, if not by their own word."""


class _KindGroup(click.Group):
    """A group that lists the components of its kind when it is called without its only command, ``show``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find ``show``, or fail with the way to write it."""
        if not args[0].startswith("-") and args[0] not in self.commands:
            _no_show(ctx, args[0])
        return super().resolve_command(ctx, args)


def _no_show(ctx: click.Context, word: str) -> NoReturn:
    group = f"ddbench {ctx.info_name}"
    raise click.UsageError(f"there is no command {word!r}: `{group}` lists all, and `{group} show NAME` shows one", ctx)


def _listing(kind: str, verb: str) -> click.Group:
    """Create the group of commands for a kind."""

    @click.group(verb, cls=_KindGroup, invoke_without_command=True, help=VERBS[verb].summary)
    @_json
    @click.pass_context
    def group(ctx: click.Context, as_json: bool) -> None:
        ctx.obj = as_json
        if ctx.invoked_subcommand is None:
            _print_list(kind, as_json)

    @group.command(
        "show", help=f"Show the {_NOUNS.get(kind, kind)} NAME, or NAME[option=value,...], with all its options."
    )
    @click.argument("name")
    @_json
    @click.pass_obj
    def show(as_json_before: bool, name: str, as_json: bool) -> None:
        from harness.cli.details import describe, print_details  # these import torch

        details = describe(kind, name, usable_plugins().registry)
        print_json(details) if as_json or as_json_before else print_details(details)

    return group


def _print_list(kind: str, as_json: bool) -> None:
    registry = usable_plugins().registry
    entries = registry.of_kind(kind)
    if as_json:
        print_json([_as_json(registry, entry) for entry in entries])
        return
    lines = [(shown_name(registry, e), e.summary, f"{e.provider} {e.provider_version}".rstrip()) for e in entries]
    print_table(("name", "summary", "provider"), lines)


def _as_json(registry: Registry, entry: Entry) -> dict[str, Any]:
    return {
        "name": shown_name(registry, entry),
        "summary": entry.summary,
        "provider": entry.provider,
        "provider_version": entry.provider_version,
    }


def shown_name(registry: Registry, entry: Entry) -> str:
    """Return the name by which a component can be asked for: with its distribution if several plugins claim it."""
    return f"{entry.provider}:{entry.name}" if registry.ambiguous(entry) else entry.name


methods = _listing("method", "methods")
pools = _listing("pool", "pools")
parametrisations = _listing("parametrisation", "parametrisations")
evaluators = _listing("evaluator", "evaluators")
architectures = _listing("architecture", "architectures")
datasets = _listing("dataset", "datasets")
formats = _listing("format", "formats")
reports = _listing("report", "reports")
executors = _listing("executor", "executors")
trackers = _listing("tracker", "trackers")
metrics = _listing("metric", "metrics")
