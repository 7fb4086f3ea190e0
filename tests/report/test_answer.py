"""The matrix of verdicts, the three sentences made from it, and the pictures beside it."""

import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from synthetic import ARCHITECTURES, set_record, student_record, study, write_store

from harness.report.answer.matrix import matrix_of
from harness.report.answer.sentences import sentences_of
from harness.report.comparing.comparison import compare
from harness.report.comparing.question import Question
from harness.report.page.answer import answer_part
from harness.report.page.drawing.pictures import Palette
from harness.report.page.history import curves_section
from harness.report.scores import read_scores
from harness.types.report import SetRecord


@pytest.fixture
def matrix(tmp_path):
    """Return the matrix of a synthetic study."""

    def make(**fields):
        store = write_store(tmp_path / f"store{len(list(tmp_path.iterdir()))}", study(**fields))
        return matrix_of(compare(read_scores([store]), Question("pool", "single")))

    return make


def test_the_sentences_name_the_arms_the_students_and_the_numbers(matrix):
    question, verdicts, certainty = sentences_of(matrix(gain=0.3, distillations=4, architectures=ARCHITECTURES[:3]))
    assert question == (
        "main-similar is compared with single by the mean accuracy of students other than convnet (lenet, mlp): "
        "dc, digits, ipc 1, 1000 iterations, with plain."
    )
    assert re.fullmatch(r"main-similar helps \(\+[\d.]+ \[\+[\d.]+, \+[\d.]+\]\)\.", verdicts)
    assert re.fullmatch(
        r"Brackets are 95\u00a0% intervals in points \(±[\d.]+\), from 4 distillations of each; nothing is undecided\.",
        certainty,
    )


def test_verdicts_are_by_row_and_many_are_counted(matrix):
    few = matrix(methods=("dc", "dm"), gain=-0.3)
    assert [row.name for row in few.rows] == ["dc", "dm"]
    assert re.fullmatch(r"main-similar hurts dc, −.* and dm, −.*\.", sentences_of(few)[1])
    many = matrix(methods=("dc", "dm", "mtt"), evaluators=("plain", "kd"), pools=("single", "mix", "main-similar"))
    assert [row.name for row in many.rows] == [
        f"{method} (with {evaluator})" for method in ("dc", "dm", "mtt") for evaluator in ("kd", "plain")
    ]
    _, verdicts, _ = sentences_of(many)
    assert len(re.findall(r"(?:mix|main-similar): .*? of 6 rows", verdicts)) == 2
    for label in many.others:
        differences = [row.cells[label].effect.estimate.difference for row in many.rows]
        ends = [f"{100 * end:+.1f}".replace("-", "−") for end in (min(differences), max(differences))]
        assert " to ".join(ends) in verdicts


def test_what_is_undecided_says_what_would_decide_it_and_one_set_decides_nothing(matrix):
    undecided = matrix(distillations=3)
    (cell,) = [cell for _, _, cell in undecided.cells]
    assert cell.verdict.word == "undecided"
    assert f"to decide what is undecided takes about {cell.more} more distillations each." in sentences_of(undecided)[2]
    alone = sentences_of(matrix(distillations=1))
    assert alone[1].startswith("main-similar is undecided")
    assert alone[2] == "There is 1 distillation of each, which says nothing about other sets: nothing can be decided."


def test_table_and_forest_plot_show_every_cell_in_the_colour_of_its_verdict(matrix):
    shown = matrix(methods=("dc", "dm"), gain=0.3, distillations=3)
    part = answer_part(shown)
    (table,), (picture,) = part.tables, part.pictures
    entries = [(row.head, entry) for group in table.groups for row in group.rows for entry in row.cells]
    assert [head for head, _ in entries] == ["dc", "dm"]
    for (_, entry), (_, _, cell) in zip(entries, shown.cells, strict=True):
        assert entry.kind == {"helps": "helps", "undecided": "undecided"}[cell.verdict.word]
        assert f"{entry.text} {entry.spread} {cell.verdict.word}" in picture.alt
        assert entry.below.endswith("3 distillations each")


def matrix_of_records(folder, records):
    return matrix_of(compare(read_scores([write_store(folder, records)]), Question("pool", "single")))


def test_the_only_student_other_than_the_main_model_stands_for_the_others(matrix):
    assert {row.over for row in matrix(architectures=("convnet", "lenet")).rows} == {"lenet"}
    assert {row.over for row in matrix(architectures=("mlp", "lenet")).rows} == {"all students (lenet, mlp)"}


def test_an_arm_with_fewer_students_is_judged_by_those_that_it_has(tmp_path):
    records = list(study(architectures=ARCHITECTURES[:3], pools=("single", "main-similar")))
    records += study(architectures=("convnet", "mlp"), pools=("total-random",), seed=2)
    shown = matrix_of_records(tmp_path, records)
    over = {name: row.over for row, name, _ in shown.cells}
    assert over == {"main-similar": "students other than convnet (lenet, mlp)", "total-random": "mlp"}
    assert all(row.name == row.over for row in shown.rows), "rows that differ in their students say so"
    assert all(name in sentences_of(shown)[1] for name in over)


def test_what_went_wrong_is_marked_and_counted(tmp_path):
    records = []
    for pool, status in (("single", "done"), ("wild", "blown up")):
        for distillation in range(2):
            of = set_record(pool=pool, distillation=distillation, status=status if distillation else "done")
            students = [
                student_record(
                    of, architecture="mlp", student=student, accuracy=0.1 + distillation / 50 + (pool == "wild") / 10,
                    collapsed=pool == "wild" and student == 0,
                )
                for student in range(3)
            ]  # fmt: skip
            records += [of, *students]
    shown = matrix_of_records(tmp_path, records)
    assert "+10.0†" in sentences_of(shown)[1]
    assert "† wild: 1 of 2 sets blown up, 2 of 6 students collapsed" in shown.legend
    (entry,) = answer_part(shown).tables[0].groups[0].rows[0].cells
    assert entry.text == "+10.0†"


def test_the_certainty_says_what_a_correction_for_many_tests_leaves(matrix):
    strong = matrix(methods=("dc", "dm"), gain=0.3, distillations=6)
    assert "; 2 of 2 decided differences stay so when corrected for 2 tests (Holm);" in sentences_of(strong)[2]
    # Holm's method by hand: the smallest p value times the number of tests, the next times one less, until one fails.
    weak = matrix(methods=("dc", "dm", "dsa", "mtt", "idc"), gain=0.06, distillations=3)
    smallest_first = sorted(cell.effect.estimate.p for _, _, cell in weak.cells)
    survives = [p * (5 - place) < 0.05 for place, p in enumerate(smallest_first)]
    stay, decided = survives.index(False), sum(p < 0.05 for p in smallest_first)
    assert stay < decided
    assert f"; {stay} of {decided} decided differences " in sentences_of(weak)[2]


def test_the_need_spans_what_is_known_and_counts_what_is_not(tmp_path):
    records = list(study(methods=("dc", "dm"), distillations=3, architectures=("mlp",)))
    records += study(methods=("mtt",), distillations=1, architectures=("mlp",))
    shown = matrix_of_records(tmp_path, records)
    known = sorted(cell.more for _, _, cell in shown.cells if cell.more)
    assert len(known) == 2 < len(shown.cells)
    need = sentences_of(shown)[2].partition("to decide what is undecided takes ")[2]
    assert need == f"about {known[0]} to {known[1]} more distillations each (unknown for 1 of 3)."


def set_with_losses(distillation, losses):
    return SetRecord("s", "k", "digits", 1, 3, "dc", "single", 0, distillation, "done", 1.0, 1, {"loss": losses},
                     ("convnet",), ((0,),) * 3, "c", lambda: None)  # fmt: skip


@pytest.mark.parametrize(("sign", "lowest"), [(1, 0.0), (-1, None)], ids=["squares", "signed"])
def test_bands_stay_where_the_quantity_lives(monkeypatch, sign, lowest):
    """A squared loss is not negative, however much it varies; another loss may be."""
    bands, whole = [], Axes.fill_between
    monkeypatch.setattr(
        Axes, "fill_between", lambda axes, x, *band, **rest: (bands.append(band), whole(axes, x, *band, **rest))[1]
    )
    trajectories = [set_with_losses(0, [0.1, 0.2, 0.1]), set_with_losses(1, [sign * 1.5, 1.4, 1.3])]
    section = curves_section([], trajectories, Palette(["single"], ["dc"]))
    assert section.parts[0].pictures
    ((low, high),) = bands
    assert np.all(low < high)
    assert low.min() == lowest if lowest is not None else low.min() < -0.5
