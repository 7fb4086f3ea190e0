import json

import pytest
import toy_plugins
from click.testing import CliRunner
from fake_distributions import distribution

from harness.cli.group import cli

__all__ = ["distribution"]


@pytest.fixture
def toys():
    """The plugin of `toy_plugins` is there."""
    with toy_plugins.registered():
        yield


@pytest.fixture
def ddbench():
    """Run a command in this process; what it gives has `exit_code`, `stdout` and `stderr`."""

    def ddbench(*arguments):
        return CliRunner().invoke(cli, arguments, prog_name="ddbench")

    return ddbench


@pytest.fixture
def ddbench_json(ddbench):
    """Run a command with ``--json``, and read what it prints."""

    def ddbench_json(*arguments, exit_code=0):
        result = ddbench(*arguments, "--json")
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)

    return ddbench_json
