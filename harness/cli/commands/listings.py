"""For each kind of component, a list and ``show NAME``."""

from typing import Any, NoReturn

import click

from harness.cli.group import VERBS
from harness.cli.output import print_json, print_table
from harness.cli.usable_plugins import found_plugins
from harness.plugins.registry import Entry, Registry

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _KindGroup(click.Group):
    """Lists a kind when it is called alone; its one verb is ``show``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find ``show``, or say how to write it."""
        if not args[0].startswith("-") and args[0] not in self.commands:
            _no_show(ctx, args[0])
        return super().resolve_command(ctx, args)


def _no_show(ctx: click.Context, word: str) -> NoReturn:
    raise click.UsageError(f"there is no verb {word!r}: write `ddbench {ctx.info_name} show NAME`", ctx)


def _listing(kind: str, verb: str) -> click.Group:
    """The group of commands for a kind."""

    @click.group(verb, cls=_KindGroup, invoke_without_command=True, help=VERBS[verb].summary)
    @_json
    @click.pass_context
    def group(ctx: click.Context, as_json: bool) -> None:
        ctx.obj = as_json
        if ctx.invoked_subcommand is None:
            _print_list(kind, as_json)

    @group.command("show", help=f"Show what NAME is, with every option: '{kind}' or '{kind}[option=value]'.")
    @click.argument("name")
    @_json
    @click.pass_obj
    def show(as_json_before: bool, name: str, as_json: bool) -> None:
        from harness.cli.details import describe, print_details  # these import torch

        details = describe(kind, name, found_plugins().registry)
        print_json(details) if as_json or as_json_before else print_details(details)

    return group


def _print_list(kind: str, as_json: bool) -> None:
    registry = found_plugins().registry
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
    """The name by which an entry can be asked for: with its distribution, where two claim it."""
    return f"{entry.provider}:{entry.name}" if registry.ambiguous(entry) else entry.name


methods = _listing("method", "methods")
pools = _listing("pool", "pools")
evaluators = _listing("evaluator", "evaluators")
architectures = _listing("architecture", "architectures")
datasets = _listing("dataset", "datasets")
reports = _listing("report", "reports")
executors = _listing("executor", "executors")
