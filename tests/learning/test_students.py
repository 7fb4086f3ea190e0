"""Students trained side by side: the same numbers whoever trains beside them."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from toys import TINY_CONVNET, TINY_MLP, DropoutNetwork, FromFunction, component, toy_problem, toy_set

from harness import Lesson, Recipe, Streams, train_network, train_students
from harness.compute.network_traits import draws_globally
from harness.compute.parallel import side_by_side
from harness.learning.students import score
from harness.types.data.preprocessing import Normalize
from harness.types.network import Network
from harness.types.problem import Split

SIDE_BY_SIDE = {
    "convnet": lambda: component("architecture", TINY_CONVNET),
    "convnet with batch norm": lambda: component("architecture", "convnet[width=4,depth=2,norm=batch]"),
    "mlp": lambda: component("architecture", TINY_MLP),
}


@pytest.fixture(params=SIDE_BY_SIDE)
def architecture(request):
    return SIDE_BY_SIDE[request.param]()


@pytest.fixture
def dropout():
    return FromFunction(DropoutNetwork)


@pytest.fixture
def lesson(toy):
    return Lesson(toy_set(toy, 2), Recipe(epochs=6, lr=0.02, batch=4), Streams(0))


def numbers(records):
    """All of the records but time and memory."""
    return [dataclasses.replace(record, seconds=0.0, peak_memory=0) for record in records]


def test_two_students_and_then_three_more_are_five_at_once(toy, lesson, architecture, threads):
    threads(2)
    assert_two_and_three_are_five(toy, lesson, architecture)


def test_two_students_with_dropout_and_then_three_more_are_five_at_once(toy, lesson, dropout):
    assert_two_and_three_are_five(toy, lesson, dropout)


def assert_two_and_three_are_five(toy, lesson, architecture):
    five = numbers(train_students(lesson, toy, architecture, range(5)))
    two = numbers(train_students(lesson, toy, architecture, [0, 1]))
    three = numbers(train_students(lesson, toy, architecture, [2, 3, 4]))
    assert two + three == five
    assert [record.student for record in five] == list(range(5))
    assert len({record.losses for record in five}) == 5


def test_a_students_numbers_do_not_depend_on_threads_or_global_generators(toy, lesson, architecture, threads):
    results = []
    for count, seed in ((1, 1), (2, 2), (3, 3)):
        threads(count)
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(numbers(train_students(lesson, toy, architecture, [1, 0])))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == count
    assert results[0] == results[1] == results[2]


def test_dropout_does_not_depend_on_the_global_generator_and_leaves_it_alone(toy, lesson, dropout):
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(numbers(train_students(lesson, toy, dropout, [1, 0])))
        assert torch.equal(torch.get_rng_state(), before)
    assert results[0] == results[1]


def test_other_seeds_and_distillations_give_other_students(toy, lesson, architecture):
    streams = (Streams(0), Streams(1), Streams(0, distillation=1))
    losses = {
        next(train_students(dataclasses.replace(lesson, streams=each), toy, architecture, [0])).losses
        for each in streams
    }
    assert len(losses) == 3


def test_a_student_starts_from_the_same_weights_in_every_arm_and_from_others_than_its_neighbour(toy, lesson):
    architecture = component("architecture", TINY_MLP)

    def start(student, **arm):
        still = dataclasses.replace(lesson, recipe=Recipe(epochs=1, lr=1e-30), **arm)
        return train_network(still, toy, architecture, student)[0].classifier.weight

    first = start(0)
    assert torch.equal(start(0, distilled=toy_set(toy, 3), augment=lambda images, generator: -images), first)
    for other in (start(1), start(0, role="teacher"), start(0, streams=Streams(1))):
        assert not torch.equal(other, first)


def test_each_student_computes_on_one_core(toy, lesson, threads):
    seen = set()

    class Watched(Network):
        def __init__(self, shape, classes):
            super().__init__()
            self.classifier = nn.Linear(math.prod(shape), classes)

        def features(self, images):
            if len(images) != 2:  # not the probe for dropout
                seen.add(torch.get_num_threads())
            return images.flatten(1)

    threads(3)
    list(train_students(lesson, toy, FromFunction(Watched), range(4)))
    assert seen == {1}


def test_dropout_is_noticed_and_leaves_no_trace(toy):
    torch.manual_seed(0)
    assert draws_globally(DropoutNetwork(toy.shape, 3), toy)
    network = component("architecture", "convnet[width=4,depth=1,norm=batch]").network(toy.shape, 3)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    state = torch.get_rng_state()
    assert not draws_globally(network, toy)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


def test_a_students_dropout_is_its_own(toy, lesson):
    """Two students that differ in nothing but their index drop other units."""
    same = FromFunction(lambda shape, classes: fixed(DropoutNetwork(shape, classes)))
    whole = dataclasses.replace(lesson, recipe=Recipe(epochs=1, batch=256))
    first, second = (train_network(whole, toy, same, student)[1] for student in (0, 1))
    assert first != second
    assert train_network(whole, toy, same, 0)[1] == first


def fixed(network):
    """Start every student from the same weights."""
    for parameter in network.parameters():
        nn.init.constant_(parameter, float(parameter.ndim == 1))  # each hidden unit gives 1
    nn.init.normal_(network.classifier.weight, generator=torch.Generator().manual_seed(0))
    return network


def test_a_student_learns_what_can_be_learned(toy, lesson):
    better = dataclasses.replace(lesson, recipe=Recipe(epochs=40, lr=0.05))
    for name in (TINY_CONVNET, TINY_MLP):
        (record,) = train_students(better, toy, component("architecture", name), [0])
        assert record.accuracy > 0.9
        assert not record.collapsed
        assert record.loss == record.losses[-1] < record.losses[0]
        assert record.epochs == 40
        assert len(record.losses) == 10
        assert record.seconds > 0
        assert record.peak_memory > 1_000_000


def test_losses_are_those_after_each_tenth_of_the_epochs(toy, lesson):
    architecture = component("architecture", TINY_MLP)
    longer = dataclasses.replace(lesson, recipe=Recipe(epochs=25))
    _, losses = train_network(longer, toy, architecture, 0)
    (record,) = train_students(longer, toy, architecture, [0])
    # ceil(2.5 n) epochs are done: 3, 5, 8, 10, ...
    assert record.losses == tuple(losses[epochs - 1] for epochs in (3, 5, 8, 10, 13, 15, 18, 20, 23, 25))
    (short,) = train_students(dataclasses.replace(lesson, recipe=Recipe(epochs=3)), toy, architecture, [0])
    assert short.losses == tuple(train_network(short_lesson(lesson, 3), toy, architecture, 0)[1])


def short_lesson(lesson, epochs):
    return dataclasses.replace(lesson, recipe=Recipe(epochs=epochs))


class Oracle(Network):
    """Says the class that the first pixel holds."""

    def __init__(self, classes=4):
        super().__init__()
        self.classifier = nn.Identity()
        self.classes = classes

    def features(self, images):
        said = images[:, 0, 0, 0].round().long()
        return nn.functional.one_hot(said, self.classes).float()


def problem_read_as(said, labels):
    """A problem whose images hold what `Oracle` says of them."""
    images = torch.zeros(len(said), 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(said, dtype=torch.uint8)
    pixels = Normalize("pixels", torch.zeros(1), torch.full((1,), 1 / 255))
    return toy_problem(classes=4, shape=(1, 2, 2), score=Split(images, torch.tensor(labels)), preprocessing=pixels)


def test_accuracy_is_the_share_of_all_scored_images_that_are_right():
    labels = [i % 4 for i in range(75)]
    said = [label if i % 3 else (label + 1) % 4 for i, label in enumerate(labels)]  # every third is wrong: 25 of 75
    accuracy, share = score(Oracle(), problem_read_as(said, labels))
    assert accuracy == 50 / 75
    assert share == max(said.count(label) for label in range(4)) / 75


@pytest.mark.parametrize(("others", "collapsed"), [(0, True), (2, True), (3, False)])
def test_a_student_that_says_one_class_to_99_percent_has_collapsed(others, collapsed, lesson):
    said = [0] * (200 - others) + [1] * others
    problem = problem_read_as(said, said)

    class Trainable(Oracle):
        def __init__(self, shape, classes):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def features(self, images):
            return self.scale * super().features(images.clamp(0, 3))

    taught = dataclasses.replace(lesson, distilled=toy_set(problem))
    (record,) = train_students(taught, problem, FromFunction(Trainable), [0])
    assert record.collapsed is collapsed
    assert record.accuracy == 1.0


def test_a_student_whose_loss_is_not_finite_stops_and_has_collapsed(toy, lesson):
    wild = dataclasses.replace(lesson, recipe=Recipe(epochs=30, lr=1e30, schedule="constant"))
    (record,) = train_students(wild, toy, component("architecture", TINY_MLP), [0])
    assert record.collapsed
    assert not math.isfinite(record.loss)
    assert record.epochs < 30


def test_scoring_uses_the_network_as_evaluated_and_not_as_trained(toy, lesson):
    network, _ = train_network(lesson, toy, component("architecture", "convnet[width=4,depth=1,norm=batch]"), 0)
    inputs = toy.preprocessing.to_inputs(toy.score.images)
    accuracy, _ = score(network, toy)
    with torch.no_grad():
        said = [int(network.eval()(image[None]).argmax()) for image in inputs]
    assert accuracy == np.mean(np.array(said) == toy.score.labels.numpy())


def test_scored_images_are_preprocessed_as_the_distilled_ones_were(lesson):
    plain = toy_problem()
    inverted = toy_problem(preprocessing=Normalize("inverted", torch.tensor([0.4]), torch.tensor([-0.25])))
    architecture = component("architecture", TINY_MLP)
    better = dataclasses.replace(lesson, recipe=Recipe(epochs=40, lr=0.05))
    (right,) = train_students(better, plain, architecture, [0])
    (wrong,) = train_students(better, inverted, architecture, [0])
    (again,) = train_students(dataclasses.replace(better, distilled=toy_set(inverted, 2)), inverted, architecture, [0])
    assert wrong.accuracy < 0.5 < 0.9 < min(right.accuracy, again.accuracy)


def test_records_come_as_soon_as_they_are_ready_and_errors_come_through(threads):
    threads(2)
    done = []

    def work(index):
        if index == 3:
            raise ValueError("student 3")
        done.append(index)
        return index

    cpu = torch.device("cpu")
    with pytest.raises(ValueError, match="student 3"):
        list(side_by_side(work, range(5), cpu, workers=1))
    assert done[:3] == [0, 1, 2]
    assert next(side_by_side(work, range(2), torch.device("meta"))) == 0, "elsewhere than on a CPU they come one by one"
    assert done[-1] == 0
    assert torch.get_num_threads() == 2
