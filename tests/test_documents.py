"""The project's documents name only what exists, and ARCHITECTURE.md has a line for every folder and file."""

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

import harness
from harness.cli.group import cli
from harness.plugins.registry import KINDS

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")
TEXTS = {name: (ROOT / name).read_text() for name in DOCUMENTS}
PATH = re.compile(
    r"`((?:harness|mpdd_plugins|tests|benchmarks|\.ci|\.github)/[\w./-]*|[A-Z]+\.(?:md|cff)|pyproject\.toml)`"
)
COMMAND = re.compile(r"`(ddbench(?: [a-z][\w-]*)+(?: --?[^`]*)?)`")
LINE = re.compile(r"^\| `([\w/.]+)` \| (.+) \|$", re.MULTILINE)


def paths_named(text):
    return sorted(set(PATH.findall(text)))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_that_a_document_names_exists(name):
    missing = [path for path in paths_named(TEXTS[name]) if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file_or_a_heading(name):
    headings = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
                for line in TEXTS[name].splitlines() if line.startswith("#")}  # fmt: skip
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("line", sorted({line for text in TEXTS.values() for line in COMMAND.findall(text)}))
def test_every_command_that_a_document_names_is_one(line):
    command: click.Command = cli
    context = click.Context(cli)
    for word in shlex.split(line)[1:]:
        if word.startswith("-"):
            options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            assert word.partition("=")[0] in {*options, "--help"}, line
        elif isinstance(command, click.Group):
            command = command.get_command(context, word)
            assert command is not None, line


def test_architecture_has_a_line_for_every_folder_and_module_and_for_nothing_else():
    section = TEXTS["ARCHITECTURE.md"].partition("## Every folder and file\n")[2].partition("\n## ")[0]
    named = [path for path, _ in LINE.findall(section)]
    modules = [path for package in ("harness", "mpdd_plugins") for path in (ROOT / package).rglob("*.py")]
    files = {str(path.relative_to(ROOT)) for path in modules if path.name != "__init__.py"}
    folders = {str(path.parent.relative_to(ROOT)) for path in modules}
    assert sorted(named) == sorted(files | folders)


def test_the_guide_names_every_public_name_once_for_who_needs_it():
    guide = (ROOT / "mpdd_plugins" / "README.md").read_text()
    section = guide.partition("## The public names\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (an? [\w ]+|everybody) \| (.+) \|$", section, re.MULTILINE)
    named = [name for _, names in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(named) == sorted(harness.__all__)
    assert len(rows) >= len(KINDS), "each kind of author has a row"


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (cited,) = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert project["version"] == harness.__version__ == cited
    assert f"## {harness.__version__}" in (ROOT / "CHANGELOG.md").read_text()
