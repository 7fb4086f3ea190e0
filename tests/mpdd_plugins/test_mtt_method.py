"""MTT: its steps against gradient descent by hand, its experts, its settings, and its state."""

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from harness import DistilledSet, Task, UsageError, Whiten, snapshot
from harness.types.seeds import Streams
from mpdd_plugins.published_settings.mtt import PUBLISHED, SCRIPT, MTTOptions, departures, setting_for
from tests.toys import TINY_CONVNET, TINY_MLP, registry, supplied, toy_problem, toy_trajectory

OPTIONS = "experts=2,train_epochs=3,steps=3,expert_epochs=1,max_start_epoch=3,batch_expert=12"
POOL = f"single[main={TINY_CONVNET}]"
CPU = torch.device("cpu")


def trajectory(more="lr_img=0.5,augment=none", pool=POOL, **options):
    return toy_trajectory(f"mtt[{OPTIONS},{more}]", pool, **options)


def played(method, expert, epoch, images, labels, step_size, steps, transforms=None):
    """The student's loss by hand: plain steps from one snapshot, then its distance from the next."""
    start, target = (snapshot(expert.tensors, at, CPU) for at in (epoch, epoch + 1))
    network = expert.architecture.build((1, 16, 16), 3, torch.Generator())
    names = [name for name, _ in network.named_parameters()]
    weights = {name: start[name] for name in names}
    for number in range(steps):
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
        inputs = transforms[number](images) if transforms else images
        loss = functional.cross_entropy(functional_call(network, leaves, (inputs,)), labels)
        gradient = torch.autograd.grad(loss, list(leaves.values()))
        weights = {name: weights[name] - step_size * part for name, part in zip(names, gradient, strict=True)}
    away = sum((weights[name] - target[name]).square().sum() for name in names)
    return float(away / sum((start[name] - target[name]).square().sum() for name in names))


@pytest.mark.parametrize("unroll", ["exact", "constant"])
def test_the_loss_is_how_far_the_student_ends_from_the_expert(unroll):
    running = trajectory(f"lr_img=0.5,augment=none,unroll={unroll}")
    method, supply = running.method, supplied(running.method, running.problem)
    for iteration in range(3):
        images, step_size = method.images.detach().clone(), float(method.step_size.detach())
        (expert,) = supply(iteration, TINY_CONVNET)
        running.advance(iteration + 1)
        logged = {name: values[-1] for name, values in running.history.scalars.items()}
        by_hand = played(method, expert, int(logged["start_epoch"]), images, method.labels, step_size, 3)
        assert logged["loss"] == pytest.approx(by_hand, rel=1e-4)
        assert not torch.equal(images, method.images)


def test_a_step_moves_images_and_step_size_down_the_loss():
    """With a small rate the next loss on the very same stretch is lower, by what the gradient says."""
    running = trajectory("lr_img=0.01,lr_lr=1e-6,augment=none")
    method, supply = running.method, supplied(running.method, running.problem)
    images, step_size = method.images.detach().clone(), float(method.step_size.detach())
    (expert,) = supply(0, TINY_CONVNET)
    running.advance(1)
    epoch = int(running.history.scalars["start_epoch"][0])
    before, after = (
        played(method, expert, epoch, at, method.labels, beta, 3)
        for at, beta in ((images, step_size), (method.images.detach(), float(method.step_size.detach())))
    )
    assert after < before
    predicted = 0.01 * float(method.images.grad.square().sum()) + 1e-6 * float(method.step_size.grad) ** 2
    assert before - after == pytest.approx(predicted, rel=0.2)


def test_every_expert_has_its_turn_before_one_comes_again():
    method = trajectory().method
    turns = [method.needs(iteration, "convnet")[0].index for iteration in range(40)]
    assert all(sorted(turns[at : at + 2]) == [0, 1] for at in range(0, 40, 2))
    assert len({tuple(turns[at : at + 2]) for at in range(0, 40, 2)}) == 2, "in a new order each time"
    other = [method.needs(iteration, "mlp")[0].index for iteration in range(40)]
    assert other == turns, "whatever the pool draws"


def test_an_expert_is_known_by_its_recipe_alone():
    def request(more, **options):
        (needed,) = trajectory(more, **options).method.needs(0, "convnet")
        return needed.identity

    same = request("augment=none")
    assert request("augment=none,lr_img=7,unroll=constant,labels=expert") == same
    assert request("augment=none", ipc=2) == same
    assert request("augment=none,lr_expert=0.1") != same
    assert request("augment=flip+scale") != same


def test_experts_of_one_index_are_alike_and_others_are_not():
    method, problem = trajectory().method, toy_problem()
    first, second = (
        next(needed for needed in (method.needs(i, TINY_CONVNET)[0] for i in range(9)) if needed.index == index)
        for index in (0, 1)
    )
    build = registry().resolve("architecture", TINY_CONVNET).make

    def expert_weights(request, seed=0):
        return method.make_artifact(request, problem, build(), Streams(seed), _Nothing()).tensors

    again = expert_weights(first)
    assert all(torch.equal(tensor, again[name]) for name, tensor in expert_weights(first).items())
    for other in (expert_weights(second), expert_weights(first, seed=1)):
        assert not torch.equal(again["0.classifier.weight"], other["0.classifier.weight"])
        assert not torch.equal(again["3.classifier.weight"], other["3.classifier.weight"])


class _Nothing:
    def get(self, part):
        return None

    def put(self, part, tensors):
        pass


@pytest.mark.parametrize(
    "more",
    [
        "lr_img=1",
        "lr_img=1,augment=none,unroll=constant",
        "lr_img=1,lr_lr=0.001,batch=2",
        "lr_img=1,labels=expert",
        "lr_img=1,statistics=expert",
        "lr_img=1,flat_radius=0.01,average=0.9",
    ],
)
@pytest.mark.parametrize("main", [TINY_CONVNET, TINY_MLP, "convnet[width=4,depth=1,norm=batch]"])
def test_two_steps_and_two_more_are_four(more, main):
    pool = f"single[main={main}]"
    whole, first, second = (trajectory(more, pool, ipc=2) for _ in range(3))
    whole.advance(4)
    first.advance(2)
    second.restore(*first.state())
    second.advance(4)
    (mine, history), (other, whole_history) = second.state(), whole.state()
    assert set(mine) == set(other)
    assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())
    assert history.scalars == whole_history.scalars


def test_a_pool_decides_whose_expert_it_is():
    running = trajectory(pool=f"mix[of={TINY_CONVNET}:0.5+{TINY_MLP}:0.5]")
    running.advance(8)
    assert set(running.history.realised_mix()) == {TINY_CONVNET, TINY_MLP}
    assert sum(running.history.realised_mix().values()) == 8


def test_the_set_carries_its_step_size():
    running = trajectory("lr_img=0.5,lr_lr=0.01,step_size=0.05,augment=none")
    distilled = running.advance(2)
    assert isinstance(distilled, DistilledSet)
    assert distilled.step_size == pytest.approx(float(running.method.step_size.detach()))
    assert distilled.step_size != pytest.approx(0.05, rel=1e-6)
    assert trajectory("lr_lr=0,step_size=0.05").advance(1).step_size == pytest.approx(0.05)


def test_experts_of_ftd_are_flat_with_the_published_gap():
    def recipe(more, ipc=1):
        return trajectory(more, ipc=ipc).method.needs(0, "convnet")[0].identity["recipe"]

    assert "flat_gap" not in recipe("augment=none")
    flat = "augment=none,flat_radius=0.01"
    assert [recipe(flat, ipc)["flat_gap"] for ipc in (1, 10, 50)] == [0.3, 0.3, 1.0]
    assert (recipe(flat)["flat_radius"], recipe(f"{flat},flat_gap=0.4")["flat_gap"]) == (0.01, 0.4)
    assert "flat_gap" not in recipe(f"{flat},flat_gap=0"), "GSAM without its alpha is SAM"
    with pytest.raises(UsageError, match="flat_radius"):
        trajectory("flat_gap=0.4")


def test_options_of_ftd_change_no_key_unless_they_are_set():
    assert not {"flat_radius", "flat_gap", "average"} & MTTOptions().as_json().keys()
    assert MTTOptions(flat_radius=0.01, average=0.99).as_json().items() >= {("flat_radius", 0.01), ("average", 0.99)}


@pytest.mark.parametrize("as_", ["pixels", "unit-pixels"])
def test_the_result_is_the_running_mean_of_the_images(as_):
    plain, averaged = (trajectory(f"lr_img=1,augment=none,as={as_}{more}") for more in ("", ",average=0.75"))
    mean = plain.advance(0).images
    for iteration in range(1, 5):
        mean = 0.75 * mean + 0.25 * plain.advance(iteration).images
        torch.testing.assert_close(averaged.advance(iteration).images, mean)
    assert plain.method.step_size == averaged.method.step_size, "the step size is not averaged"
    assert torch.equal(plain.method.images, averaged.method.images), "the mean decides no step"


def test_the_step_size_stays_positive():
    running = trajectory("lr_lr=1000,step_size=0.0001,augment=none")
    running.advance(3)
    assert all(value >= 1e-6 * 0.999 for value in running.history.scalars["step_size"])


def test_an_expert_can_predict_the_labels():
    running = trajectory("lr_img=0.5,augment=none,labels=expert")
    method, supply = running.method, supplied(running.method, running.problem)
    images = method.images.detach().clone()
    (expert,) = supply(0, TINY_CONVNET)
    distilled = running.advance(1)
    epoch = int(running.history.scalars["start_epoch"][0])
    network = expert.architecture.build((1, 16, 16), 3, torch.Generator()).eval()
    network.load_state_dict(snapshot(expert.tensors, epoch + 1, CPU))
    assert distilled.label_kind == "soft"
    torch.testing.assert_close(distilled.labels, network(images).softmax(1).detach())
    assert trajectory().advance(1).label_kind == "hard"


def test_batches_go_through_all_images_before_one_comes_again():
    method = toy_trajectory(f"mtt[{OPTIONS.replace('steps=3', 'steps=6')},batch=4]", POOL, ipc=3).method
    network = registry().resolve("architecture", TINY_MLP).make().build((1, 16, 16), 3, torch.Generator())
    batches = [step.index.tolist() for step in method._steps(network, 0)]
    assert [len(batch) for batch in batches] == [4, 4, 1, 4, 4, 1]
    for at in (0, 3):
        assert sorted(batches[at] + batches[at + 1] + batches[at + 2]) == list(range(9))
    assert batches[:3] != batches[3:]
    assert [step.index.tolist() for step in method._steps(network, 1)] != batches


def test_batch_norm_uses_the_statistics_that_were_asked_for():
    pool = "single[main=convnet[width=4,depth=1,norm=batch]]"
    losses = {which: trajectory(f"augment=none,statistics={which}", pool) for which in ("batch", "expert")}
    for running in losses.values():
        running.advance(1)
    first, second = (running.history.scalars["loss"][0] for running in losses.values())
    assert first != second
    plain = {which: trajectory(f"augment=none,statistics={which}") for which in ("batch", "expert")}
    for running in plain.values():
        running.advance(1)
    assert len({running.history.scalars["loss"][0] for running in plain.values()}) == 1, "nothing to choose without it"


# --- settings ---------------------------------------------------------------------------------------------------------


def task(like=None, ipc=1, *, zca=False, classes=3):
    problem = toy_problem(like=like)
    if zca:
        eye = torch.eye(256)
        problem = toy_problem(like=like, preprocessing=Whiten("zca", torch.zeros(256), eye, eye))
    return Task(problem, ipc, Streams(0), 10)


@pytest.mark.parametrize(
    ("like", "ipc", "zca", "values"),
    [  # the facts' table: steps, expert epochs, latest start, lr of images, lr of the step size, its start
        ("cifar10", 1, True, (50, 2, 2, 100, 1e-7, 0.01)),
        ("cifar10", 10, True, (30, 2, 20, 100, 1e-5, 0.001)),
        ("cifar10", 50, False, (30, 2, 40, 1000, 1e-5, 0.001)),
        ("cifar10", 1, False, (50, 2, 5, 1000, 1e-7, 0.01)),
        ("cifar100", 50, True, (80, 2, 40, 1000, 1e-5, 0.01)),
        ("cifar100", 50, False, (80, 2, 40, 1000, 1e-5, 0.01)),
        ("cifar10", 7, True, (20, 3, 25, 1000, 1e-5, 0.01)),
        (None, 1, False, (20, 3, 25, 1000, 1e-5, 0.01)),
    ],
)
def test_what_is_left_to_auto_is_what_was_published(like, ipc, zca, values):
    setting = setting_for(task(like, ipc, zca=zca), MTTOptions())
    values_set = (
        setting.steps,
        setting.expert_epochs,
        setting.max_start_epoch,
        setting.lr_img,
        setting.lr_lr,
        setting.step_size,
    )
    assert values_set == values


def test_what_is_given_wins():
    options = MTTOptions(steps=4, lr_img=3, step_size=0.5, batch=2, max_start_epoch=7, expert_epochs=4, lr_lr=0)
    setting = setting_for(task("cifar10", 10), options)
    assert (setting.steps, setting.lr_img, setting.step_size, setting.batch) == (4, 3, 0.5, 2)
    assert (setting.max_start_epoch, setting.expert_epochs, setting.lr_lr) == (7, 4, 0)


def test_all_images_are_a_batch_unless_an_option_says_otherwise():
    assert setting_for(task(ipc=4), MTTOptions()).batch == 12
    assert setting_for(task(ipc=4), MTTOptions(batch=100)).batch == 12
    assert setting_for(task("cifar100", 50), MTTOptions()).batch == 125


@pytest.mark.parametrize(("epochs", "start", "matched"), [(1, 1, 1), (2, 1, 2), (4, 2, 3), (30, 25, 3)])
def test_start_and_target_fit_into_short_experts_and_a_note_says_so(epochs, start, matched):
    options = MTTOptions(train_epochs=epochs)
    setting = setting_for(task(), options)
    assert (setting.max_start_epoch, setting.expert_epochs) == (start, matched)
    notes = " ".join(departures(task(), options))
    assert (f"max_start_epoch is {start} instead of 25" in notes) == (start != 25)
    assert (f"expert_epochs is {matched} instead of 3" in notes) == (matched != 3)


@pytest.mark.parametrize(
    "options", [{"max_start_epoch": 3}, {"expert_epochs": 4}, {"max_start_epoch": 2, "expert_epochs": 2}]
)
def test_what_does_not_fit_is_refused(options):
    with pytest.raises(UsageError, match="reach beyond train_epochs=2"):
        setting_for(task(), MTTOptions(train_epochs=2, **options))


def test_a_note_says_if_whitening_was_published():
    assert any("whitened" in line for line in departures(task("cifar10", 1), MTTOptions()))
    assert not any("whitened" in line for line in departures(task("cifar10", 1, zca=True), MTTOptions()))
    assert not any("whitened" in line for line in departures(task("cifar10", 50), MTTOptions()))
    assert not any("whitened" in line for line in departures(task(), MTTOptions()))


def test_settings_are_part_of_what_decides_the_numbers():
    plain, copied = (trajectory("augment=none", problem=toy_problem(like=like)).method for like in (None, "cifar10"))
    assert plain.settings()["lr_img"] == SCRIPT.lr_img == 1000
    assert copied.settings()["lr_img"] == PUBLISHED["cifar10", 1][False].lr_img
    assert copied.settings()["lr_lr"] == 1e-7
