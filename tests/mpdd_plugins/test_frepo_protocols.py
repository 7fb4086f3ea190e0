"""The protocols frepo and frepo-softmax: FRePo's schedule, its loss on any labels, and class weights of real labels."""

import pytest
import torch
from test_protocols import trained
from torch.nn import functional
from toys import TINY_MLP, component, toy_problem, toy_set

from harness import Batch, DistilledSet, UsageError
from mpdd_plugins.evaluators import plain, protocol
from mpdd_plugins.evaluators.protocol import TrainingOptions

PROBLEM = toy_problem()
VALUES = torch.tensor([[0.6, -0.3, -0.2], [-0.1, 0.3, -0.3], [0.0, -0.2, 0.4]])


def set_of(kind):
    own = toy_set(PROBLEM)
    labels = VALUES if kind == "regression" else own.labels[:3]
    declared = "regression" if kind == "regression" else None
    return DistilledSet(own.images[:3], labels, own.classes, own.preprocessing, label_kind=declared)


@pytest.mark.parametrize(
    ("images", "steps"), [(1, 1000), (10, 1000), (50, 2000), (150, 20000), (500, 5000), (1000, 10000), (5000, 40000)]
)
@pytest.mark.parametrize("name", ["frepo", "frepo-softmax"])
def test_steps_are_frepos(name, images, steps):
    recipe = TrainingOptions(protocol=name).recipe(True, images)
    assert recipe.units([min(images, 500)]) == steps
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.batch) == ("adam", 3e-4, 0.0, 500)
    assert recipe.rate(0) == pytest.approx(3e-4 / 500)
    assert recipe.rate(499) == recipe.rate(500) == pytest.approx(3e-4)
    assert recipe.rate(steps) == pytest.approx(3e-6)
    half = 500 + (steps - 500) // 2
    assert recipe.rate(half) == pytest.approx(3e-4 * (0.01 + 0.99 / 2))


def test_epochs_and_other_options_depart_from_it():
    options = TrainingOptions(protocol="frepo", epochs=4, lr=0.1, schedule="milestones")
    recipe = options.recipe(True, 1200)
    assert (recipe.steps, recipe.lr, recipe.warmup, recipe.milestones) == (12, 0.1, 6, (8, 10))
    network = component("architecture", TINY_MLP)
    name = component("evaluator", "plain[protocol=frepo,epochs=4,batch=500,augment=none]").protocol(PROBLEM, network)
    assert name == "plain frepo v1 + epochs=4 + augment=none"


@pytest.mark.parametrize("kind", ["regression", "hard"])
def test_frepo_trains_on_half_the_squared_distance(kind, monkeypatch):
    seen = []

    def watched(batch):
        seen.append((batch.logits.detach(), batch.labels))
        return half(batch)

    half = plain.half_squared_distance
    monkeypatch.setattr(plain, "half_squared_distance", watched)
    (record,) = trained("plain[protocol=frepo,epochs=1,augment=none]", set_of(kind), problem=PROBLEM, students=(0,))
    ((logits, labels),) = seen
    wanted = VALUES if kind == "regression" else torch.eye(3)[set_of(kind).labels] - 1 / 3
    order = torch.cdist(labels, wanted).argmin(1)
    torch.testing.assert_close(labels, wanted[order])
    assert record.loss == pytest.approx(float(0.5 * (logits - labels).square().sum(1).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", ["plain", "kd"])
def test_frepo_softmax_trains_on_class_weights(kind, monkeypatch):
    monkeypatch.setattr(protocol, "FREPO_STEPS", {10: 20})  # a teacher has the protocol's, whatever a student has
    taught = TrainingOptions(protocol="frepo-softmax").taught(set_of("regression"))
    assert taught.label_kind == "soft"
    torch.testing.assert_close(taught.labels, torch.softmax(VALUES * 10, 1))
    by_hand = DistilledSet(taught.images, torch.softmax(VALUES * 10, 1), taught.classes, taught.preprocessing)
    name = f"{kind}[protocol=frepo-softmax,epochs=3,augment=none]"
    if kind == "kd":
        name = name.replace("]", ",teacher=mlp[width=8]]")
    first, second = (trained(name, each, problem=PROBLEM, students=(0,)) for each in (set_of("regression"), by_hand))
    assert [record.losses for record in first] == [record.losses for record in second]


def test_labels_of_other_kinds_stay_what_they_are():
    hard, real = set_of("hard"), set_of("regression")
    assert TrainingOptions(protocol="frepo-softmax").taught(hard) is hard
    assert TrainingOptions(protocol="frepo").taught(real) is real
    assert TrainingOptions().taught(real) is real


def test_only_frepo_softmax_makes_real_labels_fit_for_kd():
    assert component("evaluator", "kd[protocol=frepo-softmax]").label_kinds == ("hard", "soft", "regression")
    assert component("evaluator", "kd").label_kinds == ("hard", "soft")
    with pytest.raises(UsageError, match="protocol=frepo"):
        component("evaluator", "kd[protocol=frepo]")


def test_the_loss_is_the_published_one():
    batch = Batch(torch.arange(3), torch.zeros(3, 1, 2, 2), VALUES, torch.zeros(3, 3))
    expected = 1.5 * functional.mse_loss(torch.zeros(3, 3), VALUES)
    assert float(plain.half_squared_distance(batch)) == pytest.approx(float(expected))
