"""DropPath: its goldens, its paths and phases, and parts that are switched off one by one until plain is left."""

import dataclasses

import pytest
import torch
from golden_inputs import formula
from torch import nn
from toys import TINY_MLP, FromFunction, component, toy_problem, toy_set

from harness import Batch, DistilledSet, Network, Recipe, Streams
from mpdd_plugins.augmentations import dsa
from mpdd_plugins.augmentations.several import several_augmentation
from mpdd_plugins.evaluators.drop_paths import AddedPath, PathArchitecture, ResidualPath, VirtualPath
from mpdd_plugins.evaluators.droppath import DropPathOptions
from mpdd_plugins.evaluators.restarts import cycle_rate, keep_rate

PROBLEM = toy_problem()
DISTILLED = toy_set(PROBLEM, 2)
CONVNET = "convnet[width=4,depth=3]"
TEACHER = "teacher=convnet[width=4,depth=1],teacher-epochs=3"
RATES = {1: 5e-07, 50: 2.5e-05, 99: 4.95e-05, 100: 5e-05, 400: 3.75e-05, 550: 2.5e-05, 999: 1.5230855524017708e-10}
"""Learning rates by step of a cycle of 1000 with 100 of warm-up and the peak 5e-5, of the released scheduler."""


def evaluated(name, students=(0,), *, architecture=CONVNET, distilled=DISTILLED):
    evaluator, built = component("evaluator", name), component("architecture", architecture)
    artifacts = {}
    for student in students:
        if request := evaluator.artifact(student):
            teacher = component("architecture", request.architecture)
            made_of = evaluator.make_artifact(request, distilled, PROBLEM, teacher, Streams(0))
            artifacts[student] = dataclasses.replace(made_of, architecture=teacher)
    return list(evaluator.evaluate(distilled, PROBLEM, built, students, artifacts, Streams(0)))


def numbers(records):
    return [(record.accuracy, record.losses) for record in records]


def test_golden_learning_rates():
    for step, rate in RATES.items():
        assert 5e-5 * cycle_rate(step, 1000, 100) == pytest.approx(rate, rel=1e-9)
    recipe = DropPathOptions(preset="as-released").recipe()
    for step, rate in RATES.items():  # its last two periods are one whole cycle
        assert recipe.rate(3000 + step) == pytest.approx(rate, rel=1e-9)


def test_golden_loss_of_a_student():
    student, teacher = formula(970, (5, 4), -3, 3), formula(971, (5, 4), -3, 3)
    values = formula(972, (5, 4), -0.5, 0.5)
    evaluator = component("evaluator", "droppath")
    distilled = DistilledSet(
        torch.zeros(5, 1, 16, 16), values.float(), tuple("abcd"), PROBLEM.preprocessing, label_kind="regression"
    )  # fmt: skip
    weights = evaluator._weighted(distilled).training_data()[1]
    torch.testing.assert_close(weights, torch.softmax(values / 0.3, 1).float())
    loss = evaluator._loss_with(lambda images: teacher)
    batch = Batch(torch.arange(5), torch.zeros(5), torch.softmax(values / 0.3, 1), student)
    assert float(loss(batch)) == pytest.approx(2.72416757664769, rel=1e-9)


def test_rates_restart_with_lower_peaks():
    recipe = DropPathOptions().recipe()
    peaks = [recipe.rate(500 * period + 100) for period in range(6)]
    assert peaks == pytest.approx([5e-5 * 0.8**period for period in range(6)])
    assert recipe.rate(499) == pytest.approx(5e-5 * cycle_rate(499, 1000, 100))
    assert recipe.rate(500) == recipe.rate(0) == 0
    assert recipe.rate(3100) == pytest.approx(5e-6)
    assert recipe.rate(3999) < 1e-9
    released = DropPathOptions(preset="as-released").recipe()
    assert [released.rate(500 * period + 100) for period in range(7)] == pytest.approx([5e-5] * 7)


def test_a_rise_shorter_than_an_epoch_is_left_out():
    """The first epoch of each rise has the rate 0, which were 7 of 8 epochs."""
    rates = [DropPathOptions(epochs=8, lr=1.0).recipe().rate(epoch) for epoch in range(8)]
    assert rates == pytest.approx([1, 0.8, 0.64, 0.512, 0.4096, 0.32768, 0.1, 0.05])
    for epochs, still in ((8, 0), (16, 0), (39, 0), (40, 7), (400, 7), (4000, 7)):
        recipe = DropPathOptions(epochs=epochs).recipe()
        assert [recipe.rate(epoch) for epoch in range(epochs)].count(0) == still
        assert (DropPathOptions(epochs=epochs).as_json().get("warmup") == "none") is (epochs < 40), "keys of its own"
    assert "warmup" not in DropPathOptions(epochs=8, schedule="cosine").as_json()


def test_a_student_of_eight_epochs_learns():
    name = "droppath[epochs=8,alpha=0,drop=false,improved=false,optimizer=adamw,lr=0.01,batch=6,augment=none]"
    (record,) = evaluated(name, architecture=TINY_MLP)
    assert record.losses[6] < 0.9 * record.losses[0]


def test_keep_rates_have_three_phases():
    rates = [keep_rate(epoch, 4000, 0.5, 0.8) for epoch in (0, 499, 500, 1000, 1999, 2000, 2500, 2999, 3000, 3999)]
    assert rates == pytest.approx([1, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.8, 0.8])
    assert {keep_rate(epoch, 4000, 1.0, 1.0) for epoch in range(0, 4000, 100)} == {1.0}, "as released, none drops"


def test_lion_has_the_papers_averages():
    weight = nn.Parameter(torch.zeros(2))
    (group,) = DropPathOptions().recipe().new_optimizer([weight]).param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.95, 0.98), 5e-3)


def test_the_mean_over_masks_is_the_test_output_of_a_linear_branch():
    """Of a residual path, whose branch is divided by the keep rate; its output is not negative here."""
    torch.manual_seed(0)
    path = ResidualPath(nn.Conv2d(2, 2, 1, bias=False), nn.Identity(), drops=True)
    inputs = torch.rand(1, 2, 3, 3) + 5
    path.probability = 0.6
    with torch.no_grad():
        path.branch.weight.uniform_(-0.2, 0.2)
        many = path.train()(inputs.expand(40000, -1, -1, -1))
        wanted = path.eval()(inputs)
    assert {len(torch.unique(many[:, 0, 0, 0].round(decimals=4)))} == {2}
    torch.testing.assert_close(many.mean(0, keepdim=True), wanted, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("name", "blocks", "paths"),
    [
        ("convnet[width=4,depth=4,skip=true]", "Skip", 3),
        ("wrn[depth=10,width=1,norm=instance]", "PreActivation", 3),
        ("vit[dim=8,depth=2,heads=2,mlp=8,dropout=0]", "EncoderBlock", 4),
    ],
)
def test_deep_networks_drop_the_branches_of_their_blocks(name, blocks, paths):
    """The mean over masks of the last branch of each block is its test output, for the block adds it to the rest."""
    built = PathArchitecture(component("architecture", name), improved=True, drops=True)
    network = built.build((1, 16, 16), 3, Streams(0).generator("a", 0))
    assert sum(isinstance(part, AddedPath) for part in network.modules()) == paths
    images = torch.rand(1, 1, 16, 16)
    for block in (part for part in network.body if type(part).__name__ == blocks):
        seen = []
        block.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            plain = network.eval()(images)
            *_, last = (part for part in block.modules() if isinstance(part, AddedPath))
            last.probability = 0.6
            many, wanted = block.train()(seen[0].expand(4000, *seen[0].shape[1:])), block.eval()(seen[0])
        assert not torch.equal(many[:1].expand_as(many), many), "some are dropped"
        torch.testing.assert_close(many.mean(0, keepdim=True), wanted, rtol=0.1, atol=0.1)
        last.probability = 1.0
    assert torch.equal(network.train()(images), plain)


def test_wide_networks_have_improved_shortcuts_where_maps_shrink():
    architecture = component("architecture", "wrn[depth=10,width=1]")
    for improved, pools in ((True, 2), (False, 0)):
        network = PathArchitecture(architecture, improved=improved, drops=False).network((3, 32, 32), 3)
        assert sum(isinstance(part, nn.AdaptiveMaxPool2d) for part in network.modules()) == pools


def test_dense_networks_have_no_paths():
    reason = component("evaluator", "droppath").unsuited(PROBLEM, component("architecture", "densenet-bc"), None)
    assert reason == "it has convolutions in blocks that are not residual, so that no shortcut can lead around them"


def test_a_virtual_path_is_one_or_the_other():
    path = VirtualPath(nn.Conv2d(2, 2, 1), nn.Identity())
    path.probability = 0.25
    inputs = torch.rand(4000, 2, 1, 1)
    with torch.no_grad():
        seen, branch = path.train()(inputs), path.branch(inputs)
        assert torch.equal(path.eval()(inputs), branch)
    is_branch = (seen == branch).all(dim=(1)).flatten()
    assert torch.equal(seen[~is_branch], inputs[~is_branch])
    assert float(is_branch.float().mean()) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("name", "residual", "virtual"),
    [
        (CONVNET, 0, 1),
        ("convnet[width=4,depth=2]", 0, 1),
        ("alexnet", 0, 2),
        ("vgg11", 0, 4),
        ("resnet18", 8, 0),
        ("resnet-cifar", 9, 0),
    ],
)
def test_networks_have_paths(name, residual, virtual):
    architecture = component("architecture", name)
    paths = PathArchitecture(architecture, improved=True, drops=True)
    shape = (1, 16, 16) if "convnet" in name else (3, 32, 32)
    with torch.device("meta"):
        network = paths.network(shape, 3)
        logits = network(torch.zeros(2, *shape))
    kinds = [type(module) for module in network.modules()]
    assert (kinds.count(ResidualPath), kinds.count(VirtualPath)) == (residual, virtual)
    assert logits.shape == (2, 3)


def test_without_dropping_networks_compute_what_they_do_without_paths():
    architecture, images = component("architecture", CONVNET), torch.rand(3, 1, 16, 16)
    plain = architecture.build((1, 16, 16), 3, Streams(0).generator("a", 0))
    paths = PathArchitecture(architecture, improved=True, drops=True)
    network = paths.build((1, 16, 16), 3, Streams(0).generator("a", 0))
    assert torch.equal(network(images), plain(images)), "equal initial weights, and p = 1"
    network.keep(0.2)
    assert not torch.equal(network(images), plain(images))
    assert torch.equal(network.eval()(images), plain.eval()(images))


@pytest.mark.parametrize("drop", ["true", "false"])
def test_what_has_no_paths_is_not_applicable(drop):
    evaluator = component("evaluator", f"droppath[drop={drop},improved={drop}]")
    reason = evaluator.unsuited(PROBLEM, component("architecture", TINY_MLP), None)
    assert (reason is None) is (drop == "false")
    assert evaluator.unsuited(PROBLEM, component("architecture", CONVNET), None) is None


def test_without_dropping_networks_need_no_paths():
    """An MLP is trained as it is, for it has no shortcut to improve either."""
    for name in (TINY_MLP, "densenet-bc[depth=10]", CONVNET):
        assert (
            component("evaluator", "droppath[drop=false]").unsuited(PROBLEM, component("architecture", name), None)
            is None
        )
    rest = f"alpha=0,{SAME}"
    improved, plain = (
        evaluated(f"droppath[drop=false,improved={word},{rest}]", architecture=TINY_MLP) for word in ("true", "false")
    )
    assert numbers(improved) == numbers(plain)
    unseen = FromFunction(lambda shape, classes: NoSequence())
    reason = "its layers are not in sequence, so that no shortcut can be seen: set improved=false"
    assert component("evaluator", "droppath[drop=false]").unsuited(PROBLEM, unseen, None) == reason
    assert component("evaluator", "droppath[drop=false,improved=false]").unsuited(PROBLEM, unseen, None) is None


class NoSequence(Network):
    """A network without a body of layers."""


def test_two_operations_a_batch_are_drawn_without_replacement():
    images = torch.rand(5, 3, 8, 8)
    single, alone = several_augmentation("flip+crop", 1), dsa.dsa_augmentation("flip+crop")
    both, cut = several_augmentation("flip+cutout", 2), several_augmentation("cutout", 2)
    for seed in range(3):
        first, second = (augment(images, torch.Generator().manual_seed(seed)) for augment in (single, alone))
        assert torch.equal(first, second)
    seen = both(images, torch.Generator().manual_seed(0))
    assert ((seen == 0).float().mean((1, 2, 3)) > 0.01).all(), "each image is cut, whichever is drawn first"
    assert (cut(images, torch.Generator().manual_seed(0)) == 0).any(), "one operation is all there is"


OFF = "drop=false,improved=false,alpha=0,augmentations=1"
SAME = "optimizer=adamw,lr=0.01,schedule=cosine,batch=4,epochs=8"


def test_without_its_parts_it_is_plain_bit_for_bit():
    plain = evaluated(f"plain[protocol=dsa,{SAME}]", (0, 1))
    off = evaluated(f"droppath[{OFF},{SAME},weight-decay=5e-4]", (0, 1))
    assert numbers(off) == numbers(plain)


@pytest.mark.parametrize(
    "part",
    [
        "drop=true", "alpha=0.5", "augmentations=2", "optimizer=lion", "schedule=restarts", "weight-decay=0.1",
        "schedule=constant",
    ],
)  # fmt: skip
def test_each_part_alone_changes_the_numbers(part):
    options = dict(pair.split("=", 1) for pair in f"{OFF},{SAME},weight-decay=5e-4".split(","))
    name, _, value = part.partition("=")
    text = ",".join(f"{key}={text}" for key, text in {**options, name: value}.items())
    assert numbers(evaluated(f"droppath[{text},{TEACHER}]")) != numbers(evaluated(f"plain[protocol=dsa,{SAME}]"))


def test_improved_shortcuts_change_residual_networks_alone():
    images = torch.rand(2, 3, 16, 16)
    for name, changes in ((CONVNET, False), ("resnet18", True)):
        architecture = component("architecture", name)
        plain, improved = (
            built.build((3, 16, 16), 3, Streams(0).generator("a", 0))
            for built in (architecture, PathArchitecture(architecture, improved=True, drops=False))
        )
        assert (not torch.equal(plain(images), improved(images))) is changes
        assert not any(isinstance(module, VirtualPath) for module in improved.modules())


WHOLE = f"droppath[epochs=16,lr=0.001,batch=4,{TEACHER}]"


def test_students_are_the_same_alone_and_together():
    both = evaluated(WHOLE, (0, 1))
    torch.manual_seed(5)
    alone = [*evaluated(WHOLE, (0,)), *evaluated(WHOLE, (1,))]
    assert numbers(alone) == numbers(both)
    assert both[0].losses != both[1].losses
    assert both[0].epochs == 16


@pytest.mark.parametrize("kind", ["soft", "regression"])
def test_other_labels(kind):
    (record,) = evaluated(WHOLE, distilled=toy_set(PROBLEM, 2, kind=kind))
    assert 0 < record.loss < 10


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("droppath", "droppath v1"),
        ("droppath[preset=short]", "droppath short v1"),
        ("droppath[preset=as-released]", "droppath as-released v1"),
        ("droppath[preset=short,drop=false]", "droppath short v1 + drop=false"),
        ("droppath[preset=short,epochs=4000]", "droppath short v1 + epochs=4000"),
        ("droppath[alpha=0]", "droppath v1 + alpha=0"),
    ],
)
def test_what_is_printed(name, printed):
    assert component("evaluator", name).protocol(PROBLEM, component("architecture", CONVNET)) == printed


def test_the_teacher_is_asked_for_by_what_decides_it():
    assert component("evaluator", "droppath[alpha=0]").artifact(0) is None
    requests = [component("evaluator", f"droppath{options}").artifact(3) for options in ("", "[drop=false,lr=0.1]")]
    assert requests[0] == requests[1]
    assert requests[0].identity["recipe"] == Recipe(
        1500, 5e-4, "adamw", "milestones", weight_decay=5e-4, batch=100, milestones=(500, 1000)
    ).identity()  # fmt: skip
    assert component("evaluator", "droppath[teacher-epochs=9]").artifact(3) != requests[0]
    assert not component("evaluator", "droppath").uses_real_data
