"""The command reference is what the commands and the components say."""

from pathlib import Path

import click
import pytest

from harness.cli.group import VERBS, cli
from harness.cli.reference import render_reference
from harness.plugins.discovery import plugins
from harness.plugins.registry import OWN

PAGE = Path(__file__).parents[2] / "mpdd_plugins" / "COMMANDS.md"


@pytest.fixture(scope="module")
def page():
    return render_reference()


def test_the_committed_page_is_what_the_code_renders(page):
    assert PAGE.read_text() == page, f"run `python -m harness.cli.reference > {PAGE.relative_to(PAGE.parents[1])}`"


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_is_there_with_all_its_options(page, verb):
    context = click.Context(cli, info_name="ddbench")
    command = cli.get_command(context, verb)
    members = [command, *command.commands.values()] if isinstance(command, click.Group) else [command]
    for member in members:
        path = f"ddbench {verb}" if member is command else f"ddbench {verb} {member.name}"
        section = page.split(f"### `{path}`\n")[1].split("\n##")[0]
        for parameter in member.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{path} {parameter.opts} has no help"
                assert f"* `{parameter.opts[0]}" in section


def test_every_component_is_there_with_all_its_options(page):
    entries = [entry for entry in plugins().registry.entries if entry.provider == OWN]
    assert len(entries) > 30
    for entry in entries:
        of_kind = page.split(f"### {entry.kind.capitalize()}s\n")[1].split("\n### ")[0]
        section = of_kind.split(f"#### `{entry.name}`\n")[1].split("\n####")[0]
        for option in entry.load().Options.describe():
            assert f"| `{option['name']}` | " in section


def test_examples_are_code_and_signs_are_no_markup(page):
    assert "```sh\nddbench run --method dc --pool main-similar\n" in page
    assert "\b" not in page
    assert "noise\\|real" in page, "a pipe does not end a cell of a table"
