"""The views of comparisons and runs: golden outputs at 80 and 120 columns, and numbers that no width cuts.

``DDBENCH_WRITE_VIEWS=1 pytest -n 0 tests/report/test_views.py`` writes the files anew; look at each of them then.
"""

import itertools
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from studies import ddbench
from synthetic import set_record, student_record, write_store
from terminals import at_width, on_a_terminal

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.comparison import compare
from harness.report.comparing.question import Question
from harness.report.scores import Scores
from harness.report.tables.comparison_view import print_comparison
from harness.report.tables.run_view import print_run
from harness.types.score import Score

GOLDEN = Path(__file__).parents[1] / "data" / "views"
WIDTHS = (80, 120)
LETTERS = st.characters(codec="utf-8", categories=("L", "N", "P", "S"))


def check(name, columns, text):
    """Compare a view with its file, and check that it fits; a table of a paper has no width."""
    path = GOLDEN / (f"{name}-{columns}.txt" if columns else f"{name}.txt")
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get("DDBENCH_WRITE_VIEWS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
    assert columns is None or all(cell_len(line) <= columns for line in text.splitlines())


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
    "compare-labels": (
        MANY,
        {},
        (
            "--baseline",
            "base",
            *(
                f"--label={label}"
                for label in ("base=single", "ours=main-similar[warmup=500]", "no warm-up=main-similar[warmup=0]")
            ),
        ),
    ),
    "compare-architectures": (TWO, {}, ("--by", "architecture", "--baseline", "convnet", "--pool", "single")),
    "compare-students-of-one-set": (TWO, {"distillations": 1}, ()),
}


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("study", STUDIES)
def test_comparisons_look_as_in_their_files(tmp_path, monkeypatch, study, columns):
    monkeypatch.chdir(tmp_path)
    pools, more, words = STUDIES[study]
    write_store(tmp_path / "ddbench-store", list(records(pools, **more)))
    check(study, columns, on_a_terminal(columns, "compare", *words))


@pytest.mark.parametrize("form", ["latex", "markdown", "csv"])
def test_tables_of_papers_look_as_in_their_files(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "ddbench-store", list(records(MANY, methods=("dc", "dm"))))
    words = ("--label", "ours=main-similar[warmup=500]", "--format", form)
    check(f"table-{form}", None, ddbench("table", *words).stdout)


ROW = {
    "dataset": "digits", "ipc": 1, "iterations": 100, "method": "dc", "pool": "single", "evaluator": "plain",
    "students": 2, "distillations": 2, "collapsed": 0, "status": "done", "protocol": "plain v1", "seed": 0,
    "device": "cpu", "score_on": "test", "like": None, "preprocessing": "auto",
}  # fmt: skip


def run_rows(values, **fields):
    """A row for each architecture, from the accuracies of two students of two distillations, and these."""
    rows, of_rows = [], []
    for architecture, accuracies in values.items():
        by_distillation = {(0, d): dict(enumerate(students)) for d, students in enumerate(accuracies)}
        arm = ArmScores("", by_distillation, (), (architecture,))
        spread = {"std_students": arm.std_students, "std_distillations": arm.std_distillations}
        numbers = {"mean": arm.mean, "median": arm.median, **spread, "distillations": len(accuracies)}
        rows.append({**ROW, "architecture": architecture, **numbers, **fields})
        of_rows.append(by_distillation)
    return rows, of_rows


def joined(*arms):
    """Rows and accuracies of several arms."""
    return [row for rows, _ in arms for row in rows], [values for _, of_rows in arms for values in of_rows]


def accuracies(more, distillations=2):
    return {name: [(0.3 + place / 20 + more + d / 100, 0.31 + place / 20 + more) for d in range(distillations)]
            for place, name in enumerate(("convnet[width=16]", "mlp[width=16]"))}  # fmt: skip


def pools(**fields):
    return joined(run_rows(accuracies(0), pool="single", **fields),
                  run_rows(accuracies(0.02) | {"mlp[width=16]": [(0.4, 0.42), (0.43, 0.45)]},
                           pool="main-similar[main=convnet[width=16]]", **fields))  # fmt: skip


RUNS = {
    "run": lambda: run_rows(accuracies(0, 1)),
    "run-pools": pools,
    "run-methods": lambda: joined(
        *(run_rows(accuracies(n / 20), method=method, evaluator=evaluator) for n, (method, evaluator)
          in enumerate(itertools.product(("dc", "dm", "dc[lr_img=1]", "random"), ("plain", "kd"))))
    ),
    "run-conditions": lambda: joined(*(pools(iterations=iterations) for iterations in (100, 1000))),
}  # fmt: skip


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("study", RUNS)
def test_runs_look_as_in_their_files(study, columns):
    rows, values = RUNS[study]()
    check(study, columns, at_width(columns, lambda file: print_run(rows, values, notes=["store: s"], file=file)))


def test_what_failed_or_collapsed_is_named_and_has_no_number():
    rows, values = run_rows(accuracies(0))
    rows[0] |= {"mean": None, "std_students": None, "std_distillations": None, "status": "failed"}
    rows[1] |= {"status": "blown up", "collapsed": 2, "code_versions": 2}
    text = at_width(80, lambda file: print_run(rows, [{}, values[1]], file=file))
    assert re.search(r"^convnet +–$", text, re.MULTILINE)
    assert "reservations about 2 of 2 numbers (failed, blown up, collapsed, mixed code)" in " ".join(text.split())


def test_published_numbers_stand_below_ours_if_they_are_asked_for():
    row = {"like": "cifar10", "preprocessing": "cifar10", "iterations": 1000, "pool": "total-random"}
    rows, values = run_rows({"mlp": [(0.1, 0.11)]}, **row)
    shown, hidden = (
        at_width(80, lambda file, published=published: print_run(rows, values, published=published, file=file))
        for published in (True, False)
    )
    assert re.search(r"^ +published +10\.3", shown, re.MULTILINE)
    assert "published:" in shown
    assert "published" not in hidden


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


@settings(deadline=None, max_examples=60)
@given(
    st.lists(NAMES, min_size=1, max_size=4, unique=True),
    st.lists(NAMES, min_size=1, max_size=3, unique=True),
    st.integers(20, 200),
    st.data(),
)
def test_a_run_shows_every_number_at_any_width(others, architectures, columns, data):
    arms = [run_rows({name: [data.draw(ACCURACIES), data.draw(ACCURACIES)] for name in architectures}, pool=pool)
            for pool in dict.fromkeys(["single", *others])]  # fmt: skip
    rows, values = joined(*arms)
    text = at_width(columns, lambda file: print_run(rows, values, file=file))
    words = set(re.split(r"[\s()]+", text))
    for row in rows:
        assert f"{100 * row['mean']:.1f}±{100 * row['std_distillations']:.1f}" in words
    for row in rows[len(architectures) :]:
        (first,) = (other for other in rows[: len(architectures)] if other["architecture"] == row["architecture"])
        difference = 100 * (row["mean"] - first["mean"])
        assert abs(difference) < 0.06 or any(
            f"{difference + nudge:+.1f}".replace("-", "−") in words for nudge in (0, 1e-9, -1e-9)
        )
    assert "…" not in text
