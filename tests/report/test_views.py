"""The views of comparisons and runs: golden outputs at 80 and 120 columns, and numbers that no width cuts.

``DDBENCH_WRITE_VIEWS=1 pytest -n 0 tests/report/test_views.py`` writes the files anew; look at each of them then.
"""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from synthetic import set_record, student_record, write_store
from terminals import at_width, on_a_terminal

from harness.report.comparing.comparison import compare
from harness.report.comparing.question import Question
from harness.report.scores import Scores
from harness.report.tables.comparison_view import print_comparison
from harness.types.score import Score

GOLDEN = Path(__file__).parents[1] / "data" / "views"
WIDTHS = (80, 120)
LETTERS = st.characters(codec="utf-8", categories=("L", "N", "P", "S"))


def check(name, columns, text):
    """Compare a view with its file, and check that it fits."""
    path = GOLDEN / f"{name}-{columns}.txt"
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get("DDBENCH_WRITE_VIEWS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
    assert all(cell_len(line) <= columns for line in text.splitlines())


def records(pools, methods=("dc",), evaluators=("plain",), distillations=4):
    """Pools whose accuracy is that of single and a bit more, which varies between distillations."""
    for method in methods:
        for pool, more in pools.items():
            for distillation in range(distillations):
                of = set_record(method=method, pool=pool, distillation=distillation)
                yield of
                for evaluator in evaluators:
                    for number, architecture in enumerate(("convnet", "mlp", "lenet")):
                        luck = (-0.01, 0.01, 0.004, -0.004)[distillation % 4]
                        for student in (0, 1):
                            accuracy = (
                                0.3
                                + 0.05 * number
                                + luck
                                + (more + luck / 2) * (number > 0 and more != 0)
                                + 0.002 * student
                            )
                            yield student_record(of, evaluator=evaluator, architecture=architecture, student=student,
                                                 accuracy=accuracy)  # fmt: skip


TWO = {"single": 0.0, "main-similar": 0.02}
MANY = {
    "single[main=convnet]": 0.0,
    "main-similar[main=convnet,warmup=500]": 0.02,
    "main-similar[main=convnet,warmup=0]": 0.001,
    "total-random[main=convnet]": -0.1,
}
STUDIES = {
    "compare": (TWO, {}, ()),
    "compare-details": (TWO, {}, ("--details",)),
    "compare-many": (MANY, {}, ("--baseline", "single")),
    "compare-conditions": (TWO, {"methods": ("dc", "dm[lr_img=1]"), "evaluators": ("plain", "kd")}, ()),
    "compare-students-of-one-set": (TWO, {"distillations": 1}, ()),
}


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("study", STUDIES)
def test_comparisons_look_as_in_their_files(tmp_path, monkeypatch, study, columns):
    monkeypatch.chdir(tmp_path)
    pools, more, words = STUDIES[study]
    write_store(tmp_path / "ddbench-store", list(records(pools, **more)))
    check(study, columns, on_a_terminal(columns, "compare", *words))


# --- no width cuts a number -------------------------------------------------------------------------------------------


def score(pool, architecture, distillation, accuracy):
    return Score(
        store="s", key=f"{pool}{architecture}{distillation}", set_key=f"{pool}{distillation}", dataset="digits", ipc=1,
        iterations=100, method="dc", pool=pool, evaluator="plain", architecture=architecture, protocol="plain v1",
        precision="fp32", score_on="test", scored="x", seed=0, distillation=distillation, student=0, accuracy=accuracy,
        collapsed=False, status="done", device="cpu", seconds=1.0, peak_memory=1,
    )  # fmt: skip


NAMES = st.text(LETTERS, min_size=1, max_size=60)
ACCURACIES = st.lists(st.floats(0, 1), min_size=2, max_size=2)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(NAMES, min_size=2, max_size=4, unique=True),
    st.lists(NAMES, min_size=1, max_size=3, unique=True),
    st.integers(20, 200),
    st.data(),
)
def test_a_comparison_shows_every_number_at_any_width(pools, architectures, columns, data):
    accuracies = {(pool, name): data.draw(ACCURACIES) for pool in pools for name in architectures}
    scores = [
        score(*arm, distillation, accuracy)
        for arm, values in accuracies.items()
        for distillation, accuracy in enumerate(values)
    ]
    comparison = compare(Scores(tuple(scores), (), ("s",)), Question("pool", pools[0]))
    text = at_width(columns, lambda file: print_comparison(comparison, file=file))
    words = set(re.split(r"[\s()]+", text))
    for row in comparison.rows:
        if row.kind in ("architecture", "all"):
            for arm in row.arms.values():
                assert f"{100 * arm.mean:.1f}±{100 * arm.std_distillations:.1f}" in words
            for effect in row.effects.values():
                assert f"{100 * effect.estimate.difference:+.1f}".replace("-", "−") in words
    assert "…" not in text
