"""The parsed names that scores carry."""

import dataclasses

from harness.report.comparing.ambiguous_names import distinguish
from harness.report.comparing.question import values_meant_by
from harness.types.score import Score

SCORE = Score(
    store="s", key="k", set_key="k2", dataset='folder[path="/data/a (b)"]', ipc=1, iterations=10,
    method="dc[batch_real=4]", pool=None, evaluator="plain", architecture="convnet", protocol="plain v1",
    precision="fp32", score_on="test", scored="f", seed=0, distillation=0, student=0, accuracy=0.5, collapsed=False,
    status="done", device="cpu", seconds=1.0, peak_memory=1,
)  # fmt: skip


def test_names_are_parsed_once_and_miss_what_the_score_lacks():
    assert SCORE.names["method"].options == (("batch_real", "4"),)
    assert "pool" not in SCORE.names
    assert SCORE.names is SCORE.names


def test_a_qualifier_is_not_part_of_the_name():
    qualified = SCORE.qualified("method", "version 2").qualified("method", "#abc")
    assert qualified.method == "dc[batch_real=4] (version 2) (#abc)"
    assert qualified.names == SCORE.names
    assert qualified.typed_name("method") == SCORE.method


def test_a_name_that_holds_a_bracket_itself_is_not_cut():
    others = [dataclasses.replace(SCORE, identities={"dataset": f"[{n}]"}, key=str(n)) for n in (1, 2)]
    scores, notes = distinguish(others, by_store=False)
    assert len({score.dataset for score in scores}) == 2
    assert len(notes) == 1
    assert {score.names["dataset"] for score in scores} == {SCORE.names["dataset"]}
    assert set(values_meant_by("folder", scores, "dataset")) == {score.dataset for score in scores}


def test_a_file_that_is_no_name_stands_for_itself():
    assert dataclasses.replace(SCORE, method="file:my set.pt").names["method"].name == "file:my set.pt"
