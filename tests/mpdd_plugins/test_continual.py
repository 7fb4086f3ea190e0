"""Class-incremental replay: its degenerate cases, its memory, and each step as an independent run of plain."""

import dataclasses
import itertools
from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_networks import SHAPE
from studies import small_run
from toys import TINY_MLP, DropoutNetwork, FromFunction, component, toy_problem, toy_set

from harness import DataError, DistilledSet, Problem, Split, Streams
from mpdd_plugins.evaluators.continual import class_order, restricted_problem, restricted_set, seen_after, with_steps

PROBLEM = toy_problem()
DISTILLED = toy_set(PROBLEM, 2)


def evaluated(name, students=(0, 1), *, distilled=DISTILLED, problem=PROBLEM, architecture=None, seed=0):
    built = architecture or component("architecture", TINY_MLP)
    return list(component("evaluator", name).evaluate(distilled, problem, built, students, {}, Streams(seed)))


def numbers(record, *without):
    fields = dataclasses.asdict(record)
    return {key: value for key, value in fields.items() if key not in ("seconds", "peak_memory", *without)}


@pytest.mark.parametrize("protocol", ["v1", "dsa"])
def test_one_step_is_plain(protocol):
    plain = evaluated(f"plain[protocol={protocol},epochs=3]")
    continual = evaluated(f"continual[steps=1,protocol={protocol},epochs=3]")
    for ours, theirs in zip(continual, plain, strict=True):
        assert numbers(ours, "metrics") == numbers(theirs, "metrics")
        assert ours.metrics == {"average_accuracy": theirs.accuracy, "step-1": theirs.accuracy}


def test_the_last_step_is_plain_whatever_the_steps():
    plain = evaluated("plain[epochs=3]")
    for ours, theirs in zip(evaluated("continual[steps=3,epochs=3]"), plain, strict=True):
        assert numbers(ours, "metrics") == numbers(theirs, "metrics")
        assert ours.metrics["step-3"] == ours.accuracy
        assert ours.metrics["average_accuracy"] == fmean(ours.metrics[f"step-{step}"] for step in (1, 2, 3))


def test_metrics_are_named_in_the_order_of_the_steps():
    (last,) = evaluated("plain[epochs=1]", [0])
    assert list(with_steps([last] * 10).metrics) == ["average_accuracy", *(f"step-{n:02}" for n in range(1, 11))]
    assert list(with_steps([last] * 5).metrics)[1] == "step-1"


def test_a_single_class_is_always_right():
    assert all(record.metrics["step-1"] == 1.0 for record in evaluated("continual[steps=3,epochs=2]"))


def test_a_step_is_plain_on_a_problem_of_the_classes_seen():
    """By an independent construction: labels renumbered by a dictionary, images taken in a loop."""
    record = evaluated("continual[steps=3,epochs=4]", [1])[0]
    seen = sorted(class_order(Streams(0), 1, 3)[:2])
    new = {label: seen.index(label) for label in seen}

    def taken(images, labels):
        rows = [row for row, label in enumerate(labels.tolist()) if label in new]
        return images[rows], torch.tensor([new[int(labels[row])] for row in rows])

    classes = tuple(PROBLEM.classes[label] for label in seen)
    score = Split(*taken(PROBLEM.score.images, PROBLEM.score.labels))
    problem = Problem("two", PROBLEM.train, score, "test", classes, PROBLEM.preprocessing)
    memory = DistilledSet(*taken(*DISTILLED.training_data()), classes, PROBLEM.preprocessing)
    built = component("architecture", TINY_MLP)
    own = Streams(Streams(0).number("continual-step", 1))
    (alone,) = component("evaluator", "plain[epochs=4]").evaluate(memory, problem, built, [1], {}, own)
    assert record.metrics["step-2"] == alone.accuracy
    assert 0 < alone.accuracy <= 1


def test_orders_differ_between_students_and_seeds():
    orders = {tuple(class_order(Streams(seed), student, 10)) for seed in range(3) for student in range(5)}
    assert len(orders) == 15
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert class_order(Streams(0, 1), 0, 10) != class_order(Streams(0), 0, 10)


@given(st.integers(1, 200), st.data())
def test_steps_add_as_equal_numbers_of_classes_as_can_be(classes, data):
    steps = data.draw(st.integers(1, classes))
    after = seen_after(classes, steps)
    added = [after[0], *(b - a for a, b in itertools.pairwise(after))]
    assert after[-1] == classes
    assert max(added) - min(added) <= 1
    assert sorted(added, reverse=True) == added


def test_soft_labels_keep_their_ratios_and_sum_to_one():
    soft = toy_set(PROBLEM, 2, kind="soft")
    memory = restricted_set(soft, [2, 0])
    weights = memory.training_data()[1]
    assert memory.classes == (PROBLEM.classes[0], PROBLEM.classes[2])
    torch.testing.assert_close(weights[0], torch.tensor([0.8, 0.1]) / 0.9)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert 0 <= evaluated("continual[steps=2,epochs=2]", [0], distilled=soft)[0].metrics["step-1"] <= 1


def test_no_training_image_and_no_metric_reaches_a_step():
    restricted = restricted_problem(dataclasses.replace(PROBLEM, metrics={"ece": None}), [1])
    assert (len(restricted.train), restricted.metrics, restricted.shape) == (0, {}, SHAPE)
    assert restricted.score.labels.unique().tolist() == [0]


def test_a_class_without_images_is_named():
    images, labels = DISTILLED.training_data()
    first = class_order(Streams(0), 0, 3)[0]
    part = DistilledSet(images[labels != first], labels[labels != first], PROBLEM.classes, PROBLEM.preprocessing)
    with pytest.raises(DataError, match=f"no image of {PROBLEM.classes[first]}, the classes of a step"):
        evaluated("continual[steps=3,epochs=1]", [0], distilled=part)


def test_students_with_dropout_depend_on_nobody():
    architecture = FromFunction(DropoutNetwork)
    together = evaluated("continual[steps=2,epochs=2]", (0, 1), architecture=architecture)
    (alone,) = evaluated("continual[steps=2,epochs=2]", (1,), architecture=architecture)
    assert numbers(alone) == numbers(together[1])


def test_threads_change_nothing(threads):
    threads(1)
    alone = [numbers(record) for record in evaluated("continual[steps=3,epochs=2]")]
    threads(3)
    assert [numbers(record) for record in evaluated("continual[steps=3,epochs=2]")] == alone


def test_work_is_the_sum_of_the_shares():
    plain, continual = (component("evaluator", name) for name in ("plain", "continual[steps=3]"))
    assert continual.work(PROBLEM, 6) == pytest.approx(2 * plain.work(PROBLEM, 6))


def test_a_run_has_the_metrics_and_says_what_is_not_applicable(data, tmp_path):
    """Of three classes: two steps are possible, four are not."""
    study = {"method": "random", "pool": None, "iterations": None, "architecture": TINY_MLP}
    evaluators = ["plain[epochs=2]", "continual[steps=2,epochs=2]", "continual[steps=4,epochs=2]"]
    result = small_run(data, tmp_path / "store", **study, evaluator=evaluators)
    rows = {row["protocol"].split()[0]: row for row in result.rows}
    assert set(rows) == {"plain", "continual"}
    ours = rows["continual"]
    assert ours["mean"] == rows["plain"]["mean"]
    assert ours["metrics"]["step-2"]["mean"] == pytest.approx(ours["mean"])
    assert set(ours["metrics"]) == {"average_accuracy", "step-1", "step-2"}
    assert any("4 steps need as many classes" in note for note in result.notes)
    assert ours["protocol"].endswith(" + steps=2")
