"""What there is, and what it is."""

import io
import re

import pytest
from fake_distributions import POOL, registering

from harness.cli import output

LONG = "a summary that goes on and on, " * 20 + "to its end"


def test_plugins_are_listed_with_what_became_of_them(ddbench, ddbench_json, distribution):
    distribution("bad", "import no_such_package")
    rows = {row["name"]: row for row in ddbench_json("plugins")}
    assert rows["harness"]["status"] == rows["mpdd"]["status"] == "active"
    assert "register_methods" in rows["mpdd"]["hooks"]
    assert (rows["bad"]["status"], rows["bad"]["distribution"], rows["bad"]["version"]) == ("broken", "bad", "1.2")
    assert "no_such_package" in rows["bad"]["reason"]
    result = ddbench("plugins")
    assert result.exit_code == 0
    assert "No module named 'no_such_package'" in result.stdout


def test_disabled_plugins_are_listed(ddbench_json, distribution, monkeypatch):
    distribution("mine")
    monkeypatch.setenv("DDBENCH_PLUGINS", "")
    rows = {row["name"]: row["status"] for row in ddbench_json("plugins")}
    assert rows == {"harness": "active", "mpdd": "active", "mine": "disabled"}


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("methods", {"dc"}),
        ("pools", {"single", "total-random", "main-model", "main-similar", "deep", "mix"}),
        ("evaluators", {"plain", "kd"}),
        ("architectures", {"mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18", "torchvision"}),
        ("datasets", {"digits", "cifar10", "mnist", "folder", "arrays"}),
        (
            "parametrisations",
            {"pixels", "unit-pixels", "multi-formation", "downsample", "hallucinators", "latent-codes"},
        ),
        ("executors", {"local", "inline", "slurm", "ray"}),
    ],
)
def test_components_are_listed_with_their_provider(ddbench, ddbench_json, verb, names):
    rows = {row["name"]: row for row in ddbench_json(verb)}
    assert rows.keys() >= names
    for name in names:
        assert rows[name]["provider"] == "ddbench"
        assert rows[name]["summary"]
        assert rows[name]["summary"] in ddbench(verb).stdout


def test_a_broken_plugin_is_mentioned_and_the_rest_is_listed(ddbench, distribution):
    distribution("bad", "import no_such_package")
    result = ddbench("pools", "--json")
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert "plugin 'bad' of bad 1.2 is broken and not used: ModuleNotFoundError" in result.stderr
    assert result.stdout.startswith("[")


def test_names_claimed_twice_are_listed_as_they_must_be_typed(ddbench, ddbench_json, distribution):
    for name in ("one", "two"):
        distribution(name, registering("pool", "mine", f"{name}:Mine") + POOL)
    names = [row["name"] for row in ddbench_json("pools")]
    assert {"one:mine", "two:mine"} <= set(names)
    assert "mine" not in names
    result = ddbench("pools", "show", "mine")
    assert result.exit_code == 2
    assert "write one:mine or two:mine" in result.stderr
    shown = ddbench_json("pools", "show", "two:mine")
    assert (shown["name"], shown["provider"], shown["provider_version"]) == ("two:mine", "two", "1.2")


def test_a_pipe_gets_every_word(ddbench, distribution):
    distribution("long", registering("pool", "mine", "long:Mine", LONG) + POOL)
    assert LONG in ddbench("pools").stdout


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drawn(monkeypatch, **environment):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    output.print_table(("name", "summary"), [("mix[of=mlp:0.5]", LONG)])
    return terminal.getvalue()


def test_a_terminal_gets_a_table_that_fits_and_drops_nothing(monkeypatch):
    text = drawn(monkeypatch, NO_COLOR="1")
    text = re.sub(r"\x1b\[\d*m", "", text)  # bold is no colour
    assert max(map(len, text.splitlines())) <= 60
    assert "mix[of=mlp:0.5]" in text
    assert text.split()[-3:] == ["to", "its", "end"]
    assert "…" not in text


def test_colour_unless_it_is_unwanted(monkeypatch):
    assert "\x1b[36m" in drawn(monkeypatch)
    assert "\x1b[3" not in drawn(monkeypatch, NO_COLOR="1")


def test_show_names_every_option_with_its_source(ddbench, ddbench_json):
    shown = ddbench_json("methods", "show", "dc")
    assert (shown["kind"], shown["provider"], shown["version"]) == ("method", "ddbench", 1)
    assert shown["description"]
    options = {option["name"]: option for option in shown["options"]}
    assert options["batch_real"]["default"] == "256"
    assert all(option["type"] and option["meaning"] for option in shown["options"])
    text = ddbench("methods", "show", "dc").stdout
    assert all(word in text for option in shown["options"] for word in option.values())


@pytest.mark.parametrize("verb", ["methods", "pools", "evaluators", "architectures", "datasets"])
def test_show_works_for_everything_that_is_listed(ddbench, ddbench_json, verb):
    for row in ddbench_json(verb):
        result = ddbench(verb, "show", row["name"])
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith(row["name"] + ": ")


def test_show_pool_with_its_distribution_merged(ddbench, ddbench_json):
    shown = ddbench_json("pools", "show", "main-similar")
    drawn = {row["architecture"]: row["probability"] for row in shown["distribution"]}
    assert shown["main"] == "convnet:0.9".partition(":")[0]
    assert len(drawn) == 32
    assert drawn["convnet"] == pytest.approx(0.903125)
    assert sum(drawn.values()) == pytest.approx(1)
    result = ddbench("pools", "show", "main-similar[main=0.8]")
    assert "0.806250     convnet\n" in result.stdout
    assert result.stdout.startswith("main-similar[main=0.8]: ")


def test_show_pool_of_a_plugin(ddbench_json, distribution):
    distribution("good", registering("pool", "mine", "good:Mine") + POOL)
    shown = ddbench_json("pools", "show", "mine")
    assert shown["description"] == "Mine, and only mine."
    assert shown["distribution"] == [{"architecture": "mlp", "probability": 1.0}]
    assert shown["options"] == []


def test_show_architecture_with_its_parameters(ddbench, ddbench_json):
    shown = ddbench_json("architectures", "show", "convnet")
    assert [row["count"] for row in shown["parameters"]] == [320010, 317706]
    assert "320,010" in ddbench("architectures", "show", "convnet").stdout
    assert ddbench_json("architectures", "show", "vgg19")["parameters"][0]["count"] > 2e7


def test_show_architecture_that_cannot_take_the_images(ddbench, ddbench_json):
    name = "torchvision[model=inception_v3]"
    reasons = [row["reason"] for row in ddbench_json("architectures", "show", name)["parameters"]]
    assert all("resize" in reason for reason in reasons)
    assert reasons[0] in ddbench("architectures", "show", name).stdout


def test_show_dataset_with_its_defaults(ddbench, ddbench_json):
    shown = ddbench_json("datasets", "show", "cifar10")
    assert (shown["normalize"], shown["like"]) == ("cifar10", "cifar10")
    assert shown["defaults"]["iterations"] == [1000, 2000, 3000]
    assert shown["augmentations"]["dsa"] == "color+crop+cutout+flip+scale+rotate"
    text = ddbench("datasets", "show", "digits").stdout
    assert "protocol=quick" in text
    assert "resnet18" in text


def test_show_executor_with_what_it_can(ddbench, ddbench_json):
    shown = ddbench_json("executors", "show", "slurm[time=2-00:00:00]")
    assert (shown["in_process"], shown["detaches"]) == (False, True)
    assert "ddbench run --detach" in ddbench("executors", "show", "slurm").stdout
    assert "--detach" not in ddbench("executors", "show", "ray").stdout


def test_show_without_an_option_that_must_be_given(ddbench, ddbench_json):
    shown = ddbench_json("pools", "show", "mix")
    assert "needs its option 'of'" in shown["needs"]
    assert [option["default"] for option in shown["options"]] == ["required"]
    assert "needs its option 'of'" in ddbench("pools", "show", "mix").stdout
    assert ddbench_json("pools", "show", "mix[of=mlp:1+lenet:3]")["distribution"][1]["probability"] == 0.75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("methods", "show", "mttt"), "there is no method 'mttt': did you mean 'mtt'?"),
        (("pools", "show", "main-similar[mian=1]"), "'main-similar' has no option 'mian': did you mean 'main'?"),
        (("pools", "show", "main-similar[main=2]"), "at most 1"),
        (("pools", "show", "single[main=[mlp,lenet]]"), "sweeps"),
        (("pools", "show", "single[main=convnte]"), "there is no architecture 'convnte': did you mean 'convnet'?"),
        (("pools", "show", "single[main"), "cannot be read"),
    ],
)
def test_what_cannot_be_shown(ddbench, arguments, message):
    result = ddbench(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("ddbench: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_component_that_fails_is_one_line(ddbench, distribution):
    source = POOL.replace("return {", "raise KeyError('oh') or {")
    distribution("bad", registering("pool", "mine", "bad:Mine") + source)
    result = ddbench("pools", "show", "mine")
    assert (result.exit_code, result.stderr) == (2, "ddbench: error: pool mine of bad fails: KeyError: 'oh'\n")


def test_show_parametrisation_with_what_it_decodes_to(ddbench, ddbench_json):
    assert ddbench_json("parametrisations", "show", "multi-formation[factor=3]")["decodes_to"] == "pixels"
    assert "It decodes to network inputs." in ddbench("parametrisations", "show", "pixels").stdout
