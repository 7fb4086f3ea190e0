"""Students trained in blocks, as on a GPU: the same as one by one, up to rounding."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import TINY_CONVNET, component, toy_problem, toy_set

from harness import Lesson, Recipe, Streams, train_students
from harness.learning import students
from harness.learning.students import block_size, blocks
from mpdd_plugins.augmentations.dsa import dsa_augmentation

NAMES = (TINY_CONVNET, "convnet[width=4,depth=2,norm=batch]", "mlp[width=8]")


@pytest.fixture
def lesson(toy):
    return Lesson(toy_set(toy, 2), Recipe(epochs=6, lr=0.02, batch=4), Streams(0))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Take the way that students go on a GPU, in blocks of four."""
    decide = students._in_blocks
    monkeypatch.setattr(students, "BLOCK", 4)
    monkeypatch.setattr(students, "_in_blocks", lambda problem, architecture: True)
    return decide


def assert_same(record, other):
    assert (record.student, record.epochs, record.collapsed) == (other.student, other.epochs, other.collapsed)
    assert record.losses == pytest.approx(other.losses, rel=1e-3)
    assert record.accuracy == pytest.approx(other.accuracy, abs=1.1 / 18)
    assert record.seconds > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_block_gives_what_each_of_its_students_would_have_become_alone(toy, lesson, name, as_on_a_gpu, monkeypatch):
    records = list(train_students(lesson, toy, component("architecture", name), [0, 1, 3, 4]))
    assert [record.abreast for record in records] == [3, 3, 3, 1]
    monkeypatch.undo()
    expected = list(train_students(lesson, toy, component("architecture", name), [0, 1, 3, 4]))
    assert [record.abreast for record in expected] == [1] * 4
    for record, other in zip(records, expected, strict=True):
        assert_same(record, other)


def test_losses_and_augmentation_are_each_students_own(toy, lesson, as_on_a_gpu, monkeypatch):
    asked = []

    def loss_of(student):
        asked.append(student)
        return lambda batch: (student + 1) * students.cross_entropy(batch)

    own = dataclasses.replace(lesson, loss=loss_of, augment=dsa_augmentation("crop+flip"))
    records = list(train_students(own, toy, component("architecture", TINY_CONVNET), [1, 2]))
    assert asked == [1, 2]
    monkeypatch.undo()
    for record, other in zip(
        records, train_students(own, toy, component("architecture", TINY_CONVNET), [1, 2]), strict=True
    ):
        assert_same(record, other)


def test_on_a_cpu_there_are_no_blocks(toy, as_on_a_gpu):
    assert not as_on_a_gpu(toy, component("architecture", TINY_CONVNET))


@given(st.lists(st.integers(0, 99), unique=True).map(sorted), st.integers(1, 30))
def test_blocks_are_fixed_by_index(asked, size):
    parts = list(blocks(asked, size))
    assert [student for block in parts for student in block] == asked
    assert [{student // size for student in block} for block in parts] == [
        {number} for number in sorted({student // size for student in asked})
    ]


@pytest.mark.parametrize(
    ("ipc", "batch", "size"),
    [(1, 256, 20), (12, 256, 20), (40, 256, 20), (60, 256, 14), (90, 256, 10), (90, 128, 20), (9, 1, 20)],
)
def test_how_many_a_block_has_is_decided_by_the_images_of_a_step(ipc, batch, size):
    problem = toy_problem(train=ipc)
    assert block_size(Lesson(toy_set(problem, ipc), Recipe(batch=batch), Streams(0))) == size
