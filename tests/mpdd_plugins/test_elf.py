"""ELF: its golden loss, where students are cut, and what their front and rear learn from."""

import re

import pytest
import torch
from golden_inputs import formula
from studies import ddbench, small_words
from torch.nn import functional
from toys import TINY_MLP, component, resolve, toy_problem, toy_set

from harness import Streams, UsageError, trained_network
from harness.testing.small import real_network
from mpdd_plugins.evaluators.cut_networks import CutNetwork, map_shape, place_of
from mpdd_plugins.evaluators.elf import front_loss

PROBLEM = toy_problem()
DISTILLED = toy_set(PROBLEM, 2)
CONVNET = "convnet[width=4]"
ELF = "elf[epochs=2,augment=none,teacher=convnet[width=4],teacher-epochs=1]"


def artifact_of(name):
    return real_network(component("evaluator", name).artifact(0), PROBLEM, resolve)


def evaluated(name, students=(0,), *, architecture=CONVNET):
    evaluator, built = component("evaluator", name), component("architecture", architecture)
    artifacts = dict.fromkeys(students, artifact_of(name))
    return list(evaluator.evaluate(DISTILLED, PROBLEM, built, students, artifacts, Streams(0)))


def test_golden_loss_of_the_front():
    maps, stored = formula(980, (2, 3, 2, 2), -1, 2), formula(981, (2, 3, 2, 2), 0, 2)
    assert float(front_loss(maps, stored)) == pytest.approx(5.068458785648881, rel=1e-9)
    assert float(front_loss(maps, stored, "l2")) == pytest.approx(float((maps - stored).square().mean()))
    assert float(front_loss(maps, stored, "l1")) == pytest.approx(float((maps - stored).abs().mean()))
    assert float(front_loss(stored, stored, "cosine")) == pytest.approx(0, abs=1e-12)


def test_front_and_rear_are_the_network():
    network = component("architecture", CONVNET).network(PROBLEM.shape, 3)
    cut, images = CutNetwork(network, 12), torch.rand(4, *PROBLEM.shape)
    whole = cut(images)
    maps = network.features(images, taps=["block3"])["block3"]
    assert torch.equal(whole[:, :3], network(images))
    assert torch.equal(whole[:, 3:], maps.flatten(1))
    assert torch.equal(cut.rear(maps), network(images))
    assert torch.equal(cut.eval()(images), network(images))
    assert [*map(id, cut.parameters())] == [*map(id, network.parameters())]


@pytest.mark.parametrize(
    ("student", "place"),
    [("convnet[width=512]", 12), ("vgg11", 18), ("resnet18", 10), ("alexnet", None), ("convnet", None)],
)
def test_students_are_cut_at_the_first_such_map(student, place):
    image = (3, 32, 32)
    with torch.device("meta"):
        network = component("architecture", student).network(image, 10)
    assert place_of(network, image, (512, 4, 4)) == place


@pytest.mark.parametrize(
    ("student", "wanted"),
    [
        ("wrn[depth=10,width=2]", (128, 8, 8)),
        ("densenet-bc[depth=10]", (18, 16, 16)),
        ("convnet[width=8,depth=3,skip=true]", (8, 8, 8)),
        ("resnet-cifar[depth=8]", (32, 16, 16)),
    ],
)
def test_deep_networks_are_cut_where_maps_are_not_negative(student, wanted):
    network = component("architecture", student).build((3, 32, 32), 10, torch.Generator()).eval()
    place = place_of(network, (3, 32, 32), wanted)
    if student.startswith("densenet"):
        assert place is None, "its maps of this size follow a convolution, and a pooling that keeps their signs"
        return
    with torch.no_grad():
        maps = network.body[:place](torch.randn(8, 3, 32, 32))
    assert tuple(maps.shape[1:]) == wanted
    assert float(maps.min()) >= 0


def test_the_loss_is_that_of_three_parts():
    """Of the first epoch, by hand; images are not augmented."""
    name = ELF.replace("epochs=2", "epochs=1").replace("teacher=", "front=0.7,rear=0.3,teacher=")
    (record,) = evaluated(name)
    images, labels = DISTILLED.training_data()
    student = component("architecture", CONVNET).build(PROBLEM.shape, 3, Streams(0).generator("student", 0, 0))
    teacher = trained_network(artifact_of(name), PROBLEM)
    with torch.no_grad():
        stored, own = (
            network.features(images, taps=["block3"])["block3"] for network in (teacher, student)
        )  # fmt: skip
        rear = student.classifier(stored.flatten(1))
        wanted = (
            functional.cross_entropy(student(images), labels)
            + 0.7 * functional.cross_entropy(own, stored)
            + 0.3 * functional.cross_entropy(rear, labels)
        )
    assert record.loss == pytest.approx(float(wanted), rel=1e-5)


def test_without_front_and_rear_it_is_plain_bit_for_bit():
    off = evaluated(ELF.replace("teacher=", "front=0,rear=0,teacher="), (0, 1))
    plain = component("evaluator", "plain[protocol=dsa,epochs=2,augment=none]")
    built = component("architecture", CONVNET)
    records = list(plain.evaluate(DISTILLED, PROBLEM, built, (0, 1), {}, Streams(0)))
    assert [(record.accuracy, record.losses) for record in off] == [(r.accuracy, r.losses) for r in records]


def test_students_are_the_same_alone_and_together():
    both = evaluated(ELF, (0, 1))
    alone = [*evaluated(ELF, (0,)), *evaluated(ELF, (1,))]
    assert [record.losses for record in alone] == [record.losses for record in both]
    assert both[0].losses != both[1].losses


@pytest.mark.parametrize(
    ("student", "reason"),
    [(TINY_MLP, "it has no maps"), ("convnet[width=8]", "none of its maps is 4x2x2, as those of"), (CONVNET, None)],
)
def test_who_has_no_such_map(student, reason):
    evaluator = component("evaluator", ELF)
    needed = component("architecture", evaluator.artifact(0).architecture)
    answer = evaluator.unsuited(PROBLEM, component("architecture", student), needed)
    assert answer is None if reason is None else answer.startswith(reason)


@pytest.mark.parametrize("activation", ["leakyrelu", "swish"])
def test_a_student_is_not_cut_where_its_activation_may_be_negative(activation):
    student = component("architecture", f"convnet[width=4,act={activation}]")
    evaluator, needed = component("evaluator", ELF), component("architecture", CONVNET)
    reason = "its maps of 4x2x2 may be negative by its activation, and those of convnet[width=4] are not"
    assert evaluator.unsuited(PROBLEM, student, needed) == reason
    # The distance from maps that are negative themselves is another matter.
    name = f"elf[front-loss=l2,teacher=convnet[width=4,act={activation}],epochs=1,teacher-epochs=1]"
    assert component("evaluator", name).unsuited(PROBLEM, student, student) is None
    (record,) = evaluated(name, architecture=f"convnet[width=4,act={activation}]")
    assert record.loss > 0


SIGNED = "may be negative, so that front-loss=cross-entropy has no least value: choose front-loss=l2, or a teacher with"


def test_a_teacher_with_negative_maps_is_refused_though_its_layers_do_not_show_it():
    teacher = "convnet[width=4,act=swish,skip=true]"
    with pytest.raises(UsageError, match=f"elf: maps 'block3' of the teacher {re.escape(teacher)} {SIGNED} ReLU"):
        evaluated(f"elf[epochs=2,teacher={teacher},teacher-epochs=1]")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "teacher=convnet[width=4,act=leakyrelu]",
            f"elf: maps 'block3' of the teacher convnet[width=4,act=leakyrelu] {SIGNED}",
        ),
        (
            "teacher=convnet[width=4,depth=2],tap=features",
            "elf: the teacher convnet[width=4,depth=2] has no maps at its tap 'features', but 64 numbers: its taps "
            "with maps are act1, block1, act2, block2",
        ),
        ("teacher=mlp[width=8]", "elf: the teacher mlp[width=8] has no tap 'block3': no tap of it has maps"),
    ],
)
def test_a_teacher_without_such_maps_is_refused_before_any_work(data, tmp_path, options, line):
    name = f"elf[{options},teacher-epochs=1,epochs=1]"
    result = ddbench("run", *small_words(data, tmp_path / "store", method="random", iterations=None, evaluator=name,
                                         architecture=CONVNET))  # fmt: skip
    assert result.exit_code == 2
    assert line in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_what_is_asked_for_and_printed():
    evaluator = component("evaluator", "elf")
    assert evaluator.uses_real_data
    assert evaluator.artifact(0) == evaluator.artifact(5)
    assert evaluator.artifact(0).recipe.epochs == 100
    assert evaluator.protocol(PROBLEM, component("architecture", CONVNET)) == "elf dsa v1"
    assert map_shape(PROBLEM, component("architecture", CONVNET), "block2") == (4, 4, 4)
    for wrong in ("elf[protocol=idc]", "elf[precision=bf16]", "elf[front=-1]"):
        with pytest.raises(UsageError):
            component("evaluator", wrong)
