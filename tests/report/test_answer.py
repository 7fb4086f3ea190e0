"""The matrix of verdicts, the three sentences made from it, and the pictures beside it."""

import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from synthetic import study, write_store

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
    question, verdicts, certainty = sentences_of(matrix(gain=0.3, distillations=4))
    assert question == (
        "main-similar is compared with single by the mean accuracy of all students: "
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


def set_record(distillation, losses):
    return SetRecord("s", "k", "digits", 1, 3, "dc", "single", 0, distillation, "done", 1.0, 1, {"loss": losses},
                     ("convnet",), ((0,),) * 3, "c", lambda: None)  # fmt: skip


@pytest.mark.parametrize(("sign", "lowest"), [(1, 0.0), (-1, None)], ids=["squares", "signed"])
def test_bands_stay_where_the_quantity_lives(monkeypatch, sign, lowest):
    """A squared loss is not negative, however much it varies; another loss may be."""
    bands, whole = [], Axes.fill_between
    monkeypatch.setattr(
        Axes, "fill_between", lambda axes, x, *band, **rest: (bands.append(band), whole(axes, x, *band, **rest))[1]
    )
    trajectories = [set_record(0, [0.1, 0.2, 0.1]), set_record(1, [sign * 1.5, 1.4, 1.3])]
    section = curves_section([], trajectories, Palette(["single"], ["dc"]))
    assert section.parts[0].pictures
    ((low, high),) = bands
    assert np.all(low < high)
    assert low.min() == lowest if lowest is not None else low.min() < -0.5
