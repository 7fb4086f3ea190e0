"""Teachers trained on the real data: the protocols sre2l and rded, kd that asks them, and labels that are stored."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import TINY_MLP, FromFunction, component, registry, resolve, toy_problem, toy_set

from harness import Artifact, Network, RealNetwork, Recipe, Streams, UsageError
from harness.testing.small import real_network
from mpdd_plugins.evaluators import soft_labels
from mpdd_plugins.evaluators.protocol import TrainingOptions

TEACHER = "teacher=convnet[width=4,depth=1,norm=batch],teacher-epochs=2"
PROBLEM = toy_problem()
DISTILLED = toy_set(PROBLEM, 2)


def evaluated(name, students=(0,), *, distilled=DISTILLED, problem=PROBLEM, architecture=TINY_MLP):
    evaluator = component("evaluator", name)
    request = evaluator.artifact(students[0])
    artifact = real_network(request, problem, lambda text: registry().resolve("architecture", text))
    artifacts = dict.fromkeys(students, artifact)
    built = component("architecture", architecture)
    return list(evaluator.evaluate(distilled, problem, built, students, artifacts, Streams(0)))


def numbers(records):
    return [(record.accuracy, record.losses) for record in records]


@pytest.mark.parametrize(
    ("images", "classes", "batch"),
    [(10, 10, 10), (100, 10, 50), (500, 10, 100), (100, 100, 20), (1000, 100, 100), (5000, 100, 200), (3, 3, 3)],
)
def test_rdeds_recipe(images, classes, batch):
    recipe = TrainingOptions(protocol="rded").recipe(True, images, classes)
    assert (recipe.epochs, recipe.optimizer, recipe.lr, recipe.weight_decay) == (300, "adamw", 1e-3, 0.01)
    assert recipe.batch == batch
    for epoch in (0, 1, 150, 299):
        assert recipe.rate(epoch, 300) == pytest.approx(1e-3 * (1 + math.cos(math.pi * epoch / 600)) / 2)
    assert recipe.rate(300, 300) == pytest.approx(5e-4)


def test_sre2ls_recipe():
    recipe = TrainingOptions(protocol="sre2l").recipe(True, 1000, 100)
    assert recipe == Recipe(400, 1e-3, "adamw", "cosine", weight_decay=0.01, batch=128)
    shorter = TrainingOptions(protocol="sre2l", epochs=5, batch=4, lr=0.1, schedule="half-cosine").recipe(True)
    assert (shorter.epochs, shorter.batch, shorter.lr) == (5, 4, 0.1)
    assert shorter.rate(5, 5) == pytest.approx(0.05)


def test_only_rded_leaves_the_batch_to_the_set():
    assert TrainingOptions(protocol="rded").batch is None
    assert TrainingOptions(protocol="rded", batch=7).recipe(True, 1000).batch == 7
    assert TrainingOptions(batch="auto").batch == 256
    assert TrainingOptions(protocol="idc", batch="auto").as_json() == TrainingOptions(protocol="idc").as_json()


def test_keys_of_kd_are_those_of_before():
    options = component("evaluator", "kd").options.as_json()
    assert list(options) == [
        "protocol", "epochs", "lr", "optimizer", "schedule", "batch", "augment", "precision", "temperature", "alpha",
        "teacher",
    ]  # fmt: skip
    real = component("evaluator", "kd[teacher-data=real,teacher-lr=0.05]").options.as_json()
    assert real == {**options, "teacher-data": "real", "teacher-lr": 0.05}


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("kd[teacher-data=real]", "kd v1 + teacher-data=real"),
        ("kd[protocol=rded]", "kd rded v1"),
        ("kd[protocol=sre2l,temperature=30,teacher-mode=train]", "kd sre2l v1"),
        ("kd[protocol=sre2l,teacher-mode=eval]", "kd sre2l v1 + teacher-mode=eval"),
        ("plain[protocol=rded]", "plain rded v1"),
        ("plain[protocol=rded,batch=5,augment=cutmix+flip]", "plain rded v1 + batch=5"),
        ("plain[protocol=rded,augment=cutmix:0.5+crop]", "plain rded v1 + augment=crop+cutmix:0.5"),
        ("soft-labels", "soft-labels rded v1"),
        ("soft-labels[protocol=sre2l]", "soft-labels sre2l v1"),
        ("soft-labels[temperature=4,teacher-epochs=3]", "soft-labels rded v1 + temperature=4 + teacher-epochs=3"),
    ],
)
def test_what_is_printed(name, printed):
    assert component("evaluator", name).protocol(PROBLEM, component("architecture", TINY_MLP)) == printed


def test_who_uses_real_data():
    uses = {
        name: component("evaluator", name).uses_real_data
        for name in ("plain", "kd", "kd[teacher-data=real]", "kd[protocol=rded]", "plain[protocol=rded]", "soft-labels")
    }
    assert [name for name, real in uses.items() if real] == [
        "kd[teacher-data=real]",
        "kd[protocol=rded]",
        "soft-labels",
    ]


def test_all_students_and_both_evaluators_share_a_teacher():
    requests = [
        component("evaluator", name).artifact(student)
        for student in (0, 3)
        for name in (f"soft-labels[{TEACHER}]", f"kd[protocol=v1,teacher-data=real,{TEACHER}]")
    ]
    assert all(isinstance(request, RealNetwork) for request in requests)
    assert all(request == requests[0] for request in requests)
    assert requests[0].recipe == Recipe(2, 0.1, schedule="cosine", batch=128)


def test_both_evaluators_ask_the_same_teacher_by_default():
    for protocol in ("rded", "sre2l"):
        requests = [
            component("evaluator", f"{name}[protocol={protocol}]").artifact(0) for name in ("kd", "soft-labels")
        ]
        assert requests[0] == requests[1]
        assert requests[0].architecture == "convnet[norm=batch]"
    printed = str(registry().resolve("evaluator", "kd[protocol=rded,teacher=convnet]"))
    assert printed == "kd[protocol=rded,teacher=convnet]"


def test_options_of_a_real_teacher_without_one_are_refused():
    with pytest.raises(UsageError, match="leave out teacher-epochs, or set teacher-data=real"):
        component("evaluator", "kd[teacher-epochs=3]")


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_kd_hears_the_logits_of_the_real_teacher(mode):
    loss = "alpha=1,temperature=2,rescale=false"
    name = f"kd[protocol=quick,epochs=1,{loss},teacher-data=real,teacher-mode={mode},{TEACHER}]"
    (record,) = evaluated(name)
    images, _ = DISTILLED.training_data()
    artifact = real_network(component("evaluator", name).artifact(0), PROBLEM, resolve)
    teacher = artifact.architecture.network(PROBLEM.shape, 3)
    teacher.load_state_dict({key.partition(".")[2]: value for key, value in artifact.tensors.items()})
    student = component("architecture", TINY_MLP).build(PROBLEM.shape, 3, Streams(0).generator("student", 0, 0))
    with torch.no_grad():
        wanted = functional.kl_div(
            functional.log_softmax(student(images) / 2, 1),
            functional.softmax(teacher.train(mode == "train")(images) / 2, 1),
            reduction="batchmean",
        )
    assert record.loss == pytest.approx(float(wanted), rel=1e-4)


class OfVectors(Network):
    """A network whose batch norm has one value a channel of each image."""

    def __init__(self, shape, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 4), nn.BatchNorm1d(4))
        self.classifier = nn.Linear(4, classes)

    def features(self, images):
        return self.body(images)


@pytest.mark.parametrize("name", ["kd[protocol=sre2l,teacher-epochs=1,", "soft-labels[protocol=sre2l,"])
def test_a_step_of_one_image_is_refused_if_the_teacher_takes_its_statistics(name):
    """The set has six images."""
    architecture = FromFunction(OfVectors)
    teacher = architecture.build(PROBLEM.shape, 3, torch.Generator())
    tensors = {f"0.{key}": value for key, value in teacher.state_dict().items()}
    artifact = Artifact(tensors, {}, architecture)

    def students(options):
        evaluator = component("evaluator", f"{name}epochs=1,augment=none,{options}]")
        built = component("architecture", TINY_MLP)
        return list(evaluator.evaluate(DISTILLED, PROBLEM, built, (0,), {0: artifact}, Streams(0)))

    line = "batch=5 leaves a step of one of 6 images, which the teacher's batch norm body.2 cannot normalise by itself"
    with pytest.raises(UsageError, match=f"{line}: set another batch or teacher-mode=eval"):
        students("batch=5")
    with pytest.raises(UsageError, match="batch=1 has one image a step"):
        students("batch=1")
    for options in ("batch=4", "batch=5,teacher-mode=eval"):
        assert students(options)[0].loss >= 0


def test_a_teacher_of_maps_takes_the_statistics_of_one_image():
    assert evaluated(f"soft-labels[protocol=sre2l,epochs=1,batch=5,{TEACHER}]")[0].loss >= 0


SOFT = f"soft-labels[epochs=3,batch=4,augment=resized-crop:0.5+flip+cutmix,{TEACHER}]"


def test_students_learn_from_the_stored_labels_alone(monkeypatch):
    """The loss of the first step by hand, from the labels in half precision."""
    banks = []
    original = soft_labels.StoredLabels
    monkeypatch.setattr(soft_labels, "StoredLabels", lambda *words: banks.append(original(*words)) or banks[0])
    name = SOFT.replace("epochs=3,batch=4", "epochs=1,batch=99")
    (record,) = evaluated(name)
    ((view, stored),) = banks[0]._stored.values()
    assert stored.dtype == torch.float16
    images, _ = DISTILLED.training_data()
    order = torch.randperm(len(images), generator=Streams(0).generator("student-order", 0, 0))
    student = component("architecture", TINY_MLP).build(PROBLEM.shape, 3, Streams(0).generator("student", 0, 0))
    with torch.no_grad():
        seen = view.apply(images[order])
        torch.testing.assert_close(banks[0].teacher(seen), stored.float(), rtol=1e-3, atol=1e-3)
        wanted = functional.kl_div(
            functional.log_softmax(student(seen) / 20, 1), functional.softmax(stored.float() / 20, 1),
            reduction="batchmean",
        )  # fmt: skip
    assert record.loss == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("augment", ["resized-crop:0.5+flip+cutmix", "none"])
def test_every_student_reads_what_the_first_stored(monkeypatch, augment):
    banks = []
    original = soft_labels.StoredLabels
    monkeypatch.setattr(soft_labels, "StoredLabels", lambda *words: banks.append(original(*words)) or banks[-1])
    name = SOFT.replace("resized-crop:0.5+flip+cutmix", augment)
    both = evaluated(name, (0, 1))
    assert len(banks[0]._stored) == 3 * 2, "two steps of each of three epochs"
    stored = banks[0]._stored.values()
    views = sum(view.boxes.numel() * 16 + 33 * len(view.flips) + 64 for view, _ in stored)
    bits = {"none": 6 * 48}.get(augment, views + sum(16 * logits.numel() + 32 * len(logits) for _, logits in stored))
    assert [record.extra_bits for record in both] == [bits] * 2
    assert len({logits.sum().item() for _, logits in banks[0]._stored.values()}) == 6
    assert both[0].losses != both[1].losses, "the initial weights are their own"
    alone = [*evaluated(name, (0,)), *evaluated(name, (1,))]
    assert numbers(alone) == numbers(both)


def test_bits_are_counted_by_the_formula():
    recipe = Recipe(300, batch=10)
    assert soft_labels.label_bits(10, recipe, 10, "flip+cutmix") == 300 * (10 * (160 + 32 + 1 + 32) + 64)
    assert soft_labels.label_bits(15, recipe, 10, "crop") == 300 * 15 * (160 + 32 + 32)
    assert soft_labels.label_bits(15, recipe, 10, "none") == 15 * 160, "equal in every epoch"
    assert soft_labels.label_bits(15, recipe, 10, "none", by_batch=True) == 300 * 15 * (160 + 32)


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ("", 2 * (6 * (48 + 32 + 1 + 32) + 64)),
        ("augment=cutmix,", 2 * (6 * (48 + 32 + 32) + 64)),
        ("augment=flip,", 2 * 6 * (48 + 32 + 1)),
        ("augment=none,", 6 * 48),
        ("augment=none,teacher-mode=train,", 2 * 6 * (48 + 32)),
        ("alpha=0,", 0),
    ],
)
def test_only_what_students_need_counts_as_storage(options, bits):
    """The views of rded are flip+cutmix."""
    (record,) = evaluated(f"soft-labels[epochs=2,batch=6,{options}{TEACHER}]")
    assert record.extra_bits == bits


def test_the_rest_of_the_weight_is_the_cross_entropy():
    whole, none = (evaluated(SOFT.replace("epochs=3", f"epochs=1,alpha={alpha}")) for alpha in (1, 0))
    plain = evaluated(SOFT.replace("epochs=3", "epochs=1,alpha=0.25"))
    first = [records[0].loss for records in (none, whole, plain)]
    assert first[2] != first[0]
    assert min(first[:2]) < first[2] < max(first[:2])


def test_soft_sets_are_labelled_too():
    soft = toy_set(PROBLEM, 2, soft=True)
    assert evaluated(SOFT, distilled=soft)[0].losses == evaluated(SOFT)[0].losses, "with alpha 1 its labels do nothing"
