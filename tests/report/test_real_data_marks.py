"""Scores whose evaluator used real images are marked in every table, and never set against those without."""

import csv
import io
import json

import pytest
from studies import ddbench
from synthetic import set_record, student_record, write_store

from harness.report.comparing.comparison import compare
from harness.report.comparing.question import Question
from harness.report.scores import read_scores

pytestmark = pytest.mark.usefixtures("blank_pictures")

SIGN = "◊"
MEANING = "their evaluator used real images"
GAIN = {"plain": 0.1, "kd": 0.05, "tutored": -0.1, "warm": -0.05}
"""By evaluator, what main-similar adds; the last two use real images."""


def written(evaluators=tuple(GAIN), distillations=4):
    for pool in ("single[main=convnet]", "main-similar[main=convnet]"):
        for distillation in range(distillations):
            of = set_record(pool=pool, distillation=distillation)
            yield of
            for evaluator in evaluators:
                real = {"real_data": True} if evaluator in ("tutored", "warm") else {}
                # A difference that never varies would have no interval.
                luck = (-0.002, 0.002, 0.001, -0.001)[distillation % 4]
                gain = GAIN[evaluator] + luck if pool.startswith("main-similar") else 0.0
                for architecture in ("convnet", "mlp"):
                    accuracy = 0.4 + 0.3 * bool(real) + gain + 0.002 * distillation
                    yield student_record(
                        of, evaluator=evaluator, architecture=architecture, accuracy=accuracy, **real
                    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("marks") / "store", list(written()))


def shown(*words):
    result = ddbench(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_evaluators_are_never_compared_across(store):
    stored = read_scores([store])
    for baseline, others in (("plain", {"kd"}), ("tutored", {"warm"})):
        comparison = compare(stored, Question(by="evaluator", baseline=baseline))
        assert {label for row in comparison.rows for label in row.effects} == others
        assert all(len({arm.real_data for arm in row.arms.values()}) == 1 for row in comparison.rows)


def test_verdicts_are_counted_apart(store):
    text = shown("compare", store, "--over", "all")
    assert "main-similar against single: helps in 2 of 2 comparisons" in text
    assert f"main-similar against single {SIGN}: hurts in 2 of 2 comparisons" in text
    assert MEANING in text


@pytest.mark.parametrize("words", [(), ("--details",)])
def test_numbers_of_a_comparison_are_marked(store, words):
    text = shown("compare", store, "--by", "evaluator", "--baseline", "plain", *words)
    marked = [line for line in text.splitlines() if SIGN in line]
    assert any("70." in line for line in marked)
    assert not any("40." in line and line.count(SIGN) > 2 for line in marked)
    assert sum(MEANING in line for line in marked) == 1
    without = shown("compare", store, "--by", "evaluator", "--baseline", "plain", "--evaluator", "kd", *words)
    assert SIGN not in without


def test_programs_read_a_column(store):
    rows = list(csv.DictReader(io.StringIO(shown("compare", store, "--format", "csv"))))
    assert {row["evaluator"]: row["real_data"] for row in rows} == {
        "plain": "False", "kd": "False", "tutored": "True", "warm": "True",
    }  # fmt: skip
    content = json.loads(shown("compare", store, "--format", "json"))
    assert {row["evaluator"] for row in content["rows"] if row["real_data"]} == {"tutored", "warm"}


def test_papers_mark_them_in_groups_of_their_own(store):
    text = shown("table", store, "--format", "markdown", "--evaluator", "plain", "--evaluator", "tutored")
    plain, tutored = text.partition("*tutored*")[::2]
    assert SIGN not in plain
    assert text.count(SIGN) == 5, "four numbers and their footnote"
    assert f"**70.3**±0.3{SIGN}" in tutored
    latex = shown("table", store, "--evaluator", "tutored")
    assert r"$\diamond$" in latex
    assert SIGN not in latex
    rows = list(csv.reader(io.StringIO(shown("table", store, "--format", "csv", "--evaluator", "plain,tutored"))))
    place = rows[0].index("convnet real_data")
    assert {(row[0], row[place]) for row in rows[1:]} == {("plain", "False"), ("tutored", "True")}


def test_the_page_marks_them(store, tmp_path):
    page = tmp_path / "page.html"
    shown("report", store, "--output", page)
    text = page.read_text()
    assert MEANING in text
    assert SIGN in text
    plain = write_store(tmp_path / "plain", list(written(["plain"])))
    shown("report", plain, "--output", page)
    assert SIGN not in page.read_text()


def test_records_of_before_used_no_real_data(store):
    scores = read_scores([store]).scores
    assert {score.evaluator for score in scores if score.real_data} == {"tutored", "warm"}


def test_labels_beside_the_set_are_storage(tmp_path):
    of = set_record()
    students = [student_record(of, evaluator=name, extra_bits=bits) for name, bits in (("a", 0), ("b", 33))]
    store = write_store(tmp_path / "store", [of, *students])
    assert {score.evaluator: score.storage for score in read_scores([store]).scores} == {"a": 2560, "b": 2562}


def test_robust_scores_mark_what_used_real_images(tmp_path):
    roles = {"bare": 0.3, "augmented": 0.35, "tutored": 0.5}
    # No set is read of a method without pool, and there is none behind these records.
    sets = [set_record(method="kip", pool=None), set_record(method="random", pool=None, iterations=None)]
    sets.append(set_record(method="whole", pool=None, iterations=None, ipc=None))
    students = [
        student_record(of, evaluator=name, accuracy=accuracy, **({"real_data": True} if name == "tutored" else {}))
        for of in sets
        for name, accuracy in roles.items()
    ]
    store = write_store(tmp_path / "store", [*sets, *students])

    def cells(**options):
        words = ",".join(f"{name}={value}" for name, value in options.items())
        text = shown("report", store, "--report", f"robust-scores[{words}]", "--output", "-")
        row = next(line for line in text.splitlines() if line.startswith("| digits"))
        return [cell.strip() for cell in row.split("|")[7:9]], MEANING in text

    (lrs, ars), explained = cells(hard="bare", augmented="augmented")
    assert SIGN not in lrs + ars
    assert not explained
    (lrs, ars), explained = cells(hard="bare", own="tutored", augmented="augmented")
    assert lrs.endswith(SIGN), "its gain over random images is with a teacher on real data"
    assert SIGN not in ars
    assert explained
    (lrs, ars), explained = cells(hard="bare", augmented="tutored")
    assert SIGN not in lrs
    assert ars.endswith(SIGN)
    assert explained
