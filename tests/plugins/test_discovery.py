"""One plugin that misbehaves is one row with a reason, and everything else is as it was."""

import importlib

import pytest
from fake_distributions import POOL, registering

import harness
from harness.errors import PluginError, UsageError
from harness.plugins import hookspecs
from harness.plugins.discovery import plugins

BROKEN_HOOK = "@hookimpl\ndef register_pools(register):\n    1 / 0\n\n"
BUILT_IN = {("harness", "active"), ("mpdd", "active")}


def row(name):
    loaded = plugins()
    assert {(row.name, row.status) for row in loaded.rows} >= BUILT_IN
    assert loaded.registry.find("method", "dc").provider == "ddbench"
    (mine,) = [row for row in loaded.rows if row.name == name]
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
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise BaseException('x')", "BaseException: x"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("class Odd(BaseException):\n    __str__ = None\nraise Odd", "Odd: its message cannot be made"),
        ("raise ValueError('x' * 10_000)", "..."),
        ("@hookimpl\ndef register_methods(register):\n    raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("@hookimpl\ndef register_methods(register):\n    raise BaseException('no')", "BaseException: no"),
        ("@hookimpl\ndef register_methods(register):\n    register(5, 'a:B', 'c')", "TypeError"),
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


@pytest.mark.parametrize("version", [None, 1, harness.CONTRACT_VERSION])
def test_a_plugin_for_this_contract_or_an_older_one_works(distribution, version):
    declared = "" if version is None else f"ddbench_contract = {version}\n"
    distribution("good", declared + registering("pool", "mine", "good:Mine") + POOL)
    assert (row("good").status, row("good").contract) == ("active", version)
    assert plugins().registry.resolve("pool", "mine").make().distribution(0)["mlp"] == 0.75


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3", "it is written for version 3 of the contract, and this ddbench works with 2: install a newer ddbench"),
        ("1", "version 1 of the contract, and this ddbench works with 2: install a newer version of the plugin"),
        ("'2'", "its ddbench_contract is '2': it must be a whole number"),
        ("True", "its ddbench_contract is True: it must be a whole number"),
    ],
)
def test_a_plugin_for_another_contract_is_a_row_with_the_reason(distribution, monkeypatch, version, reason):
    monkeypatch.setattr(hookspecs, "OLDEST_CONTRACT", 2)
    distribution("other", f"ddbench_contract = {version}\n" + registering("pool", "mine", "other:Mine") + POOL)
    assert row("other").status == "broken"
    assert row("other").reason.endswith(reason)
    assert "mine" not in names("pool")


@pytest.mark.parametrize("target", ["nowhere", "bad.nowhere", "bad:nothing", "bad:"])
def test_an_entry_point_that_points_nowhere_is_broken(distribution, target):
    distribution("bad", target=target)
    assert row("bad").status == "broken"
    assert row("bad").reason


def test_what_a_plugin_registered_before_it_broke_is_taken_back(distribution):
    distribution("bad", registering("method", "one", "bad:One") + BROKEN_HOOK)
    assert row("bad").reason == "ZeroDivisionError: division by zero"
    assert "one" not in names("method")


def test_a_broken_plugin_is_not_notified_of_cells(distribution, capsys):
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
def test_a_class_that_cannot_be_used_is_reported_when_it_is_asked_for(distribution, source, target, reason):
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


def test_a_name_that_a_broken_plugin_would_bring_is_reported_with_its_reason(distribution):
    distribution("bad", "import no_such_package")
    with pytest.raises(UsageError) as caught:
        plugins().registry.resolve("method", "mttt")
    message = str(caught.value)
    absent = "these plugins may have it, but are not loaded: "
    assert message.startswith(f"there is no method 'mttt': did you mean 'mtt'?; {absent}")
    assert "plugin 'bad' of bad is broken (ModuleNotFoundError: No module named 'no_such_package')" in message
    assert "\n" not in message


def test_of_many_broken_plugins_a_few_are_named(distribution):
    for number in range(5):
        distribution(f"bad{number}", "1 / 0")
    with pytest.raises(UsageError, match=r"; and 2 more$"):
        plugins().registry.resolve("method", "mttt")


@pytest.mark.parametrize("value", ["My_Plugin", "my-plugin", "MY.PLUGIN , none"])
def test_distributions_are_named_as_package_indexes_compare_them(distribution, monkeypatch, value):
    distribution("my-plugin")
    distribution("other")
    monkeypatch.setenv("DDBENCH_PLUGINS", value)
    plugins.cache_clear()
    assert {row.name: row.status for row in plugins().rows if row.distribution != "ddbench"} == {
        "my-plugin": "active",
        "other": "disabled",
    }


@pytest.mark.parametrize("content", ["[ddbench]\nno equals sign\n", "\0\n[", "[ddbench]\nx = \n"])
def test_a_distribution_that_cannot_be_read_stops_nothing(distribution, content):
    site = distribution("bad")
    (site / "bad-1.2.dist-info" / "entry_points.txt").write_text(content)
    plugins.cache_clear()
    assert {row.name for row in plugins().rows if row.status == "active"} >= {"harness", "mpdd"}


OBSERVER = "@hookimpl\ndef cell_started(cell):\n    "


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt()"),
        ("raise SystemExit(3)", "raised SystemExit(3)"),
        ("raise BaseException('x')", "raised BaseException('x')"),
        (
            "class Odd(Exception):\n        __repr__ = __str__ = None\n    raise Odd",
            "raised Odd: its message cannot be",
        ),
    ],
)
def test_an_observer_may_raise_anything(distribution, code, complaint):
    distribution("one", OBSERVER + code)
    distribution("two", "heard = []\n" + OBSERVER + "heard.append(cell['key'])")
    complaints = [line for _ in range(5) for line in plugins().notify("cell_started", cell={"key": "k"})]
    assert complaints[0].startswith(f"cell_started of plugin 'one:one' {complaint}")
    assert len(complaints) == 3
    assert complaints[-1].endswith("(further complaints of this plugin's observers are not shown)")
    import two

    assert two.heard == ["k"] * 5


def test_an_observer_gets_a_copy(distribution):
    distribution("one", OBSERVER + "cell['identity'].clear()")
    cell = {"identity": {"seed": 0}}
    assert plugins().notify("cell_started", cell=cell) == []
    assert cell == {"identity": {"seed": 0}}


def test_an_observer_that_hangs_is_waited_for_once_and_hears_no_more(distribution, monkeypatch):
    monkeypatch.setattr("harness.plugins.observers.PATIENCE", 0.05)
    monkeypatch.setattr("harness.plugins.observers.LAST_PATIENCE", 0.05)
    source = "import threading\ngate, heard = threading.Event(), []\n"
    distribution("one", source + OBSERVER + "gate.wait(); heard.append(cell['key'])")
    distribution("two", "heard = []\n" + OBSERVER + "heard.append(cell['key'])")
    for key in "abc":
        assert plugins().notify("cell_started", cell={"key": key}) == []
    blocked, quick = (importlib.import_module(name) for name in ("one", "two"))
    assert (blocked.heard, quick.heard) == ([], ["a", "b", "c"])
    slow = "observers of plugin 'one:one' are too slow: 3 events did not reach them"
    assert plugins().finish() == [slow]
    assert plugins().finish() == []
    plugins().notify("cell_started", cell={"key": "d"})
    assert quick.heard[-1] == "d"
    blocked.gate.set()


def test_an_observer_that_is_a_little_slow_hears_all_in_order(distribution, monkeypatch):
    monkeypatch.setattr("harness.plugins.observers.PATIENCE", 0.0)
    distribution("one", "import time\nheard = []\n" + OBSERVER + "time.sleep(0.01); heard.append(cell['key'])")
    for key in range(9):
        plugins().notify("cell_started", cell={"key": key})
    assert plugins().finish() == []
    assert importlib.import_module("one").heard == list(range(9))


def test_unknown_names_bring_the_nearest():
    registry = plugins().registry
    with pytest.raises(UsageError, match=r"there is no pool 'singel': did you mean 'single'"):
        registry.resolve("pool", "singel")
    with pytest.raises(UsageError, match="there is no method 'nobody:dc'"):
        registry.resolve("method", "nobody:dc")
