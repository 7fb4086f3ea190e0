"""The verbs, what they cost to import, and how a command ends."""

import importlib
import os
import subprocess
import sys

import click
import pytest

from harness.cli import errors
from harness.cli.group import VERBS, cli
from harness.errors import DataError, PluginError

HEAVY = ("torch", "torchvision", "numpy", "scipy", "kornia", "sklearn", "matplotlib")


def python(code, *, stdout=subprocess.PIPE, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["--version"],
        ["methods"],
        ["plugins", "--json"],
        ["pools", "show", "-h"],
        ["run", "-h"],
        ["compare", "-h"],
    ],
)
def test_listing_what_there_is_imports_nothing_heavy(arguments):
    code = f"""
import sys
from harness.cli.group import cli
try:
    cli({arguments!r})
except SystemExit as end:
    heavy = sorted(set({HEAVY!r}) & set(sys.modules))
    print("END", end.code, heavy)
"""
    assert python(code).stdout.splitlines()[-1] == "END 0 []"


def test_help_has_every_verb_with_its_summary(ddbench):
    result = ddbench("-h")
    words = " ".join(result.stdout.split())
    for verb, (_, summary) in VERBS.items():
        assert f" {verb} {summary}" in words
    assert ddbench("--help").stdout == result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_command_with_help(ddbench, verb):
    assert isinstance(cli.get_command(click.Context(cli), verb), click.Command)
    result = ddbench(verb, "-h")
    assert result.exit_code == 0
    assert "\\b" not in result.stdout, "examples keep their lines"


def test_version(ddbench):
    assert ddbench("--version").stdout.startswith("ddbench 0.")
    assert "(torch 2." in ddbench("--version").stdout


def test_the_module_runs_too():
    result = subprocess.run(
        [sys.executable, "-m", "harness", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.startswith("ddbench 0.")


def test_completion_imports_no_command(monkeypatch):
    monkeypatch.setattr(importlib, "import_module", None)
    completed = [item.value for item in cli.shell_complete(click.Context(cli), "pl")]
    assert completed == ["plugins"]


def raising(monkeypatch, error):
    """Make ``ddbench plugins`` raise."""

    @click.command
    def command():
        raise error

    monkeypatch.setattr("harness.cli.commands.plugins.plugins", command)


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "exit_code", "stderr"),
    [
        (DataError("no images\n  in  here "), 2, "ddbench: error: no images in  here\n"),
        (KeyboardInterrupt(), 130, "ddbench: interrupted\n"),
        (click.Abort(), 130, "ddbench: interrupted\n"),
        (BrokenPipeError(), 141, ""),
        (click.exceptions.Exit(1), 1, ""),
    ],
)
def test_how_errors_end_a_command(ddbench, monkeypatch, error, exit_code, stderr):
    raising(monkeypatch, error)
    result = ddbench("plugins")
    assert (result.exit_code, result.stdout, result.stderr) == (exit_code, "", stderr)


def test_a_mistake_of_ours_is_not_hidden(ddbench, monkeypatch):
    raising(monkeypatch, error := ZeroDivisionError())
    assert ddbench("plugins").exception is error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator torchvision::nms does not exist"),
        chained(PluginError("cannot be loaded"), RuntimeError("operator torchvision::nms does not exist")),
        ImportError("/x/torchvision/_C.so: undefined symbol: _ZN2at"),
    ],
)
def test_a_torch_and_a_torchvision_that_do_not_belong_together(ddbench, monkeypatch, error):
    raising(monkeypatch, error)
    result = ddbench("plugins")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "do not fit together" in result.stderr
    assert "pip install --force-reinstall torch torchvision" in result.stderr


def test_a_reader_that_goes_away_makes_no_noise():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = python("import sys; sys.argv[1:] = ['methods']; import harness.cli as c; c.main()", stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (errors.BROKEN_PIPE, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["methods", "--version"])
def test_a_full_disk_is_one_line(command):
    with open("/dev/full", "w") as full:
        result = python(f"import sys; sys.argv[1:] = ['{command}']; import harness.cli as c; c.main()", stdout=full)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith("ddbench: error: No space left on device")


def test_what_is_not_installed_has_no_version():
    assert errors.version_of("no-such-distribution") == "(not installed)"
