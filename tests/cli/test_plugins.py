"""``ddbench plugins check`` and ``plugins new``."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from fake_distributions import POOL, registering

from harness.plugins.discovery import plugins
from harness.plugins.skeleton import KINDS
from harness.plugins.trial import Trial
from tests.forks import ddbench as in_process
from tests.installing import declare, environment, install
from tests.studies import stripes

ROOT = Path(__file__).parents[2]

TRACKER = """
from harness import Tracker

class Mine(Tracker):
    def step(self, cell, iteration, scalars):
        pass
"""
"""A component whose import needs no torch, so that a process of its own imports it in a tenth of the time."""

NEEDY = "\n    class Options(harness.Options):\n        share: float = harness.option(..., 'a share', ge=0, le=1)\n"


@pytest.fixture
def without_trial(monkeypatch):
    """The plugin is imported in this process at once, not by one of its own first, which would import torch again."""
    monkeypatch.setattr("harness.cli.commands.plugins.tried", lambda row, seconds: Trial("", ()))


def test_a_plugin_that_keeps_its_contract_is_said_to(ddbench, distribution):
    distribution("good", registering("pool", "mine", "good:Mine") + POOL)
    result = ddbench("plugins", "check", "good")
    assert result.exit_code == 0, result.output
    first, *checks, last = result.stdout.splitlines()
    assert first == "pool mine (good:Mine)"
    assert all(re.match(r"  (ok     |skipped) \S", line) for line in checks)
    assert last == "1 component: 10 ok, 0 failed, 4 skipped"


def test_a_broken_promise_is_named_and_is_exit_status_1(ddbench, distribution, without_trial):
    distribution("bad", registering("pool", "mine", "bad:Mine") + POOL.replace("0.75", "0.5"))
    result = ddbench("plugins", "check", "bad")
    assert result.exit_code == 1
    assert "FAILED  Probabilities sum to 1 at every iteration" in result.stdout
    assert "PluginError: Mine gives probabilities that sum to 0.75 at iteration 0" in result.stdout
    assert "Traceback" not in result.stderr
    assert "    Traceback" in ddbench("plugins", "check", "bad", "--traceback").stderr


def test_as_json(ddbench, distribution, without_trial):
    distribution("bad", registering("pool", "mine", "bad:Mine") + POOL.replace("0.75", "0.5"))
    result = ddbench("plugins", "check", "bad", "--json")
    assert result.exit_code == 1
    checks = json.loads(result.stdout)
    assert {check["status"] for check in checks} == {"ok", "FAILED", "skipped"}
    assert {(check["kind"], check["name"]) for check in checks} == {("pool", "mine")}
    assert json.loads(ddbench("plugins", "--json", "check", "bad").stdout) == checks


def test_a_component_that_needs_options_is_skipped_until_they_are_given(ddbench, distribution, without_trial):
    distribution("good", "import harness\n" + registering("pool", "mine", "good:Mine") + POOL + NEEDY)
    without = ddbench("plugins", "check", "good")
    assert without.exit_code == 0
    assert "skipped The class loads, and the options given are taken: 'mine' needs its option 'share'" in without.stdout
    with_option = ddbench("plugins", "check", "good", "mine[share=0.5]")
    assert with_option.exit_code == 0
    assert "pool mine[share=0.5] (good:Mine)" in with_option.stdout
    wrong = ddbench("plugins", "check", "good", "mine[share=2]")
    assert wrong.exit_code == 1
    assert "FAILED  The class loads, and the options given are taken: mine[share=2]: " in wrong.stdout


def test_what_cannot_be_loaded_has_failed(ddbench, distribution, without_trial):
    distribution("bad", registering("pool", "mine", "bad:Missing"))
    result = ddbench("plugins", "check", "bad")
    assert result.exit_code == 1
    assert "pool 'mine' of bad cannot be loaded from 'bad:Missing'" in result.stdout


def test_of_two_that_claim_a_name_each_checks_its_own(ddbench, distribution, without_trial):
    distribution("one", registering("pool", "mine", "one:Mine") + POOL)
    distribution("two", registering("pool", "mine", "two:Mine") + POOL.replace("0.75", "0.5"))
    assert ddbench("plugins", "check", "one").exit_code == 0
    assert ddbench("plugins", "check", "two", "mine").exit_code == 1


@pytest.mark.parametrize(
    ("source", "words", "message"),
    [
        ("", ["check", "good"], r"plugin 'good' of good: it implements no hooks: .*good\.py"),
        ("import no_such_package", ["check", "good"], "plugin 'good' of good is broken: ModuleNotFoundError"),
        (
            registering("tracker", "mine", "good:Mine") + TRACKER,
            ["check", "good", "mien"],
            "has no component 'mien': did",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line_and_exit_status_2(ddbench, distribution, source, words, message):
    distribution("good", source)
    result = ddbench("plugins", *words)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert re.search(message, line)


BAD_IMPORTS = {
    "import os; os._exit(0)": "importing it ended its process with exit status 0",
    "import os; os._exit(7)": "importing it ended its process with exit status 7",
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "importing it ended its process by SIGSEGV",
    "import time; time.sleep(600)": "importing it takes longer than 3 s (--timeout)",
}


@pytest.mark.parametrize("source", BAD_IMPORTS)
def test_an_import_that_ends_the_process_is_reported_by_a_child(ddbench, distribution, source):
    distribution("bad", f"print('hello')\n{source}\n")
    result = ddbench("plugins", "check", "bad", "--timeout", "3" if "sleep" in source else "100")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the process ended while" not in result.stderr, "it is said once"
    if "sleep" not in source:  # what is not flushed is lost with its process
        assert result.stderr.splitlines()[-1] == f"ddbench: error: plugin 'bad' of bad is broken: {BAD_IMPORTS[source]}"
    else:
        assert BAD_IMPORTS[source] in result.stderr


def test_a_class_whose_import_ends_the_process_is_named(ddbench, distribution):
    site = distribution("bad", registering("tracker", "mine", "bad_trackers:Mine"))
    (site / "bad_trackers.py").write_text("import os; os.write(2, b'no\\x1b[31m luck\\n'); os._exit(3)")
    result = ddbench("plugins", "check", "bad")
    assert result.exit_code == 2
    reason = "importing 'bad_trackers:Mine' for its tracker 'mine' ended its process with exit status 3"
    assert result.stderr.splitlines()[-1] == f"ddbench: error: plugin 'bad' of bad is broken: {reason}"
    assert "    no?[31m luck" in result.stderr.splitlines()


def test_what_is_printed_at_import_is_shown_and_not_in_the_json(ddbench, distribution):
    source = "import os; os.write(1, b'raw\\n'); print('hello')\n"
    distribution("good", source + registering("tracker", "mine", "good:Mine") + TRACKER)
    result = ddbench("plugins", "check", "good", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)
    assert {"    raw", "    hello"} <= set(result.stderr.splitlines())


def test_a_package_without_a_plugin_is_distinguished_from_one_that_is_not_there(ddbench):
    result = ddbench("plugins", "check", "numpy")
    assert result.exit_code == 2
    assert re.search(
        r"the package numpy \S+ is installed, but has no entry point in the group 'ddbench'", result.stderr
    )
    result = ddbench("plugins", "check", "no-such-package")
    assert result.exit_code == 2
    assert "there is no plugin 'no-such-package'" in result.stderr
    assert "No package of that name is installed here" in result.stderr


def test_without_plugins_none_is_imported_and_the_environment_is_as_before(ddbench, distribution, monkeypatch):
    distribution("bad", "raise ValueError('must not be imported')")
    result = ddbench("--no-plugins", "plugins", "--json")
    assert {row["name"]: row["status"] for row in json.loads(result.stdout)} == {
        "harness": "active", "mpdd": "active", "bad": "disabled",
    }  # fmt: skip
    assert "DDBENCH_PLUGINS" not in os.environ
    monkeypatch.setenv("DDBENCH_PLUGINS", "bad")
    result = ddbench("--no-plugins", "methods", "show", "mine")
    assert result.exit_code == 2
    assert "plugin 'bad' of bad is disabled (--no-plugins" in result.stderr
    assert os.environ["DDBENCH_PLUGINS"] == "bad"


def test_the_process_that_an_import_ends_has_last_words(tmp_path):
    declare("gone", "gone", tmp_path)
    (tmp_path / "gone.py").write_text("import os; os._exit(0)")
    env = environment(tmp_path)
    done = in_process("methods", env=env)
    words = "the process ended while plugin 'gone' of gone was imported; `ddbench --no-plugins` leaves plugins out"
    assert done.stderr == f"ddbench: error: {words}\n"
    assert in_process("--no-plugins", "methods", env=env).stdout


def test_observers_alone_have_nothing_to_check(ddbench, distribution):
    distribution("ears", "@hookimpl\ndef cell_started(cell):\n    pass\n")
    result = ddbench("plugins", "check", "ears")
    assert result.exit_code == 0
    assert result.stdout == "plugin 'ears' registers no components (cell_started): there is nothing to check\n"


def test_a_plugin_without_hooks_is_listed_with_a_reason(distribution):
    distribution("empty")
    (row,) = [row for row in plugins().rows if row.name == "empty"]
    assert row.status == "active"
    assert re.fullmatch(r"it implements no hooks: .*empty\.py", row.reason)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A new plugin with all that there are templates of, installed, and the data that its data set asks for."""
    folder = tmp_path_factory.mktemp("new")
    kinds = [word for kind in KINDS for word in ("--kind", kind)]
    done = in_process("plugins", "new", "my-things", *kinds, "--into", folder, env=environment(folder))
    assert done.returncode == 0, done.stderr
    install(folder / "my-things", folder / "site")
    train, test = (stripes(n, channels=1, seed=n) for n in (8, 4))
    x_train, x_test = (images.transpose(0, 3, 1, 2) for images, _ in (train, test))
    np.savez(folder / "my-things.npz", x_train=x_train, y_train=train[1], x_test=x_test, y_test=test[1])
    return folder, done.stdout


def test_a_new_plugin_keeps_the_contract_as_it_is(everything):
    folder, printed = everything
    assert printed.splitlines()[-1].startswith("next: pip install -e ")
    assert tomllib.loads((folder / "my-things" / "pyproject.toml").read_text())["project"]["name"] == "my-things"
    env = environment(folder / "site", DDBENCH_DATA=str(folder))
    done = in_process("plugins", "check", "my-things", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"11 components: \d+ ok, 0 failed, ", done.stdout.splitlines()[-1])
    assert "there is no" not in done.stdout, "the data set's file is there"


def test_a_new_plugin_is_used_by_name(everything, tmp_path):
    folder, _ = everything
    words = [word for kind in ("dataset", "method", "pool", "architecture") for word in (f"--{kind}", "my-things")]
    small = ["--evaluator", "my-things[epochs=2]", "--iterations", "1", "--students", "1", "--set", "convnet.width=4"]
    env = environment(folder / "site", DDBENCH_DATA=str(folder), DDBENCH_EXECUTOR="inline")
    done = in_process("run", *words, *small, "--store", tmp_path / "store", "--json", env=env)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["status"] == "done"
    assert row["protocol"] == "my-things v1 + epochs=2"
    done = in_process("report", tmp_path / "store", "--report", "my-things[digits=2]", "--output", "-", env=env)
    assert done.returncode == 0, done.stderr
    head, line = done.stdout.splitlines()
    assert head == "method,pool,evaluator,architecture,distillation,student,accuracy"
    assert line == f"my-things,my-things,my-things[epochs=2],my-things,0,0,{round(row['mean'], 2)}"


def checked_as_ours(everything, command):
    """Run a check of our own code on what the templates write."""
    words = [sys.executable, "-m", *command.split(), str(everything[0] / "my-things" / "src")]
    # In our folder, so that mypy takes our settings, and what it then found out about torch is used again.
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_plugin_is_formatted_like_ours(everything):
    checked_as_ours(everything, "ruff format --check --line-length 120")


@pytest.mark.slow  # without a cache, mypy reads all of torch: half a minute
def test_a_new_plugin_is_typed_like_ours(everything):
    checked_as_ours(everything, "mypy --config-file pyproject.toml")


def test_what_is_there_already_is_left_alone(ddbench, tmp_path):
    (tmp_path / "mine").mkdir()
    result = ddbench("plugins", "new", "mine", "--into", str(tmp_path))
    assert result.exit_code == 2
    assert "is there already: choose another name" in result.stderr
    assert not list((tmp_path / "mine").iterdir())
