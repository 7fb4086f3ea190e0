"""What the README shows is true."""

import re
import shlex
import types
from pathlib import Path

import pytest

from harness.cli.eval import evaluate
from harness.cli.listings import pools
from harness.cli.run import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [line.partition("  #")[0].strip() for line in README.splitlines() if line.startswith("ddbench ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_shown_is_understood(line):
    verb, *arguments = shlex.split(line)[1:]
    command = {"run": run, "eval": evaluate, "pools": pools}[verb]
    with command.make_context(verb, arguments) as context:
        assert context.params or arguments


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
