"""The protocols dsa, mtt, idc and ncfm: what is printed, what is trained, at which rate, under which augmentation."""

from dataclasses import replace

import pytest
import torch

import mpdd_plugins.augmentations.dsa as dsa
from harness import DataError, DistilledSet, UsageError
from harness.learning import training
from harness.types.seeds import Streams
from mpdd_plugins.evaluators import kd, protocol
from mpdd_plugins.evaluators.protocol import TrainingOptions
from tests.toys import TINY_CONVNET, TINY_MLP, component, registry, toy_problem, toy_set

PROBLEM = toy_problem(augmentations={"dc": "none", "dsa": "color+crop", "idc": "color+crop+cutmix"})
BOTH = ["plain", "kd"]


def set_with(step_size=None, *, soft=False):
    own = toy_set(PROBLEM, soft=soft)
    return DistilledSet(own.images, own.labels, own.classes, own.preprocessing, step_size)


def trained(name, distilled, *, problem=PROBLEM, architecture=TINY_MLP, students=(0, 1)):
    """Students' records, with a teacher each where the evaluator wants one."""
    evaluator, built = component("evaluator", name), component("architecture", architecture)
    artifacts = {}
    for student in students:
        if request := evaluator.artifact(student):
            teacher = component("architecture", TINY_CONVNET)
            unplaced = evaluator.make_artifact(request, distilled, problem, teacher, Streams(0))
            artifacts[student] = type(unplaced)(unplaced.tensors, unplaced.scalars, teacher)
    return list(evaluator.evaluate(distilled, problem, built, students, artifacts, Streams(0)))


def losses(records):
    return [record.losses for record in records]


@pytest.fixture
def short(monkeypatch):
    """Protocols of so many epochs, teachers included."""

    def shorten(epochs, *names):
        for name in names:
            monkeypatch.setitem(protocol.EPOCHS, name, (epochs, epochs))

    return shorten


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ("protocol=dsa", "dsa v1"),
        ("protocol=mtt", "mtt v1"),
        ("protocol=dsa,lr=0.01,epochs=1001", "dsa v1"),
        ("protocol=dsa,epochs=5", "dsa v1 + epochs=5"),
        ("protocol=mtt,lr=0.01", "mtt v1 + lr=0.01"),
        ("protocol=dsa,augment=color_crop", "dsa v1"),
        ("protocol=dsa,augment=flip", "dsa v1 + augment=flip"),
        ("protocol=dsa,augment=none", "dsa v1 + augment=none"),
        ("protocol=idc", "idc v1"),
        ("protocol=idc,batch=64,schedule=milestones,epochs=1000,lr=0.01", "idc v1"),
        ("protocol=idc,augment=cutmix_crop_color", "idc v1"),
        ("protocol=idc,batch=256", "idc v1 + batch=256"),
        ("protocol=idc,schedule=step", "idc v1 + schedule=step"),
        ("protocol=idc,augment=color+crop", "idc v1 + augment=color+crop"),
        ("schedule=milestones", "v1 + schedule=milestones"),
        ("protocol=ncfm", "ncfm v1"),
        ("protocol=ncfm,batch=128,schedule=milestones,optimizer=adamw,epochs=2000,lr=0.001", "ncfm v1"),
        ("protocol=ncfm,lr=0.01,optimizer=sgd", "ncfm v1 + lr=0.01 + optimizer=sgd"),
        ("protocol=ncfm,augment=cutmix_crop", "ncfm v1 + augment=crop+cutmix"),
        ("batch=64,optimizer=lion", "v1 + optimizer=lion + batch=64"),
    ],
)
def test_what_is_printed(kind, options, printed):
    evaluator = component("evaluator", f"{kind}[{options}]")
    assert evaluator.protocol(PROBLEM, component("architecture", TINY_MLP)) == f"{kind} {printed}"


@pytest.mark.parametrize("augmented", [True, False])
def test_ncfms_rate_is_halved_at_each_fifth(augmented):
    recipe = TrainingOptions(protocol="ncfm").recipe(augmented)
    assert (recipe.epochs, recipe.optimizer, recipe.batch, recipe.weight_decay) == (2000, "adamw", 128, 5e-4)
    rates = [recipe.rate(epoch) for epoch in (0, 399, 400, 800, 1200, 1999)]
    assert rates == [1e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5]
    assert TrainingOptions(protocol="ncfm", epochs=10).recipe(augmented).milestones == (2, 4, 6, 8)


@pytest.mark.parametrize("name", ["dsa", "mtt"])
@pytest.mark.parametrize("augmented", [True, False])
def test_a_thousand_epochs_and_one(name, augmented):
    assert TrainingOptions(protocol=name).recipe(augmented).epochs == 1001
    work = component("evaluator", f"plain[protocol={name}]").work(PROBLEM, 10)
    assert work == 3 * 1001 * 10 + len(PROBLEM.score)


@pytest.mark.parametrize("kind", BOTH)
def test_the_learned_step_size_is_the_learning_rate_under_mtt_alone(kind, short):
    short(9, "v1", "dsa", "mtt")
    learned = trained(f"{kind}[protocol=mtt,epochs=6]", set_with(0.037))
    if kind == "plain":
        overridden = trained(f"{kind}[protocol=dsa,epochs=6,lr=0.037]", set_with())
        assert losses(learned) == losses(overridden)
    assert losses(learned) != losses(trained(f"{kind}[protocol=mtt,epochs=6]", set_with(0.001)))
    for other in ("v1", "dsa"):
        name = f"{kind}[protocol={other},epochs=6]"
        assert losses(trained(name, set_with(0.037))) == losses(trained(name, set_with()))
    overridden = trained(f"{kind}[protocol=mtt,epochs=6,lr=0.002]", set_with(0.037))
    assert losses(overridden) != losses(learned)


@pytest.mark.parametrize("kind", BOTH)
def test_a_set_without_a_step_size_cannot_be_scored_under_mtt(kind):
    remedy = {"plain": "give lr=... or another protocol", "kd": "give another protocol .lr= is not the teacher's"}
    with pytest.raises(DataError, match=f"learned step size, which this set does not have: {remedy[kind]}") as refused:
        trained(f"{kind}[protocol=mtt,epochs=2]", set_with())
    assert "\n" not in str(refused.value)


def test_a_learning_rate_that_is_given_does_for_students_but_not_for_a_teacher():
    assert trained("plain[protocol=mtt,epochs=2,lr=0.01]", set_with())
    with pytest.raises(DataError, match="give another protocol"):
        trained("kd[protocol=mtt,epochs=2,lr=0.01]", set_with())


@pytest.mark.parametrize("rate", [0.0, -0.01, float("nan"), float("inf")])
def test_what_is_no_learning_rate_is_refused(rate):
    with pytest.raises(DataError, match=f"and {rate:g} is not a learning rate: give lr="):
        trained("plain[protocol=mtt,epochs=2]", set_with(rate))
    assert trained("plain[protocol=mtt,epochs=2,lr=0.01]", set_with(rate))


@pytest.mark.parametrize(
    ("name", "epochs", "rate"), [("v1", 301, 0.01), ("quick", 101, 0.01), ("dsa", 1001, 0.01), ("mtt", 1001, 0.037)]
)
def test_a_teacher_is_trained_by_the_protocol_itself(name, epochs, rate, monkeypatch):
    """Whatever the students depart by."""
    lessons, original = [], kd.train_network

    def one_epoch(lesson, *words):
        lessons.append(lesson)
        return original(replace(lesson, recipe=replace(lesson.recipe, epochs=1)), *words)

    monkeypatch.setattr(kd, "train_network", one_epoch)
    monkeypatch.setattr(kd, "train_students", lambda lesson, *_: lessons.append(lesson) or [])
    trained(f"kd[protocol={name},epochs=3,lr=0.5,augment=none,batch=2]", set_with(0.037), students=(0,))
    teacher, student = lessons
    assert (teacher.recipe.epochs, teacher.recipe.lr, teacher.recipe.batch) == (epochs, rate, 256)
    assert (teacher.augment is not None) is (name in ("dsa", "mtt"))
    assert (student.recipe.epochs, student.recipe.lr, student.augment) == (3, 0.5, None)


@pytest.mark.parametrize("kind", BOTH)
def test_every_batch_is_augmented_with_the_sets_own_strategy(kind, monkeypatch, short):
    seen = []
    original = dsa.per_image
    monkeypatch.setattr(dsa, "per_image", lambda strategy, *words: seen.append(strategy) or original(strategy, *words))
    short(7, "v1", "dsa")
    trained(f"{kind}[protocol=dsa,epochs=4]", set_with(), students=(0,))
    assert seen == ["color+crop"] * (4 if kind == "plain" else 7 + 4), "the teacher trains by the protocol itself"
    seen.clear()
    trained(f"{kind}[protocol=v1,epochs=4]", set_with(), students=(0,))
    assert not seen


def test_a_teacher_sees_the_images_that_its_student_sees(short):
    """The first step's loss by hand: with alpha 1 it is the teacher's part alone, on the augmented images."""
    short(9, "dsa")
    distilled, streams = set_with(), Streams(0)
    name = "kd[protocol=dsa,epochs=1,alpha=1,temperature=2,augment=cutout]"
    evaluator, architecture = component("evaluator", name), component("architecture", TINY_CONVNET)
    unplaced = evaluator.make_artifact(evaluator.artifact(0), distilled, PROBLEM, architecture, streams)
    artifact = type(unplaced)(unplaced.tensors, unplaced.scalars, architecture)
    (record,) = evaluator.evaluate(distilled, PROBLEM, architecture, [0], {0: artifact}, streams)

    images, labels = distilled.training_data()
    order = torch.randperm(len(images), generator=streams.generator("student-order", 0, 0))
    seen = dsa.dsa_augmentation("cutout")(images[order], streams.generator("student-augment", 0, 0))
    student, teacher = (architecture.build(PROBLEM.shape, 3, streams.generator("student", 0, 0)) for _ in range(2))
    teacher.load_state_dict(dict(unplaced.tensors))
    how = {"alpha": 1.0, "temperature": 2.0}
    with torch.no_grad():
        of_augmented, bare = teacher.eval()(seen), teacher(images[order])
        wanted, wrong = (
            float(kd.distillation_loss(student(seen), logits, labels[order], **how)) for logits in (of_augmented, bare)
        )
    assert abs(wanted - wrong) > 0.01 * wanted
    assert record.losses[0] == pytest.approx(wanted, rel=1e-5)


def test_augmented_and_plain_students_differ():
    plain, augmented = (trained(f"plain[protocol={name},epochs=5]", set_with()) for name in ("v1", "dsa"))
    assert losses(plain) != losses(augmented)
    assert losses(trained("plain[protocol=dsa,epochs=5,augment=none]", set_with())) == losses(plain)


def test_students_are_the_same_alone_and_together():
    together = trained("plain[protocol=dsa,epochs=5]", set_with())
    alone = [trained("plain[protocol=dsa,epochs=5]", set_with(), students=(k,))[0] for k in (0, 1)]
    assert losses(together) == losses(alone)
    assert losses(together)[0] != losses(together)[1]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("name", ["v1", "quick", "dsa", "mtt", "idc"])
def test_soft_labels_and_step_sizes_pass_through_every_protocol(kind, name, short):
    short(9, name)
    name_of_protocol = f"{kind}[protocol={name},epochs=9]"
    soft, hard = trained(name_of_protocol, set_with(0.02, soft=True)), trained(name_of_protocol, set_with(0.02))
    assert all(torch.isfinite(torch.tensor(record.losses)).all() for record in soft)
    assert losses(soft) != losses(hard)


def test_teachers_of_other_protocols_are_others():
    requests = {
        name: component("evaluator", f"kd[protocol={name}]").artifact(0).identity
        for name in ("v1", "dsa", "mtt", "idc")
    }
    assert len({str(sorted(identity.items())) for identity in requests.values()}) == 4
    assert "protocol" not in requests["v1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("protocol=dsa,augment=noise", "no operation 'noise'.*color"),
        ("protocol=v1,augment=color", "no operation 'color'.*noise"),
        ("augment=flip", "no operation 'flip'"),
        (
            "protocol=dsb",
            "'v1', 'quick', 'dsa', 'mtt', 'idc', 'ncfm', 'sre2l', 'rded', 'dd', 'seqmatch', 'frepo' or 'frepo-softmax'",
        ),
    ],
)
def test_operations_belong_to_the_protocols_family(options, message):
    with pytest.raises(UsageError, match=message):
        component("evaluator", f"plain[{options}]")


@pytest.mark.parametrize("kind", BOTH)
def test_bfloat16_is_an_option_and_a_departure(kind, short):
    short(20, "v1")
    names = [f"{kind}{options}" for options in ("", "[precision=bf16-scoring]", "[precision=bf16]")]
    exact, scored, whole = (trained(name, set_with()) for name in names)
    assert losses(scored) == losses(exact), "only scoring is in bfloat16"
    assert losses(whole) != losses(exact)
    for ours, theirs in zip(losses(whole), losses(exact), strict=True):
        assert ours == pytest.approx(theirs, rel=0.1)
    for record, reference in zip([*scored, *whole], [*exact, *exact], strict=True):
        assert record.accuracy == pytest.approx(reference.accuracy, abs=0.12)  # two of 18 images
    protocol = component("evaluator", names[-1]).protocol(PROBLEM, component("architecture", TINY_MLP))
    assert protocol == f"{kind} v1 + precision=bf16"


def test_a_teacher_is_never_in_bfloat16():
    assert component("evaluator", "kd").artifact(0) == component("evaluator", "kd[precision=bf16]").artifact(0)
    with pytest.raises(UsageError, match="precision"):
        component("evaluator", "plain[precision=fp16]")


# --- idc --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("protocol=idc", "plain[protocol=idc]"),
        ("protocol=idc,batch=64,schedule=milestones", "plain[protocol=idc]"),
        ("batch=256,protocol=idc", "plain[protocol=idc,batch=256]"),
        ("protocol=idc,schedule=step", "plain[protocol=idc,schedule=step]"),
        ("batch=256,schedule=step", "plain"),
        ("batch=64", "plain[batch=64]"),
    ],
)
def test_names_say_what_departs_from_the_protocol_and_are_read_back(options, named):
    resolved = registry().resolve("evaluator", f"plain[{options}]")
    assert str(resolved) == named
    again = registry().resolve("evaluator", named)
    assert again.options.as_json() == resolved.options.as_json()


def test_other_protocols_have_the_options_that_they_had():
    """Options are part of every key of a cell."""
    assert TrainingOptions().as_json() == {
        "protocol": "v1", "epochs": None, "lr": None, "optimizer": "sgd", "schedule": "step", "batch": 256,
        "augment": None, "precision": "fp32",
    }  # fmt: skip


def test_idc_is_a_thousand_epochs_with_two_milestones():
    recipe = TrainingOptions(protocol="idc").recipe(True)
    assert recipe == TrainingOptions(protocol="idc").protocol_recipe(True)
    assert (recipe.epochs, recipe.batch, recipe.momentum, recipe.weight_decay) == (1000, 64, 0.9, 5e-4)
    rates = [recipe.rate(epoch) for epoch in range(1000)]
    assert rates == pytest.approx([0.01] * 666 + [0.002] * 167 + [0.0004] * 167)


@pytest.mark.parametrize(
    ("epochs", "milestones"), [(1, (1,)), (2, (1,)), (3, (2,)), (6, (4, 5)), (300, (200, 250)), (1000, (666, 833))]
)
def test_milestones_follow_the_epochs(epochs, milestones):
    assert TrainingOptions(protocol="idc", epochs=epochs).recipe(True).milestones == milestones
    assert TrainingOptions(schedule="milestones", epochs=epochs).recipe(True).milestones == milestones
    assert TrainingOptions(protocol="idc", epochs=epochs, schedule="cosine").recipe(True).milestones == ()


@pytest.mark.parametrize("kind", BOTH)
def test_students_and_teachers_see_mixed_images_with_their_labels(kind, monkeypatch, short):
    seen, original = [], training.augmented
    monkeypatch.setattr(
        training, "augmented", lambda augment, *words: seen.append(original(augment, *words)) or seen[-1]
    )
    short(7, "idc")
    distilled = set_with()
    trained(f"{kind}[protocol=idc,epochs=4]", distilled, students=(0,))
    assert len(seen) == (4 if kind == "plain" else 7 + 4), "the teacher trains by the protocol itself"
    assert all(labels.shape == (len(images), 3) for images, labels in seen)
    assert any(not torch.equal(labels, labels.round()) for _, labels in seen), "some are mixed"
    assert any(torch.equal(labels, labels.round()) for _, labels in seen), "and some are not"


@pytest.mark.parametrize("kind", BOTH)
def test_idc_without_augmentation_has_no_cutmix_either(kind, short):
    short(5, "idc")
    plain, mixed = (trained(f"{kind}[protocol=idc,epochs=5{rest}]", set_with()) for rest in (",augment=none", ""))
    assert losses(plain) != losses(mixed)


@pytest.mark.parametrize(("optimizer", "rate"), [("lion", 0.003), ("lamb", 0.02)])
def test_students_learn_with_lion_and_lamb(optimizer, rate):
    (record,) = trained(f"plain[optimizer={optimizer},epochs=30,lr={rate}]", set_with(), students=(0,))
    assert record.losses[-1] < 0.8 * record.losses[0]
