"""Training by the squared error and by a schedule: closed forms, the authors' numbers, and what is refused."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import FromFunction, component, registry, toy_problem, toy_set

from harness import (
    Batch,
    DataError,
    Lesson,
    Network,
    Recipe,
    Schedule,
    ScheduleStep,
    Streams,
    UsageError,
    cross_entropy,
    squared_error,
    train_classifier,
)
from harness.learning.training import train_together
from mpdd_plugins.evaluators.plain import half_squared_distance

PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "labels_and_schedules.json").read_text())
PLAIN = Recipe(1, 0.1, "sgd", "constant", 0.0, 0.0)
IMAGES = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
VALUES = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CLASSES = torch.tensor([0, 3, 1, 2, 2])
TWO = Schedule((ScheduleStep(0.3, (4, 0, 2)), ScheduleStep(0.05, (1, 3))))


def linear():
    network = nn.Sequential(nn.Flatten(), nn.Linear(18, 4)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.linspace(-1, 1, 72).view(4, 18))
        network[1].bias.copy_(torch.linspace(0, 1, 4))
    return network


def draw(role, epoch):
    raise AssertionError(f"{role} is drawn")


def shuffled(role, epoch):
    return torch.Generator().manual_seed(epoch)


def by_hand(weight, bias, images, targets, rate, *, soft=False):
    """One step of gradient descent on ½‖Wx + b − y‖² (mean over images), or the cross-entropy, in closed form."""
    inputs = images.flatten(1)
    outputs = inputs @ weight.T + bias
    residual = ((outputs.softmax(1) if soft else outputs) - targets) / len(images)
    loss = float((outputs - targets).square().sum() / 2 / len(images))
    return weight - rate * residual.T @ inputs, bias - rate * residual.sum(0), loss


def test_a_step_on_regression_labels_is_the_formula():
    network = linear()
    weight, bias, loss = by_hand(network[1].weight.detach(), network[1].bias.detach(), IMAGES, VALUES, 0.1)
    losses = train_classifier(network, IMAGES, VALUES, PLAIN, shuffled, loss=half_squared_distance)
    assert losses == pytest.approx([loss], rel=1e-12)
    assert torch.allclose(network[1].weight, weight, rtol=1e-12)
    assert torch.allclose(network[1].bias, bias, rtol=1e-12)


def test_the_squared_distance_is_frepos():
    frepo = PUBLISHED["frepo"]
    logits = torch.tensor(frepo["predictions"]["values"], dtype=torch.float64).view(6, 3)
    labels = torch.eye(3, dtype=torch.float64)[torch.arange(6) % 3] - 1 / 3
    batch = Batch(torch.arange(6), IMAGES, labels, logits)
    assert float(half_squared_distance(batch)) == pytest.approx(frepo["kernel loss"], rel=1e-7)
    assert float(squared_error(batch)) == pytest.approx(frepo["kernel loss"] * 2 / 3, rel=1e-7)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("kind", ["regression", "hard"])
def test_the_steps_of_a_schedule_are_taken_in_order(kind, repeats):
    soft, network = kind == "hard", linear()
    labels = CLASSES if soft else VALUES
    targets = functional.one_hot(CLASSES, 4).double() if soft else VALUES
    weight, bias = network[1].weight.detach(), network[1].bias.detach()
    for step in TWO.steps * repeats:
        mine = list(step.images)
        weight, bias, _ = by_hand(weight, bias, IMAGES[mine], targets[mine], step.step_size, soft=soft)
    recipe = Recipe(repeats, 7.0, "sgd", "constant", 0.0, 0.0, batch=2)
    loss = cross_entropy if soft else half_squared_distance
    losses = train_classifier(network, IMAGES, labels, recipe, draw, loss=loss, schedule=TWO)
    assert len(losses) == repeats
    assert torch.allclose(network[1].weight, weight, rtol=1e-10)
    assert torch.allclose(network[1].bias, bias, rtol=1e-10)
    together = [linear(), linear()]
    curves = train_together(together, IMAGES, labels, recipe, [draw] * 2, [loss] * 2, schedule=TWO)
    for other, curve in zip(together, curves, strict=True):
        assert torch.allclose(other[1].weight, network[1].weight, rtol=1e-12)
        assert curve == pytest.approx(losses, rel=1e-12)


def test_a_schedule_reaches_beyond_no_image():
    with pytest.raises(DataError, match="owns image 3, but there are 3 images"):
        train_classifier(linear(), IMAGES[:3], VALUES[:3], PLAIN, draw, schedule=Schedule((ScheduleStep(0.1, (3,)),)))


def filler(number, shape, low, high):
    """The inputs of the published numbers, as their file describes them."""
    i = torch.arange(math.prod(shape))
    k = number
    u = ((31 * i**2 + 101 * (2 * k + 1) * i + 17 * k**2 + 13 * k + 7) % 10007).double() / 10007
    return (low + (high - low) * u).view(shape)


def test_dds_network_after_two_steps_is_its_authors():
    """LeNet of SsnL/dataset-distillation after the two steps that own ten images each, and its loss on real ones."""
    network = component("architecture", "lenet").network((1, 28, 28), 10).double()
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            bound = 0.1 if parameter.ndim == 1 else math.sqrt(3 / parameter[0].numel())
            parameter.copy_(filler(800 + k, parameter.shape, -bound, bound))
    images = torch.cat([filler(820 + step, (10, 1, 28, 28), -1, 1) for step in range(2)])
    labels = torch.arange(10).repeat(2)
    rates = PUBLISHED["dd"]["inner learning rates"]
    steps = (ScheduleStep(rate, tuple(range(10 * i, 10 * i + 10))) for i, rate in enumerate(rates))
    train_classifier(network, images, labels, PLAIN, draw, schedule=Schedule(tuple(steps)))
    total = sum(float(parameter.detach().sum()) for parameter in network.parameters())
    assert total == pytest.approx(PUBLISHED["dd"]["sum of final weights"], rel=1e-6)
    with torch.no_grad():
        loss = functional.cross_entropy(network(filler(830, (6, 1, 28, 28), -1, 1)), torch.arange(6))
    assert float(loss) == pytest.approx(PUBLISHED["dd"]["final loss"], rel=1e-6)


# --- the evaluator ---


class Linear(Network):
    def __init__(self, shape, classes):
        super().__init__()
        self.classifier = nn.Linear(math.prod(shape), classes)

    def features(self, images):
        return images.flatten(1)


def evaluated(name, distilled, problem=None, students=(0, 1)):
    evaluator = component("evaluator", name)
    return list(evaluator.evaluate(distilled, problem or toy_problem(), FromFunction(Linear), students, {}, Streams(0)))


def start(problem, student):
    return FromFunction(Linear).build(problem.shape, 3, Streams(0).generator("student", 0, student))


@pytest.mark.parametrize("kind", ["regression", "hard"])
def test_students_of_dd_take_the_sets_own_steps(kind):
    problem = toy_problem(augmentations={"dc": "crop", "dsa": "color"})  # which this protocol leaves out
    distilled = toy_set(problem, 2, kind=kind, scheduled=True)
    records = evaluated("plain[protocol=dd]", distilled, problem)
    for record in records:
        network = start(problem, record.student)
        losses = []
        for step in distilled.schedule.steps:
            mine = list(step.images)
            logits, labels = network(distilled.images[mine]), distilled.labels[mine]
            error = 0.5 * (logits - labels).square().sum(1).mean() if kind == "regression" else None
            loss = functional.cross_entropy(logits, labels) if error is None else error
            losses.append(len(mine) * float(loss.detach()))
            for parameter, part in zip(
                network.parameters(), torch.autograd.grad(loss, network.parameters()), strict=True
            ):
                parameter.data -= step.step_size * part
        right = network(problem.preprocessing.to_inputs(problem.score.images)).argmax(1) == problem.score.labels
        assert record.loss == pytest.approx(sum(losses) / 9, rel=1e-5)
        assert record.accuracy == pytest.approx(float(right.double().mean()))
        assert record.epochs == 1
    assert evaluated("plain[protocol=dd,epochs=4]", distilled, problem)[0].epochs == 4


def test_plain_learns_the_toy_problem_from_centred_labels():
    records = evaluated("plain[protocol=quick]", toy_set(toy_problem(), 2, kind="regression"))
    assert all(record.accuracy > 0.9 and record.loss < 0.05 and not record.collapsed for record in records)


def test_the_weight_of_the_loss_is_that_of_the_squared_error_too():
    distilled = toy_set(toy_problem(), 2, kind="regression")
    whole, half = (evaluated(f"plain[epochs=1,ce_weight={weight}]", distilled)[0] for weight in (1, 0.5))
    assert half.loss == pytest.approx(whole.loss / 2, rel=1e-6)


def test_the_protocol_names_itself_and_its_repeats():
    network, problem = component("architecture", "convnet"), toy_problem()
    names = {"plain[protocol=dd]": "plain dd v1", "plain[protocol=dd,epochs=3]": "plain dd v1 + epochs=3"}
    assert {name: component("evaluator", name).protocol(problem, network) for name in names} == names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("plain[protocol=dd,lr=0.1]", "takes the steps of the set's schedule: leave out lr"),
        ("plain[protocol=dd,optimizer=adam,batch=3]", "leave out optimizer, batch"),
        ("plain[protocol=dd,schedule=cosine]", "leave out schedule"),
        ("plain[protocol=dd,augment=flip]", "augments no images: leave out augment"),
        ("kd[protocol=dd]", "should be 'v1', 'quick', 'dsa', 'mtt', 'idc', 'ncfm', 'sre2l', 'rded' or 'frepo-softmax'"),
    ],
)
def test_what_a_schedule_decides_cannot_be_set(name, says):
    with pytest.raises(UsageError, match=says):
        registry().resolve("evaluator", name)


def test_a_set_without_a_schedule_cannot_be_followed():
    distilled = toy_set(toy_problem(), 2)
    with pytest.raises(DataError, match="trains by the set's schedule, which this set does not have"):
        evaluated("plain[protocol=dd]", distilled)
    with pytest.raises(DataError, match="this set does not have"):
        Lesson(distilled, PLAIN, Streams(0), by_schedule=True)


def test_other_protocols_train_on_the_images_of_a_schedule_as_on_any():
    problem = toy_problem()
    with_steps, without = (toy_set(problem, 2, scheduled=scheduled) for scheduled in (True, False))
    ones, others = (evaluated("plain[epochs=3]", distilled) for distilled in (with_steps, without))
    assert [record.losses for record in ones] == [record.losses for record in others]
