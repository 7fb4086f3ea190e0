"""The command reference as Markdown, rendered from the commands and the components themselves.

``python -m harness.cli.reference > mpdd_plugins/COMMANDS.md`` writes the page; a test checks it.
"""

import re
from collections.abc import Iterator, Sequence

import click

from harness.cli.details import describe
from harness.cli.group import cli
from harness.plugins.discovery import plugins
from harness.plugins.registry import OWN, Entry

_HEAD = """\
# Commands and components

Rendered from the code by `python -m harness.cli.reference > mpdd_plugins/COMMANDS.md`; a test checks that it is up to
date. `ddbench COMMAND --help` prints the same for one command. `ddbench methods show NAME` and its like print the same
for one component, also of an installed plugin. A value in brackets is the default.
"""
_COMPONENTS = """\
## Components

A component is written as its name, with the options that differ from the defaults in brackets: `dc[lr_img=0.01]`. A
data set may set other defaults; `ddbench datasets show NAME` lists them. `auto` leaves a value to the component.
"""
_LISTINGS = {
    "method": "methods",
    "pool": "pools",
    "parametrisation": "parametrisations",
    "evaluator": "evaluators",
    "architecture": "architectures",
    "dataset": "datasets",
    "format": "formats",
    "report": "reports",
    "executor": "executors",
    "tracker": "trackers",
    "metric": "metrics",
}
"""By kind of component, the command that lists it."""


def render_reference() -> str:
    """Render the page: every command with its options, then every component that comes with ddbench."""
    # With the command's own settings, because it remembers the help option of the first context that asks for it.
    context = click.Context(cli, info_name="ddbench", **cli.context_settings)
    blocks = [_HEAD, *_command_blocks(cli, context), _COMPONENTS]
    for kind, listing in _LISTINGS.items():
        blocks.append(f"### {listing.capitalize()}\n")
        for entry in plugins().registry.of_kind(kind):
            # The page describes what this repository holds, whatever else is installed beside it.
            if entry.provider == OWN:
                blocks += _component_blocks(entry)
    return "\n".join(blocks)


def _command_blocks(command: click.Command, context: click.Context) -> Iterator[str]:
    """Render a command, and after it the commands that it groups."""
    yield f"{'##' if context.parent is None else '###'} `{context.command_path}`\n"
    arguments = [_argument_words(each) for each in command.params if isinstance(each, click.Argument)]
    is_group = isinstance(command, click.Group)
    words = [context.command_path, "[OPTION]...", *arguments, *(["COMMAND [ARGUMENT]..."] if is_group else [])]
    yield f"```text\n{' '.join(words)}\n```\n"
    yield from _paragraphs(command.help or "")
    options = [_option_line(each) for each in command.params if isinstance(each, click.Option)]
    if options:
        yield "\n".join(options) + "\n"
    yield from _paragraphs(command.epilog or "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            assert member, "a group knows the commands that it lists"
            yield from _command_blocks(member, click.Context(member, info_name=name, parent=context))


def _argument_words(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    # A metavar that repeats, such as "[STORE]...", says so itself.
    return name if name.endswith("...") or argument.nargs == 1 else f"{name}..."


def _option_line(option: click.Option) -> str:
    """Render an option as a list item."""
    # From the declaration, not as click prints it in --help: that differs between versions of click.
    words = ", ".join([*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" {option.metavar or _choices(option.type) or option.type.name.upper()}"
    default = f" [{_default_words(option.default)}]" if option.show_default else ""
    return f"* `{words}{value}`: {_escaped(option.help or '')}{default}"


def _choices(kind: object) -> str:
    return "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else ""


def _default_words(default: object) -> str:
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in paragraph.splitlines()]
        # A paragraph after a backspace character is printed by click line by line.
        if lines and lines[0] == "\b":  # with which click keeps lines as they are: they are examples
            yield "\n".join(["```sh", *lines[1:], "```\n"])
        elif any(lines):
            yield f"{_escaped(' '.join(lines))}\n"


def _component_blocks(entry: Entry) -> Iterator[str]:
    """Render a component with a table of its options, and the taps of an architecture at its default options."""
    yield f"#### `{entry.name}`\n"
    yield f"{_escaped(entry.summary)}\n"
    options = list(entry.load().Options.describe())
    if options:
        columns = ("name", "type", "default", "meaning", "source")
        rows = [
            [f"`{row['name']}`", row["type"], f"`{row['default']}`", _escaped(row["meaning"]), _escaped(row["source"])]
            for row in options
        ]
        yield "\n".join(
            [_table_row(("option", *columns[1:])), _table_row(["---"] * len(columns)), *map(_table_row, rows)]
        )
        yield ""
    # Of architectures; those of torchvision depend on the model, which has no default.
    if entry.kind == "architecture" and not any(row["default"] == "required" for row in options):
        taps = describe(entry.kind, entry.name, plugins().registry)["taps"]
        yield f"Taps: {', '.join(f'`{tap}`' for tap in taps)}.\n"


def _table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _escaped(text: str) -> str:
    """Escape what Markdown would take for markup, outside of code in backticks."""
    # Every second part is code, in which Markdown takes nothing for markup.
    parts = text.split("`")
    return "`".join(part if index % 2 else re.sub(r"([*<>])", r"\\\1", part) for index, part in enumerate(parts))


if __name__ == "__main__":
    click.echo(render_reference(), nl=False)
