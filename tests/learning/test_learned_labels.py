"""Parametrisations with labels of their own: gradients reach them, methods learn them, sets store and count them."""

import dataclasses

import pytest
import torch
from torch import nn
from toys import toy_problem, toy_trajectory

from harness import (
    DataError,
    InitialImages,
    Options,
    Parametrisation,
    Schedule,
    ScheduleStep,
    Step,
    Streams,
    Student,
    Task,
    UsageError,
    load_distilled,
    open_encoding,
    save_distilled,
    unroll_constantly,
    unroll_exactly,
)
from harness.learning.pixel_method import EncodedImages, EncodedSGD
from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry

MTT = "experts=1,train_epochs=2,steps=2,expert_epochs=1,max_start_epoch=1"


class Confident(Parametrisation[Options]):
    """Stores images, of the last class first, with logits whose softmax are their labels."""

    label_kind = "soft"

    def initial(self, start):
        classes = len(start.problem.classes)
        logits = 2 * torch.eye(classes).repeat_interleave(start.ipc, 0)
        return {"images": start.pixels(start.ipc), "labels": logits}

    def decode(self, tensors, labels, shape):
        return tensors["images"].flip(0), tensors["labels"].softmax(1).flip(0)

    def constrain(self, tensors):
        tensors["images"].clamp_(0, 1)


class Centred(Confident):
    """Stores labels of any real values."""

    label_kind = "regression"

    def decode(self, tensors, labels, shape):
        return tensors["images"], tensors["labels"]


@pytest.fixture(autouse=True)
def components(monkeypatch):
    """The two parametrisations, as a plugin registers them."""
    named = {"confident": "Confident", "centred": "Centred"}
    entries = [Entry("parametrisation", name, f"{__name__}:{cls}", "a toy", "acme", "1") for name, cls in named.items()]
    monkeypatch.setattr(plugins().registry, "entries", [*plugins().registry.entries, *entries])


def encoded(name="confident", ipc=2):
    problem = toy_problem()
    return EncodedImages(open_encoding(name, problem.shape), InitialImages(problem, ipc, "real", Streams(0)))


def test_labels_are_decoded_in_the_order_of_their_images():
    learned = encoded()
    assert learned.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert learned.targets.shape == (6, 3)
    assert learned.targets.argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
    assert encoded("centred").label_kind == "regression"


def test_the_gradient_of_labels_is_pulled_back_to_what_stores_them():
    learned = encoded()
    before = learned.tensors["labels"].detach().clone()
    weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    learned.targets.grad = weights.clone()  # of the loss (weights * targets).sum()
    optimizer, images = EncodedSGD(learned, 0.5, 0.0), learned.images.detach().clone()
    optimizer.step()
    logits = before.clone().requires_grad_()
    order = torch.argsort(torch.tensor([2, 2, 1, 1, 0, 0]), stable=True)
    (gradient,) = torch.autograd.grad((weights * logits.softmax(1).flip(0)[order]).sum(), logits)
    assert torch.allclose(learned.tensors["labels"], before - 0.5 * gradient, atol=1e-7)
    assert torch.equal(learned.images, images), "images have no gradient yet"
    assert torch.allclose(learned.targets, learned.tensors["labels"].softmax(1).flip(0)[order])
    optimizer.zero_grad()
    assert learned.targets.grad is None
    learned.images.grad = torch.ones_like(learned.images)
    optimizer.step()
    assert not torch.equal(learned.images, images)


def test_a_set_has_the_kind_and_the_storage_of_the_learned_labels(tmp_path):
    problem = toy_problem()
    for name, kind in (("confident", "soft"), ("centred", "regression")):
        learned = encoded(name)
        order = torch.arange(6) if name == "centred" else torch.tensor([4, 5, 2, 3, 0, 1])
        schedule = Schedule((ScheduleStep(0.1, (0, 3)), ScheduleStep(0.2, (5,))))
        distilled = learned.distilled(Task(problem, 2, Streams(0), 1), schedule=schedule)
        assert (distilled.label_kind, distilled.labels.tolist()) == (kind, [0, 0, 1, 1, 2, 2])
        assert distilled.storage_bits == 32 * (6 * 256 + 18 + 2)
        distilled.check()
        # The step owns the same images, wherever the parametrisation puts them.
        images, labels = distilled.training_data()
        for ours, theirs in zip(schedule.steps, distilled.schedule.steps, strict=True):
            assert theirs.images == tuple(int(order[index]) for index in ours.images)
            assert torch.allclose(images[list(theirs.images)], learned.images[list(ours.images)])
            assert torch.allclose(labels[list(theirs.images)], learned.targets[list(ours.images)])
        save_distilled(distilled, tmp_path / f"{name}.safetensors")
        again = load_distilled(tmp_path / f"{name}.safetensors")
        assert (again.label_kind, again.schedule) == (kind, distilled.schedule)
        assert torch.equal(again.training_data()[1], labels)


def test_stored_labels_beside_learned_ones_are_indices():
    distilled = encoded().distilled(Task(toy_problem(), 2, Streams(0), 1))
    with pytest.raises(DataError, match="labels of its own, so the stored ones must be class indices"):
        dataclasses.replace(distilled, labels=torch.full((6, 3), 1 / 3))
    with pytest.raises(DataError, match="decodes to soft labels, but label_kind says 'regression'"):
        dataclasses.replace(distilled, label_kind="regression")


@pytest.mark.parametrize("unroll", [unroll_exactly, unroll_constantly])
def test_unrolled_students_give_labels_the_gradient_of_finite_differences(unroll):
    """Of one step, for which both ways are exact."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).double()
    images = torch.randn(4, 2, 2, 2, generator=generator, dtype=torch.float64)
    targets = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    start = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    target = {name: tensor + 0.3 for name, tensor in start.items()}
    step = [Step(torch.tensor([2, 0, 3]), torch.clone)]
    rate = torch.tensor(0.2, dtype=torch.float64)

    def loss(labels):
        return unroll(Student(network, {}, labels), start, target, images, rate, step)

    labels = targets.clone().requires_grad_()
    loss(labels)
    for row, column in ((0, 1), (2, 0), (3, 2), (1, 1)):
        shift = torch.zeros_like(targets)
        shift[row, column] = 1e-5
        up, down = (float(loss(targets + sign * shift).loss) for sign in (1, -1))
        assert float(labels.grad[row, column]) == pytest.approx((up - down) / 2e-5, abs=1e-8)
    assert labels.grad[1].abs().max() == 0, "the step does not own it"


@pytest.mark.parametrize("unroll", ["exact", "constant"])
def test_mtt_learns_labels_and_resumes_bit_for_bit(unroll):
    name = f"mtt[{MTT},unroll={unroll},as=confident,lr_img=10]"
    whole, first, second = (toy_trajectory(name, ipc=2) for _ in range(3))
    assert whole.method.label_kind == "soft"
    begun = whole.advance(0).encoding.tensors["labels"].clone()
    wanted = whole.advance(4)
    assert not torch.equal(wanted.encoding.tensors["labels"], begun)
    first.advance(2)
    second.restore(*first.state())
    again = second.advance(4)
    assert torch.equal(wanted.encoding.tensors["labels"], again.encoding.tensors["labels"])
    assert torch.equal(wanted.images, again.images)


def test_a_method_that_learns_no_labels_leaves_them_as_they_start():
    trajectory = toy_trajectory("dm[batch_real=7,as=centred]")
    assert trajectory.method.label_kind == "regression"
    begun = trajectory.advance(0).encoding.tensors["labels"].clone()
    distilled = trajectory.advance(2)
    assert torch.equal(distilled.encoding.tensors["labels"], begun)
    assert distilled.label_kind == "regression"


@pytest.mark.parametrize(
    ("options", "says"),
    [("as=centred", "has regression labels of its own"), ("as=confident,labels=expert", "has soft labels of its own")],
)
def test_mtt_refuses_labels_that_it_cannot_learn(options, says):
    with pytest.raises(UsageError, match=says):
        toy_trajectory(f"mtt[{MTT},{options}]")
