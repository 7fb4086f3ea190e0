"""The commands of ``ddbench``, each imported only when it is used: ``ddbench --help`` does not import torch."""

import importlib
import os
from typing import Any, NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from harness.cli.errors import one_line_errors, version_of
from harness.errors import did_you_mean


class Verb(NamedTuple):
    """A command: where it is defined in `harness.cli.commands` (``module:name``), and a summary of what it does."""

    target: str
    summary: str


VERBS = {
    "run": Verb("run:run", "Distil data sets, train students on the results and print the table."),
    "tune": Verb("tune:tune", "Search options of a method on a validation split, and score the best once on test."),
    "eval": Verb("eval:evaluate", "Train and score students on a distilled set that lies in a file."),
    "published": Verb("published:published", "List the published sets that `ddbench eval --as` knows."),
    "publish": Verb("published:publish", "Share a distilled set on the Hugging Face hub, with picture and card."),
    "compare": Verb("compare:compare", "Compare the results in stores: differences, confidence intervals and tests."),
    "table": Verb("table:table", "Print the results in stores as the table of a paper: LaTeX, Markdown or CSV."),
    "convert": Verb("convert:convert", "Convert a distilled set to another format, or export one from a store."),
    "results": Verb(
        "results:results", "List, show, verify, adopt, export, pack, unpack and clean up records of a store."
    ),
    "status": Verb("status:status", "Show the progress of the runs in a store, and which process works on which cell."),
    "plugins": Verb("plugins:plugins", "List the installed plugins, check one, or create a new one."),
    "methods": Verb("listings:methods", "List the distillation methods, or show one."),
    "pools": Verb("listings:pools", "List the model-pool policies, or show one."),
    "parametrisations": Verb("listings:parametrisations", "List what sets may be stored as, or show one way."),
    "evaluators": Verb("listings:evaluators", "List the evaluators, or show one."),
    "architectures": Verb("listings:architectures", "List the architectures, or show one."),
    "datasets": Verb("listings:datasets", "List the data sets, or show one."),
    "formats": Verb("listings:formats", "List the file formats of distilled sets, or show one."),
    "reports": Verb("listings:reports", "List the reports, or show one."),
    "executors": Verb("listings:executors", "List the executors, which start the work of a run, or show one."),
    "trackers": Verb("listings:trackers", "List the trackers, which show the course of distillations, or show one."),
    "metrics": Verb(
        "listings:metrics", "List what can be measured of students beside the accuracy, or show one metric."
    ),
    "report": Verb("report:report", "Write an HTML page, or another report, about the results in stores."),
    "prepare": Verb("prepare:prepare", "Download and decode data sets before a run."),
    "doctor": Verb("doctor:doctor", "Check versions, devices, disk space and plugins."),
}


class LazyGroup(click.Group):
    """The group of all commands in `VERBS`; errors of a command become one line and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of `VERBS`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
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
        """Parse the options before the command; an error is reported in one line."""
        with one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail with the most similar names."""
        if not args[0].startswith("-") and args[0] not in VERBS:
            _no_such_verb(ctx, args[0])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their summaries from `VERBS`, without importing any of them."""
        # click would import every command to read its short help.
        with formatter.section("Commands"):
            formatter.write_dl([(verb, summary) for verb, (_, summary) in VERBS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands from `VERBS`, without importing any of them."""
        verbs = [
            CompletionItem(verb, help=about.summary) for verb, about in VERBS.items() if verb.startswith(incomplete)
        ]
        # Not the method of Group, which would import every command.
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; errors become one line and an exit status."""
        with one_line_errors():
            return super().invoke(ctx)


def _no_such_verb(ctx: click.Context, word: str) -> NoReturn:
    raise click.UsageError(f"there is no command {word!r}: {did_you_mean(word, VERBS)}", ctx)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    # Resilient parsing is how shell completion parses half-written lines: it must print nothing.
    if wanted and not ctx.resilient_parsing:
        click.echo(f"ddbench {version_of('ddbench')} (torch {version_of('torch')})")
        ctx.exit()


def _leave_out_plugins(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Disable plugins through the environment, which the processes of a run inherit, until the command ends."""
    if not wanted or ctx.resilient_parsing:
        return
    from harness.plugins.discovery import NONE, VARIABLE, plugins

    before = os.environ.get(VARIABLE)

    # A caller in this process, such as a test, gets the environment and the cached plugins back.
    def restore() -> None:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
        plugins.cache_clear()

    os.environ[VARIABLE] = NONE
    # Plugins are found once for each process; they may have been found before the option was parsed.
    plugins.cache_clear()
    # In tests and notebooks, commands run within a process that goes on.
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
    help="Load only the plugins that come with ddbench, also in the processes of a run. The environment variable "
    "DDBENCH_PLUGINS=NAME,... loads those of the named distributions.",
)
def cli() -> None:
    """Benchmark dataset distillation: any method with any model pool and any evaluator, each a plugin.

    The main job is `ddbench run --method dc --pool main-similar`. Names take options in brackets, as in
    'main-similar[main=0.8]'; `ddbench pools show main-similar` lists them.
    """
