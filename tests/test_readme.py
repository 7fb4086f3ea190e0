"""What the README and the page on usage show is true."""

import re
import shlex
import types
from pathlib import Path

import click
import pytest

from harness.cli.group import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
USAGE = (ROOT / "USAGE.md").read_text()
SHOWN = [*README.splitlines(), *USAGE.splitlines()]
COMMANDS = sorted({line.partition("  #")[0].strip() for line in SHOWN if line.startswith("ddbench ")})


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_shown_is_understood(line, monkeypatch):
    """Every word is taken by a verb; none is carried out."""
    understood = []
    monkeypatch.setattr(click.Command, "invoke", lambda self, context: understood.append(context.command_path))
    words = shlex.split(line)
    cli.main(words[1:], prog_name=words[0], standalone_mode=False)
    assert understood[-1].split() == words[: len(understood[-1].split())]


def test_ci_runs_the_command_that_the_readme_shows():
    shown = [line for line in README.splitlines() if "-m pytest" in line]
    assert len(shown) == 1
    assert "grep -m 1 -- '-m pytest' README.md" in (ROOT / ".ci" / "run").read_text()


def test_the_pool_shown_is_a_whole_plugin():
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "hookimpl" in block]
    plugin = types.ModuleType("my_pools")
    exec(code, vars(plugin))
    registered = []
    plugin.register_pools(lambda *entry: registered.append(entry))
    ((name, target, _),) = registered
    cls = getattr(plugin, target.partition(":")[2])
    pool = cls(cls.Options())
    assert name == "alternating"
    assert [dict(pool.distribution(i)) for i in range(3)] == [{"convnet": 1.0}, {"resnet18": 1.0}, {"convnet": 1.0}]
