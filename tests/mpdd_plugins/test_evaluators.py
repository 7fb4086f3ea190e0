"""The evaluators: equation (1) and its gradient, teachers, protocols."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional
from toys import TINY_CONVNET, TINY_MLP, component, registry, toy_problem, toy_set

from harness import Network, Streams, UsageError
from mpdd_plugins.evaluators.kd import distillation_loss
from mpdd_plugins.evaluators.plain import PlainOptions

RNG = np.random.default_rng(0)
STUDENT, TEACHER = 3 * RNG.standard_normal((5, 4)), 3 * RNG.standard_normal((5, 4))
HARD = np.array([0, 3, 1, 2, 2])
SOFT = RNG.dirichlet(np.ones(4), 5)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def equation_1(student, teacher, targets, alpha, tau):
    """alpha tau^2 KL(teacher || student) + (1 - alpha) CE, image by image."""
    total = 0.0
    for s_logits, t_logits, target in zip(student, teacher, targets, strict=True):
        p_s, p_t = softmax(s_logits[None] / tau)[0], softmax(t_logits[None] / tau)[0]
        kl = sum(t * (np.log(t) - np.log(s)) for s, t in zip(p_s, p_t, strict=True))
        ce = -sum(y * np.log(s) for s, y in zip(softmax(s_logits[None])[0], target, strict=True))
        total += alpha * tau**2 * kl + (1 - alpha) * ce
    return total / len(student)


def loss_and_gradient(labels, **how):
    student = torch.from_numpy(STUDENT).requires_grad_()
    loss = distillation_loss(student, torch.from_numpy(TEACHER), torch.from_numpy(labels), **how)
    (gradient,) = torch.autograd.grad(loss, student)
    return float(loss.detach()), gradient.numpy()


@pytest.mark.parametrize("tau", [0.5, 1.0, 1.5, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("labels", "targets"), [(HARD, np.eye(4)[HARD]), (SOFT, SOFT)], ids=["hard", "soft"])
def test_kd_loss_and_gradient_are_equation_1(labels, targets, alpha, tau):
    loss, gradient = loss_and_gradient(labels, alpha=alpha, temperature=tau)
    assert loss == pytest.approx(equation_1(STUDENT, TEACHER, targets, alpha, tau), rel=1e-12)
    towards_teacher = tau * (softmax(STUDENT / tau) - softmax(TEACHER / tau))
    expected = (alpha * towards_teacher + (1 - alpha) * (softmax(STUDENT) - targets)) / 5
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-14)


def test_kd_gradient_is_that_of_finite_differences():
    _, gradient = loss_and_gradient(HARD, alpha=0.5, temperature=1.5)
    for i, j in np.ndindex(STUDENT.shape):
        shift = np.zeros_like(STUDENT)
        shift[i, j] = 1e-6
        up, down = (equation_1(STUDENT + s, TEACHER, np.eye(4)[HARD], 0.5, 1.5) for s in (shift, -shift))
        assert gradient[i, j] == pytest.approx((up - down) / 2e-6, abs=1e-8)


def test_divergence_is_from_teacher_to_student_and_not_the_other_way():
    loss, _ = loss_and_gradient(HARD, alpha=1.0, temperature=2.0)
    other_way = equation_1(TEACHER, STUDENT, np.eye(4)[HARD], 1.0, 2.0)
    assert abs(loss - other_way) > 0.1


@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_without_teacher_weight_the_loss_is_cross_entropy(labels):
    loss, _ = loss_and_gradient(labels, alpha=0.0, temperature=1.5)
    plain = functional.cross_entropy(torch.from_numpy(STUDENT), torch.from_numpy(labels))
    assert loss == pytest.approx(float(plain), rel=1e-14)


def test_a_student_that_says_what_its_teacher_says_is_at_no_distance():
    logits = torch.from_numpy(TEACHER)
    loss = distillation_loss(logits, logits, torch.from_numpy(HARD), alpha=1.0, temperature=3.0)
    assert float(loss) == pytest.approx(0, abs=1e-14)


def test_extreme_logits_leave_loss_and_gradient_finite():
    student = torch.tensor([[0.0, 150.0], [300.0, -300.0]], requires_grad=True)
    teacher = torch.tensor([[400.0, 0.0], [300.0, -300.0]])
    loss = distillation_loss(student, teacher, torch.tensor([0, 0]), alpha=0.5, temperature=1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


KD = f"kd[protocol=quick,teacher={TINY_CONVNET}]"


def evaluate(name, problem, distilled, *, architecture=TINY_MLP, students=(0,), artifacts=None, seed=0):
    evaluator = component("evaluator", name)
    built = component("architecture", architecture)
    return list(evaluator.evaluate(distilled, problem, built, students, artifacts or {}, Streams(seed)))


def teachers(name, problem, distilled, students=(0,), seed=0):
    """What the harness does for an evaluator that asks for artifacts."""
    evaluator, artifacts = component("evaluator", name), {}
    for student in students:
        request = evaluator.artifact(student)
        architecture = component("architecture", request.architecture)
        artifact = evaluator.make_artifact(request, distilled, problem, architecture, Streams(seed))
        artifacts[student] = dataclasses.replace(artifact, architecture=architecture)
    return artifacts


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("plain", "plain v1"),
        ("plain[protocol=quick]", "plain quick v1"),
        ("plain[lr=0.0003]", "plain v1 + lr=0.0003"),
        ("plain[lr=3e-4,epochs=50]", "plain v1 + epochs=50 + lr=0.0003"),
        ("plain[protocol=quick,ce_weight=0.5]", "plain quick v1 + ce_weight=0.5"),
        ("plain[optimizer=adamw,schedule=cosine]", "plain v1 + optimizer=adamw + schedule=cosine"),
        ("plain[augment=crop+noise]", "plain v1 + augment=crop+noise"),
        ("plain[batch=256,ce_weight=1,lr=auto]", "plain v1"),
        ("kd", "kd v1"),
        ("kd[protocol=quick]", "kd quick v1"),
        ("kd[temperature=4]", "kd v1 + temperature=4"),
        ("kd[temperature=1.5,alpha=0.5]", "kd v1"),
        ("kd[alpha=0.3,teacher=vgg11[norm=batch]]", "kd v1 + alpha=0.3 + teacher=vgg11[norm=batch]"),
    ],
)
def test_a_protocol_names_itself_and_every_departure(toy, name, protocol):
    said = component("evaluator", name).protocol(toy, component("architecture", "convnet"))
    assert said.split(" + ")[0] == protocol.split(" + ")[0]
    assert sorted(said.split(" + ")) == sorted(protocol.split(" + "))


def test_a_batch_norm_convnet_departs_from_its_own_protocol(toy):
    """Its protocol augments with crop+noise and so has 1001 epochs."""
    network = component("architecture", "convnet[norm=batch]")
    protocols = {text: component("evaluator", text).protocol(toy, network) for text in BATCH_NORM_PROTOCOLS}
    assert protocols == BATCH_NORM_PROTOCOLS


BATCH_NORM_PROTOCOLS = {
    "plain": "plain v1",
    "plain[augment=crop+noise]": "plain v1",
    "plain[epochs=1001]": "plain v1",
    "plain[augment=none]": "plain v1 + augment=none",
    "plain[epochs=301]": "plain v1 + epochs=301",
}


@pytest.mark.parametrize(
    "name",
    [
        "plain[augment=crop+flip]",
        "plain[lr=0]",
        "plain[epochs=0]",
        "plain[protocol=v2]",
        "plain[ce_weight=0]",
        "kd[temperature=0]",
        "kd[alpha=1.1]",
    ],
)
def test_options_out_of_range_are_refused(name):
    with pytest.raises(UsageError):
        registry().resolve("evaluator", name)


@pytest.fixture
def lessons(monkeypatch):
    """What the evaluators would have students learn, without the learning."""
    taught = []
    for module in ("plain", "kd"):
        monkeypatch.setattr(
            f"mpdd_plugins.evaluators.{module}.train_students", lambda lesson, *_: taught.append(lesson) or []
        )
    return taught


LIKE_MNIST = {"augmentations": {"dc": "crop+scale+rotate"}}


@pytest.mark.parametrize("evaluator", ["plain", "kd"])
@pytest.mark.parametrize(
    ("options", "problem", "architecture", "epochs", "augmented"),
    [
        ("", {}, TINY_MLP, 301, False),
        ("", LIKE_MNIST, TINY_MLP, 1001, True),
        ("", {}, "convnet[norm=batch]", 1001, True),
        ("augment=none", LIKE_MNIST, TINY_MLP, 301, False),
        ("augment=noise", {}, TINY_MLP, 1001, True),
        ("protocol=quick", {}, TINY_MLP, 101, False),
        ("protocol=quick", LIKE_MNIST, TINY_MLP, 101, True),
        ("epochs=7", LIKE_MNIST, TINY_MLP, 7, True),
    ],
)
def test_epochs_and_augmentation_go_by_protocol_problem_and_architecture(
    lessons, evaluator, options, problem, architecture, epochs, augmented
):
    problem = toy_problem(**problem)
    evaluate(f"{evaluator}[{options}]", problem, toy_set(problem), architecture=architecture)
    (lesson,) = lessons
    assert lesson.recipe.epochs == epochs
    assert (lesson.augment is not None) is augmented


def test_v1_is_the_recipe_of_the_reference(lessons, toy):
    evaluate("plain", toy, toy_set(toy))
    assert vars(lessons[0].recipe) == {
        "epochs": 301,
        "lr": 0.01,
        "optimizer": "sgd",
        "schedule": "step",
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "batch": 256,
        "steps": None,
        "images": None,
        "milestones": (),
        "factor": 0.1,
        "warmup": 0,
        "flat_radius": 0.0,
        "flat_gap": 0.0,
        "last": 0.0,
    }


def test_a_convnet_with_batch_norm_crops_and_adds_noise_even_on_mnist():
    problem = toy_problem(**LIKE_MNIST)
    options = PlainOptions()
    assert options.augmentation(problem, component("architecture", "convnet[norm=batch]")) == "crop+noise"
    assert options.augmentation(problem, component("architecture", "vgg11[norm=batch]")) == "crop+scale+rotate"
    assert (
        PlainOptions(augment="none").augmentation(problem, component("architecture", "convnet[norm=batch]")) == "none"
    )


def test_students_train_on_augmented_images(toy):
    distilled = toy_set(toy, 2)
    plain, augmented = (evaluate(f"plain[epochs=3,augment={how}]", toy, distilled)[0] for how in ("none", "crop"))
    assert augmented.losses != plain.losses
    assert augmented.epochs == plain.epochs == 3


def test_ce_weight_scales_the_loss(toy):
    distilled = toy_set(toy)
    whole, half = (evaluate(f"plain[epochs=1,ce_weight={weight}]", toy, distilled)[0] for weight in (1, 0.5))
    assert half.loss == pytest.approx(whole.loss / 2, rel=1e-6)
    longer, weaker = (evaluate(f"plain[epochs=5,ce_weight={weight}]", toy, distilled)[0] for weight in (1, 0.5))
    assert weaker.loss != pytest.approx(longer.loss / 2, rel=1e-4)  # weaker steps, too


@pytest.mark.parametrize("soft", [False, True])
def test_students_of_both_evaluators_learn_the_toy_problem(toy, soft):
    distilled = toy_set(toy, 2, soft=soft)
    artifacts = teachers(KD, toy, distilled, [0, 1])
    for name in ("plain[protocol=quick,lr=0.05]", KD.replace("quick", "quick,lr=0.05")):
        records = evaluate(name, toy, distilled, students=[0, 1], artifacts=artifacts)
        assert [record.student for record in records] == [0, 1]
        assert all(record.epochs == 101 and record.accuracy > 0.9 and not record.collapsed for record in records)


def test_kd_without_teacher_weight_is_plain(toy):
    distilled = toy_set(toy)
    artifacts = teachers(KD, toy, distilled)
    (kd,) = evaluate(KD.replace("kd[", "kd[epochs=8,alpha=0,"), toy, distilled, artifacts=artifacts)
    (plain,) = evaluate("plain[protocol=quick,epochs=8]", toy, distilled)
    assert kd.losses == pytest.approx(plain.losses, rel=1e-7)
    assert kd.accuracy == plain.accuracy


def test_a_teacher_is_asked_for_by_student_and_not_by_what_the_students_do():
    request = component("evaluator", "kd").artifact(3)
    assert (request.index, request.architecture) == (3, "convnet")
    departed = component(
        "evaluator", "kd[temperature=4,alpha=0.1,lr=0.1,epochs=9,optimizer=adam,batch=2,schedule=cosine]"
    )
    assert departed.artifact(3) == request
    assert component("evaluator", "kd").artifact(4) != request
    assert component("evaluator", "kd[protocol=quick]").artifact(3) != request
    assert component("evaluator", "kd[teacher=vgg11]").artifact(3) != request
    assert component("evaluator", "plain").artifact(3) is None


def test_a_teacher_starts_from_a_seed_of_its_own(toy):
    """Else a ConvNet student would start as its own teacher."""
    distilled = toy_set(toy)
    artifacts = teachers(KD, toy, distilled, [0, 1])
    network = component("architecture", TINY_CONVNET).build(toy.shape, 3, Streams(0).generator("student", 0, 0))
    first, second = (artifacts[student].tensors["classifier.weight"] for student in (0, 1))
    assert not torch.equal(first, second)
    for teacher in (first, second):
        assert functional.cosine_similarity(teacher.flatten(), network.classifier.weight.flatten(), dim=0).abs() < 0.5
    again = teachers(KD, toy, distilled)[0].tensors
    assert all(torch.equal(again[name], value) for name, value in artifacts[0].tensors.items())
    other = teachers(KD, toy, distilled, seed=1)[0].tensors["classifier.weight"]
    assert not torch.equal(other, first)


def test_teachers_do_not_depend_on_the_global_generator(toy):
    distilled, artifacts = toy_set(toy), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        artifacts.append(teachers(KD, toy, distilled)[0].tensors["classifier.weight"])
    assert torch.equal(*artifacts)


@pytest.mark.parametrize("augment", ["none", "noise"])
def test_students_hear_the_logits_of_the_teacher_as_evaluated(augment):
    problem = toy_problem()
    distilled = toy_set(problem, 2)
    name = "kd[protocol=quick,teacher=convnet[width=4,depth=1,norm=batch]]"
    artifact = teachers(name, problem, distilled)[0]
    taught = name.replace("kd[", f"kd[epochs=1,alpha=0.7,temperature=2,augment={augment},")
    (record,) = evaluate(taught, problem, distilled, artifacts={0: artifact})

    images, labels = distilled.training_data()
    teacher = artifact.architecture.network(problem.shape, 3)
    student = component("architecture", TINY_MLP).build(problem.shape, 3, Streams(0).generator("student", 0, 0))
    expected = {}
    with torch.no_grad():
        for mode in (False, True):
            teacher.load_state_dict(artifact.tensors)
            teacher_logits = teacher.train(mode)(images)
            expected[mode] = float(
                distillation_loss(student(images), teacher_logits, labels, alpha=0.7, temperature=2.0)
            )
    # The noise of 0.001 hardly changes the logits; training mode changes them much.
    tolerance = 1e-5 if augment == "none" else 5e-3
    assert abs(expected[True] - expected[False]) > 3 * tolerance * expected[False]
    assert record.loss == pytest.approx(expected[False], rel=tolerance)


def test_students_leave_their_teacher_as_it_was(toy):
    distilled = toy_set(toy, 2)
    name = "kd[protocol=quick,epochs=4,teacher=convnet[width=4,depth=1,norm=batch]]"
    artifacts = teachers(name, toy, distilled, [0])
    before = {key: value.clone() for key, value in artifacts[0].tensors.items()}
    first = evaluate(name, toy, distilled, artifacts=artifacts)
    assert all(torch.equal(artifacts[0].tensors[key], value) for key, value in before.items())
    assert evaluate(name, toy, distilled, artifacts=artifacts)[0].losses == first[0].losses


def test_two_kd_students_and_then_three_more_are_five_at_once(toy, threads):
    distilled = toy_set(toy)
    name = KD.replace("kd[", "kd[epochs=5,")
    artifacts = teachers(name, toy, distilled, range(5))
    threads(2)
    five = evaluate(name, toy, distilled, students=range(5), artifacts=artifacts)
    two = evaluate(name, toy, distilled, students=[0, 1], artifacts=artifacts)
    three = evaluate(name, toy, distilled, students=[2, 3, 4], artifacts=artifacts)
    assert [record.losses for record in two + three] == [record.losses for record in five]
    assert [record.accuracy for record in two + three] == [record.accuracy for record in five]


@pytest.mark.parametrize("name", ["plain", KD])
def test_work_counts_passes_of_one_student(toy, name):
    epochs = 301 if name == "plain" else 101
    assert component("evaluator", name).work(toy, 6) == 3 * epochs * 6 + 18


@pytest.mark.parametrize("batch", [4, 256])
def test_a_teacher_is_asked_for_no_more_images_at_once_than_a_step_trains_on(toy, monkeypatch, batch):
    """A full data set has 50,000 images: their activations do not fit into memory together."""
    sizes, forward = [], Network.forward
    monkeypatch.setattr(Network, "forward", lambda self, images: sizes.append(len(images)) or forward(self, images))
    distilled = toy_set(toy, 3)  # nine images
    name = KD.replace("kd[", f"kd[epochs=1,batch={batch},")
    artifacts = teachers(KD, toy, distilled)
    sizes.clear()
    evaluator = component("evaluator", name)
    monkeypatch.setattr("mpdd_plugins.evaluators.kd.train_students", lambda lesson, *_: [lesson.loss(0)])
    evaluator.evaluate(distilled, toy, component("architecture", TINY_MLP), [0], artifacts, Streams(0))
    assert sizes == ([4, 4, 1] if batch == 4 else [9])
