"""The table of protocols that ``ddbench evaluators show`` prints: every constant is the recipe's own, with a source."""

import json
from typing import get_args

import pytest
from studies import ddbench
from toys import component

from mpdd_plugins.evaluators.protocol import TrainingOptions

BUILT_IN = ["plain", "kd", "kernel", "soft-labels", "elf", "droppath", "continual"]


def rows_of(name):
    return {row["protocol"].removesuffix(" v1"): row for row in component("evaluator", name).protocols()}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_constant_of_every_protocol_has_a_value(name):
    rows = component("evaluator", name).protocols()
    assert len({tuple(row) for row in rows}) == 1
    assert all(text.strip() for row in rows for text in row.values())
    (field,) = {"protocol", "preset"} & set(component("evaluator", name).Options.model_fields)
    typed = get_args(component("evaluator", name).Options.model_fields[field].annotation)
    assert [row["protocol"].removesuffix(" v1") for row in rows] == list(typed)


def test_numbers_are_those_of_the_recipes():
    for name, row in rows_of("plain").items():
        recipe = TrainingOptions(protocol=name).protocol_recipe(augmented=False)
        assert row["weight decay"] == f"{recipe.weight_decay:g}"
        assert row["optimizer"].partition(",")[0] == recipe.optimizer
        if name not in ("mtt", "dd", "seqmatch"):
            assert row["lr"] == f"{recipe.lr:g}"
        if recipe.steps is None and name not in ("dd", "seqmatch"):
            assert row["length"].startswith(f"{recipe.epochs} epochs")


def test_teachers_are_constants_too():
    kd = rows_of("kd")
    assert (kd["v1"]["temperature"], kd["v1"]["teacher-data"], kd["v1"]["rescale"]) == ("1.5", "distilled", "true")
    assert (kd["sre2l"]["temperature"], kd["sre2l"]["teacher-mode"], kd["sre2l"]["rescale"]) == ("30", "train", "false")
    assert rows_of("soft-labels")["rded"]["temperature"] == "20"
    names = ("teacher", "teacher-epochs", "teacher-lr", "teacher-mode")
    for protocol in ("rded", "sre2l"):
        both = [rows_of(name)[protocol] for name in ("kd", "soft-labels")]
        assert [both[0][name] for name in names] == [both[1][name] for name in names]
    assert [kd["rded"][name] for name in names[:3]] == ["convnet[norm=batch]", "200", "0.1"]
    assert [kd["v1"][name] for name in names[:3]] == ["convnet", "the protocol's", "the protocol's"]
    assert "teacher-epochs" in ddbench("evaluators", "show", "kd").stdout.partition("Its protocols")[2]
    assert rows_of("droppath")["as-released"]["keep-least"] == "1"


def test_show_prints_them():
    text = ddbench("evaluators", "show", "plain").stdout
    table = text.partition("Its protocols, with the constants that options depart from:")[2]
    assert {line.split()[0] for line in table.splitlines() if line.strip()} >= {
        "v1",
        "dsa",
        "mtt",
        "idc",
        "ncfm",
        "rded",
    }
    assert "RDED, validation" in table
    assert "real images beside the set" not in text
    assert "real images beside the set" in ddbench("evaluators", "show", "kd[teacher-data=real]").stdout
    details = json.loads(ddbench("evaluators", "show", "elf", "--json").stdout)
    assert details["real_data"] is True
    assert details["protocols"][0]["protocol"] == "dsa v1"
