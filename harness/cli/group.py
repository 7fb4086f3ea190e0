"""The verbs of ``ddbench``, each imported only when it is used: ``ddbench --help`` costs no import of torch."""

import importlib
import os
from typing import Any, NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from harness.cli.errors import one_line_errors, version_of
from harness.errors import did_you_mean


class Verb(NamedTuple):
    """The module of a command in `harness.cli.commands` with the name there, and what the command does."""

    target: str
    summary: str


VERBS = {
    "run": Verb("run:run", "Distil data sets, train students on the results and print the table."),
    "eval": Verb("eval:evaluate", "Train and score students on a distilled set that lies in a file."),
    "compare": Verb("compare:compare", "Compare what stores hold: differences, intervals and tests."),
    "convert": Verb("convert:convert", "Write a distilled set in another format, or out of a store."),
    "results": Verb("results:results", "List, show, check, pack and clean what lies in a store."),
    "status": Verb("status:status", "Tell how the runs of a store stand, and who works on what."),
    "plugins": Verb("plugins:plugins", "List the plugins that were found, check one, or start a new one."),
    "methods": Verb("listings:methods", "List the distillation methods, or show one."),
    "pools": Verb("listings:pools", "List the model-pool policies, or show one."),
    "evaluators": Verb("listings:evaluators", "List the evaluators, or show one."),
    "architectures": Verb("listings:architectures", "List the architectures, or show one."),
    "datasets": Verb("listings:datasets", "List the data sets, or show one."),
    "reports": Verb("listings:reports", "List the reports, or show one."),
    "executors": Verb("listings:executors", "List what can start the work of a run, or show one."),
    "report": Verb("report:report", "Write a page, or another report, on the results in stores."),
    "prepare": Verb("prepare:prepare", "Fetch and decode data sets ahead of a run."),
    "doctor": Verb("doctor:doctor", "Tell versions, devices, disk space and the health of plugins."),
}


class LazyGroup(click.Group):
    """A group whose commands stand in `VERBS`; it also ends every command as `harness.cli.errors` says."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of a verb."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name].target.partition(":")
        command: click.Command = getattr(importlib.import_module(f"harness.cli.commands.{module}"), attribute)
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401
    ) -> click.Context:
        """Read the options before the verb; what is wrong with them is one line."""
        with one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest verbs."""
        if not args[0].startswith("-") and args[0] not in VERBS:
            _no_such_verb(ctx, args[0])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs with their summaries from the table, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, summary) for verb, (_, summary) in VERBS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete verbs from the table, importing none of them."""
        verbs = [
            CompletionItem(verb, help=about.summary) for verb, about in VERBS.items() if verb.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; errors become one line and an exit status."""
        with one_line_errors():
            return super().invoke(ctx)


def _no_such_verb(ctx: click.Context, word: str) -> NoReturn:
    raise click.UsageError(f"there is no verb {word!r}: {did_you_mean(word, VERBS)}", ctx)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"ddbench {version_of('ddbench')} (torch {version_of('torch')})")
        ctx.exit()


def _leave_out_plugins(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Say so in the environment, which the processes of a run inherit; a caller in this process has it back."""
    if not wanted or ctx.resilient_parsing:
        return
    from harness.plugins.discovery import NONE, VARIABLE, plugins

    before = os.environ.get(VARIABLE)

    def restore() -> None:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
        plugins.cache_clear()

    os.environ[VARIABLE] = NONE
    plugins.cache_clear()
    ctx.call_on_close(restore)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the versions of ddbench and torch.",
)
@click.option(
    "--no-plugins",
    is_flag=True,
    expose_value=False,
    callback=_leave_out_plugins,
    help="Load no plugin but what comes with ddbench, in the processes of a run too; DDBENCH_PLUGINS=NAME,... loads "
    "those of these distributions.",
)
def cli() -> None:
    """Benchmark dataset distillation: any method with any model pool and any evaluator, each a plugin.

    The main job is `ddbench run --method dc --pool main-similar`. Names take options in brackets, as in
    'main-similar[main=0.8]'; `ddbench pools show main-similar` tells which.
    """
