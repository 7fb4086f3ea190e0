"""One plugin that misbehaves is one row with a reason, and everything else is as it was."""

import pytest
from fake_distributions import POOL, registering

from harness.plugins.discovery import plugins
from harness.types.errors import PluginError, UsageError

BROKEN_HOOK = "@hookimpl\ndef register_pools(register):\n    1 / 0\n\n"
BUILT_IN = {("harness", "active"), ("mpdd", "active")}


def row(name):
    found = plugins()
    assert {(row.name, row.status) for row in found.rows} >= BUILT_IN
    assert found.registry.find("method", "dc").provider == "ddbench"
    (mine,) = [row for row in found.rows if row.name == name]
    return mine


def names(kind):
    return [entry.name for entry in plugins().registry.of_kind(kind)]


def test_a_good_plugin_is_active_and_its_component_can_be_used(distribution):
    distribution("good", registering("pool", "mine", "good:Mine") + POOL)
    mine = row("good")
    assert (mine.status, mine.reason, mine.hooks) == ("active", "", ["register_pools"])
    assert (mine.distribution, mine.version, mine.target) == ("good", "1.2", "good")
    resolved = plugins().registry.resolve("pool", "mine")
    assert resolved.make().distribution(0)["mlp"] == 0.75
    assert resolved.identity()["provider"] == "good"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys; sys.exit('not here')", "SystemExit: not here"),
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
        ("def broken(:", "SyntaxError"),
        ("@hookimpl\ndef register_methods(register):\n    raise RuntimeError('no')", "RuntimeError: no"),
        ("@hookimpl\ndef register_methods(register):\n    raise SystemExit(3)", "SystemExit: 3"),
        ("@hookimpl\ndef register_methods():\n    pass", "TypeError"),
        ("@hookimpl\ndef register_methods(registrar):\n    pass", "register_methods"),
        ("@hookimpl\ndef register_method(register):\n    pass", "register_method: did you mean 'register_methods'"),
        (registering("method", "one", "no colon"), "the target must be 'package.module:Class'"),
        (registering("method", "a[b=c]", "bad:Class"), "a[b=c]"),
    ],
)  # fmt: skip
def test_a_bad_plugin_is_a_row_with_its_reason(distribution, source, reason):
    distribution("bad", source)
    assert row("bad").status == "broken"
    assert reason in row("bad").reason
    assert "\n" not in row("bad").reason


@pytest.mark.parametrize("target", ["nowhere", "bad.nowhere", "bad:nothing", "bad:"])
def test_an_entry_point_that_points_nowhere_is_broken(distribution, target):
    distribution("bad", target=target)
    assert row("bad").status == "broken"
    assert row("bad").reason


def test_what_a_plugin_registered_before_it_broke_is_taken_back(distribution):
    distribution("bad", registering("method", "one", "bad:One") + BROKEN_HOOK)
    assert row("bad").reason == "ZeroDivisionError: division by zero"
    assert "one" not in names("method")


def test_a_broken_plugin_is_not_told_of_cells(distribution, capsys):
    distribution(
        "bad",
        BROKEN_HOOK + "@hookimpl\ndef cell_started(cell):\n    print(1)\n",
    )
    assert row("bad").status == "broken"
    assert plugins().notify("cell_started", cell={}) == []
    assert capsys.readouterr().err == ""


def test_observers_hear_of_cells_each_on_its_own(distribution, capsys):
    distribution("one", "@hookimpl\ndef cell_started(cell):\n    raise ValueError('never mind')\n")
    distribution("two", "@hookimpl\ndef cell_started(cell):\n    print('heard', cell['key'])\n")
    complaints = plugins().notify("cell_started", cell={"key": "k"})
    assert complaints == ["cell_started of plugin 'one:one' raised ValueError('never mind')"]
    assert capsys.readouterr() == ("", "heard k\n")


def test_what_plugins_print_lands_on_stderr(distribution, capsys):
    distribution("loud", "print('imported')\n@hookimpl\ndef register_pools(register):\n    print('called')\n")
    assert row("loud").status == "active"
    assert capsys.readouterr() == ("", "imported\ncalled\n")


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("class Mine: pass", "bad:Mine", "is not a subclass of harness.Pool"),
        ("Mine = 3", "bad:Mine", "is not a subclass of harness.Pool"),
        ("", "bad:Missing", "AttributeError"),
        ("", "bad_elsewhere:Mine", "ModuleNotFoundError"),
        (
            "from harness import Pool\nclass Mine(Pool):\n    pass",
            "bad:Mine",
            "does not define distribution",
        ),
        (POOL + "\n    class Options:\n        pass", "bad:Mine", "Options"),
    ],
)
def test_a_class_that_cannot_be_used_is_told_when_it_is_asked_for(distribution, source, target, reason):
    distribution("bad", registering("pool", "mine", target) + source)
    assert row("bad").status == "active"
    with pytest.raises(PluginError, match=reason) as caught:
        plugins().registry.resolve("pool", "mine")
    assert "bad" in str(caught.value)


def test_a_component_that_exits_while_imported_is_an_error(distribution):
    site = distribution("bad", registering("pool", "mine", "bad_exits:Mine"))
    (site / "bad_exits.py").write_text("print('bye'); raise SystemExit(0)")
    with pytest.raises(PluginError, match="SystemExit"):
        plugins().registry.resolve("pool", "mine")


def test_a_name_claimed_twice_is_ambiguous_and_both_can_be_reached(distribution):
    for name in ("one", "two"):
        distribution(name, registering("pool", "mine", f"{name}:Mine") + POOL)
    registry = plugins().registry
    with pytest.raises(UsageError, match="claimed by two plugins: write one:mine or two:mine"):
        registry.resolve("pool", "mine")
    resolved = registry.resolve("pool", "two:mine")
    assert resolved.identity()["provider"] == "two"
    assert str(resolved) == "two:mine"  # else it could not be typed again
    assert registry.resolve("pool", str(resolved)).cls is resolved.cls
    assert str(registry.resolve("pool", "ddbench:single")) == "single"


def test_a_plugin_cannot_register_a_name_twice(distribution):
    distribution("bad", registering("pool", "a", "b:C") + "    register('a', 'b:D', '')\n")
    assert row("bad").reason == "PluginError: bad registers the pool 'a' twice"


def test_the_environment_limits_what_is_loaded(distribution, monkeypatch):
    distribution("one", "raise ValueError('must not be imported')")
    distribution("two")
    monkeypatch.setenv("DDBENCH_PLUGINS", "two, mpdd")
    plugins.cache_clear()
    statuses = {row.name: row.status for row in plugins().rows}
    assert statuses == {"harness": "active", "mpdd": "active", "one": "disabled", "two": "active"}


@pytest.mark.parametrize("value", ["none", "", " None ,"])
def test_without_plugins_only_what_comes_with_the_harness_is_there(distribution, monkeypatch, value):
    distribution("one", "raise ValueError('must not be imported')")
    monkeypatch.setenv("DDBENCH_PLUGINS", value)
    plugins.cache_clear()
    assert "dc" in names("method")
    assert "convnet" in names("architecture")
    assert {row.name: row.status for row in plugins().rows} == {
        "harness": "active",
        "mpdd": "active",
        "one": "disabled",
    }
    with pytest.raises(
        UsageError, match=r"there is no method 'mine': .*plugin 'one' of one is disabled \(--no-plugins"
    ):
        plugins().registry.resolve("method", "mine")


def test_a_plugin_that_the_environment_misspells_is_a_broken_row(distribution, monkeypatch):
    monkeypatch.setenv("DDBENCH_PLUGINS", "mpd")
    plugins.cache_clear()
    (missing,) = [row for row in plugins().rows if row.status == "broken"]
    assert missing.name == "mpd"
    assert missing.reason == "named in DDBENCH_PLUGINS, but not installed: did you mean 'mpdd'?"


def test_unknown_names_bring_the_nearest():
    registry = plugins().registry
    with pytest.raises(UsageError, match=r"there is no pool 'singel': did you mean 'single'"):
        registry.resolve("pool", "singel")
    with pytest.raises(UsageError, match="there is no method 'nobody:dc'"):
        registry.resolve("method", "nobody:dc")
