"""Arms of one run that differ in more than what is compared: which pairs are named in one line, and which are not."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from studies import ddbench, small_run, small_words

from harness.report.comparing.confounders import Contender, SideBySide, confounder_warning
from harness.types.distilled import DistilledSet
from harness.types.names import parse_name

SINGLE, SIMILAR = "single[main=convnet[width=16]]", "main-similar[main=convnet[width=16]]"
HALF_MEANT = {"pool": (SINGLE, "main-similar[width=16]")}
MARK = "WARNING: "


def words(data, store, changes):
    """The command line of a small run; values of ``changes`` are texts, each an option of its own."""
    base = [*small_words(data, store, **dict.fromkeys(changes)), "--students", "1"]
    return base + [word for key, values in changes.items() for value in values for word in (f"--{key}", value)]


def warning_lines(data, store, changes):
    """The lines of a dry run that warn."""
    done = ddbench("run", *words(data, store, changes), "--dry-run")
    assert done.exit_code == 0, done.output
    return [line for line in done.stdout.splitlines() if line.startswith(MARK)]


MUST_WARN = [
    (HALF_MEANT, ("main model", f"convnet[width=16] in {SINGLE}", "convnet in main-similar[width=16]", "main=...")),
    ({"pool": ("single[main=[mlp,convnet]]", "main-similar")}, ("main model", "mlp in single[main=mlp]")),
    ({"pool": ("main-model[main=mlp]", "main-similar")}, ("main model", "mlp in main-model[main=mlp]")),
    ({"pool": ("single[main=lenet]", "total-random", "main-model")}, ("main model", "lenet in single[main=lenet]")),
    ({"method": ("dc[batch_real=4]", "whole")}, ("storage", "768 numbers in dc", "9,216 numbers in whole")),
    ({"method": ("random", "whole")}, ("storage", "768 numbers in random")),
    ({"method": ("dm", "dm[as=downsample]")}, ("storage", "768 numbers in dm", "192 numbers in dm[as=downsample,")),
    ({"method": ("dc[batch_real=4]", "dm[batch_real=8]")}, ("real images of each class a step", "4 in dc", "8 in dm")),
    ({"method": ("dc[outer=2]", "dsa")}, ("updates in an iteration", "2 in dc", "auto in dsa")),
    ({"evaluator": ("plain[epochs=2]", "kd[epochs=3]")}, ("epochs of students", "2 in plain", "3 in kd")),
    ({"evaluator": ("plain", "kd[protocol=dsa]")}, ("protocol of students", "quick in plain", "dsa in kd")),
    (
        {"pool": HALF_MEANT["pool"], "method": ("dc", "whole"), "ipc": ("1,2",)},
        ("main model", "storage", "otherwise in 1 more comparison"),
    ),
]
MUST_NOT = [
    {"pool": ("single", "main-similar")},
    {"pool": ("single", "main-similar", "main-model", "total-random", "mix[of=mlp:1]")},
    {"pool": (SINGLE, SIMILAR)},
    {"pool": (SINGLE, f"{SIMILAR[:-1]},width=32]")},
    {"pool": ("single", "main-similar"), "set": ("convnet.width=16",)},
    {"pool": ("single[main=[mlp,convnet]]",)},
    {"pool": ("main-similar[width=[16,32]]", "main-similar[main=0.5]", "single")},
    {"pool": ("single[main=lenet]", "total-random")},
    {"method": ("dc[lr_img=[0.1,1]]",)},
    {"method": ("dc[batch_real=[4,8]]",)},
    {"method": ("dc[outer=[1,2]]",)},
    {"method": ("dc", "dm", "dsa", "mtt[experts=1,train_epochs=4]")},
    {"method": ("dc", "random", "herding", "k-center")},
    {"method": ("dm", "dm[as=multi-formation]", "dm[as=unit-pixels]")},
    {"ipc": ("1,2",)},
    {"iterations": ("1,2",), "method": ("dc", "random")},
    {"evaluator": ("plain", "kd")},
    {"evaluator": ("kd[temperature=[1,2]]", "plain")},
    {"evaluator": ("plain[epochs=[2,3]]",)},
    {"evaluator": ("plain[protocol=dsa]", "plain")},
    {"architecture": ("mlp", "convnet[norm=batch]")},
]


@pytest.mark.parametrize(("changes", "parts"), MUST_WARN, ids=str)
def test_pairs_that_differ_in_more_are_named_in_one_line(data, tmp_path, changes, parts):
    (line,) = warning_lines(data, tmp_path / "s", changes)
    for part in parts:
        assert part in line
    assert line.count("main model") <= 1


@pytest.mark.parametrize("changes", MUST_NOT, ids=str)
def test_pairs_that_differ_in_what_is_compared_are_not(data, tmp_path, changes):
    assert warning_lines(data, tmp_path / "s", changes) == []


def test_a_run_warns_before_the_work_and_beneath_its_table_and_in_json(data, tmp_path):
    pools = ("single[main=convnet[width=4,depth=2]]", "main-similar[main=mlp[width=8],others=mlp[width=4]]")
    asked = words(data, tmp_path, {"pool": pools})
    first = ddbench("run", *asked)
    (line,) = [line for line in first.stdout.splitlines() if line.startswith(MARK)]
    assert "convnet[width=4,depth=2] in single" in line
    assert "mlp[width=8] in main-similar" in line
    assert first.stderr.index(line) < first.stderr.index("student")
    again = ddbench("run", *asked, "--json")
    assert json.loads(again.stdout)["warnings"] == [line]
    dry = ddbench("run", *asked, "--json", "--dry-run")
    assert json.loads(dry.stdout)["warnings"] == [line]
    (row, _) = json.loads(again.stdout)["rows"]
    assert (row["storage_floats"], row["epochs"]) == (768, 2)


def test_sets_that_are_there_are_compared_by_what_they_store(data, tmp_path, monkeypatch):
    methods = ["random", "dc[batch_real=4]"]
    assert small_run(data, tmp_path / "equal", method=methods, students=1).warnings == ()
    whole = DistilledSet.storage_floats.fget
    halved = property(lambda self: whole(self) // (2 if self.provenance.get("method") == "random" else 1))
    monkeypatch.setattr(DistilledSet, "storage_floats", halved)
    (line,) = small_run(data, tmp_path / "packed", method=methods, students=1).warnings
    assert "storage: 768 numbers in dc[batch_real=4], but 384 numbers in random" in line


def test_a_table_prints_the_storage_of_sets_that_are_not_plain(data, tmp_path):
    methods = ("dm[batch_real=4]", "dm[batch_real=4,as=downsample]", "dm[batch_real=4,as=multi-formation]")
    done = ddbench("run", *words(data, tmp_path, {"method": methods}))
    lines = [line for line in done.stdout.splitlines() if line.startswith("storage of")]
    assert lines == ["storage of dm[as=downsample,batch_real=4]: 192 numbers, 25 % of 1 plain image a class"]


# --- whatever the arms ------------------------------------------------------------------------------------------------

MAINS = ("convnet", "convnet[width=16]", "mlp")
POOLS = ("single", "main-similar", "main-similar[warmup=1]", "single[main=mlp]", "total-random")
ARM = st.builds(
    lambda pool, main, set_options: Contender(
        {"pool": pool}, {"pool": parse_name(pool)}, main_model=main and parse_name(main), set_options=set_options
    ),
    st.sampled_from(POOLS), st.sampled_from((*MAINS, None)), st.sampled_from(((), ("convnet.width=16",))),
)  # fmt: skip


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def said(arms):
    return confounder_warning([SideBySide(("pool",), arms)])


@UNHURRIED
@given(st.lists(ARM, max_size=6))
def test_the_order_of_the_arms_does_not_matter(arms):
    assert (said(arms) is None) == (said(arms[::-1]) is None) == (said(arms[1:] + arms[:1]) is None)


@UNHURRIED
@given(st.lists(ARM, min_size=1, max_size=6))
def test_arms_with_one_main_model_are_never_named_and_two_pools_with_different_ones_always_are(arms):
    known = {arm.main_model for arm in arms} - {None}
    families = {arm.components["pool"].name: arm.main_model for arm in arms if arm.main_model}
    if len(known) < 2:
        assert said(arms) is None
    if len(set(families.values())) > 1:
        assert "main model" in said(arms)
