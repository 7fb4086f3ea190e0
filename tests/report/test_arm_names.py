"""Short names of arms: what all share is said once, and no two arms get the same text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.tables.arm_names import arm_names
from harness.types.names import Name, parse_name


@pytest.mark.parametrize(
    ("names", "short", "legend"),
    [
        (["single", "main-similar"], ["single", "main-similar"], []),
        (
            ["single[main=convnet[width=16]]", "main-similar[main=convnet[width=16]]"],
            ["single", "main-similar"],
            ["every pool: main=convnet[width=16]"],
        ),
        (
            ["dc[lr_img=0.1,init=real]", "dc[lr_img=1,init=real]"],
            ["dc[lr_img=0.1]", "dc[lr_img=1]"],
            ["every pool: init=real"],
        ),
        (
            ["single", "main-similar[warmup=500]"],
            ["single", "main-similar"],
            ["main-similar: main-similar[warmup=500]"],
        ),
        (
            ["single[main=convnet[width=16,depth=2]]", "single[main=convnet[width=32,depth=2]]"],
            ["single[main=convnet[width=16]]", "single[main=convnet[width=32]]"],
            [
                "single[main=convnet[width=16]]: single[main=convnet[width=16,depth=2]]",
                "single[main=convnet[width=32]]: single[main=convnet[width=32,depth=2]]",
            ],
        ),
        (["main-similar[warmup=5]"], ["main-similar[warmup=5]"], []),
        (["dc (version 1)", "dc (version 2)"], ["dc (version 1)", "dc (version 2)"], []),
    ],
)
def test_short_texts(names, short, legend):
    shown = arm_names("pool", names)
    assert [shown[name] for name in names] == short
    assert list(shown.legend) == legend


def test_a_label_is_taken_as_it_stands():
    names = ["single[main=mlp]", "main-similar[main=mlp]"]
    shown = arm_names("pool", names, {names[1]: "ours"})
    assert [shown[name] for name in names] == ["single", "ours"]
    assert shown.legend == ("ours: main-similar[main=mlp]", "single: single[main=mlp]")


def test_a_short_text_never_equals_a_label():
    names = ["single[main=mlp]", "pair[main=mlp]", "main-similar[main=mlp]"]
    shown = arm_names("pool", names, {names[2]: "single"})
    assert len({shown[name] for name in names}) == 3


OPTIONS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2", "mlp[width=8]", "mlp[width=9]"]))
NAMES = st.builds(Name, st.sampled_from(["dc", "dm", "x"]), OPTIONS.map(dict.items).map(tuple))


@given(st.lists(NAMES.map(str), min_size=1, max_size=6, unique=True))
def test_names_stay_different_and_the_legend_restores_them(names):
    shown = arm_names("pool", names)
    assert len({shown[name] for name in names}) == len(names)
    for name in names:
        assert len(shown[name]) <= len(name)
        text = " ".join(shown.legend) + " " + shown[name]
        for key, value in parse_name(name).options:
            assert f"{key}={value}" in text
