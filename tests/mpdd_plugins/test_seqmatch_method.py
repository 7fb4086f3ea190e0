"""SeqMatch: subsets over MTT and IDC, of which the earlier ones rest; the base method as its degenerate case."""

import pytest
import torch
from toys import TINY_CONVNET, TINY_MLP, component, registry, toy_problem, toy_set, toy_trajectory

from harness import (
    DataError,
    Lesson,
    Recipe,
    Schedule,
    ScheduleStep,
    Streams,
    Task,
    UsageError,
    train_classifier,
    train_network,
)
from harness.learning.students import train_networks
from mpdd_plugins.methods.seqmatch import SeqIDC

MTT = "experts=2,train_epochs=3,steps=2,expert_epochs=1,max_start_epoch=2,batch_expert=12,lr_img=0.5"
IDC = "inner=2,batch_real=6,n_data=8,lr_img=0.01"
SEQ_MTT = f"seqmatch-mtt[{MTT},stage=2,prior_epochs=2,"
SEQ_IDC = f"seqmatch-idc[{IDC},stage=2,prior_epochs=2,"
BOTH = [SEQ_MTT, SEQ_IDC]


def method_of(name, ipc=2):
    """Return a method before its first step."""
    return registry().resolve("method", name).make(Task(toy_problem(), ipc, Streams(0), iterations=10))


@pytest.mark.parametrize(("ours", "base"), [(SEQ_MTT, f"mtt[{MTT}]"), (SEQ_IDC, f"idc[{IDC}]")])
def test_a_single_subset_is_the_base_method_bit_for_bit(ours, base):
    mine = toy_trajectory(f"{ours}subsets=1]", ipc=2).advance(3)
    wanted = toy_trajectory(base, ipc=2).advance(3)
    assert torch.equal(mine.images, wanted.images)
    assert mine.step_size == wanted.step_size
    assert mine.schedule is None


@pytest.mark.parametrize("ours", BOTH)
def test_subsets_move_in_turn_and_rest_afterwards(ours):
    running = toy_trajectory(f"{ours}subsets=2]", ipc=3)  # two images of each class, then one
    begin, first, last = (running.advance(iteration).images.clone() for iteration in (0, 2, 4))
    own = torch.tensor([True, True, False] * 3)
    moved = [(after != before).flatten(1).any(1) for before, after in ((begin, first), (first, last))]
    assert torch.equal(moved[0], own)
    assert torch.equal(moved[1], ~own)


@pytest.mark.parametrize("ours", BOTH)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_it_resumes_bit_for_bit_in_every_stage(ours, stop):
    pool = f"total-random[of={TINY_CONVNET}+{TINY_MLP}]"
    whole, first, second = (toy_trajectory(f"{ours}subsets=2]", pool, ipc=2) for _ in range(3))
    wanted = whole.advance(5)
    first.advance(stop)
    second.restore(*first.state())
    again = second.advance(5)
    assert torch.equal(wanted.images, again.images)
    assert wanted.schedule == again.schedule


def test_the_first_subset_of_mtt_is_learned_on_its_own():
    """Until the second begins, all is as if the others did not exist: MTT of one image a class from the same start."""
    ours, mtt = toy_trajectory(f"{SEQ_MTT}subsets=2,augment=none]", ipc=2), toy_trajectory(f"mtt[{MTT},augment=none]")
    with torch.no_grad():
        ours.method.images[::2] = mtt.method.images
    assert torch.equal(ours.advance(2).images[::2], mtt.advance(2).images)


def test_the_schedule_accumulates_subsets_with_their_step_sizes():
    running = toy_trajectory(f"{SEQ_MTT}subsets=3,lr_lr=1e-3]", ipc=3)
    distilled = running.advance(6)
    steps = distilled.schedule.steps
    assert [step.images for step in steps] == [(0, 3, 6), (0, 1, 3, 4, 6, 7), tuple(range(9))]
    logged = running.history.scalars["step_size"]
    assert [step.step_size for step in steps] == pytest.approx([logged[1], logged[3], logged[5]])
    assert steps[2].step_size == distilled.step_size


def test_packed_images_belong_to_the_subset_of_their_stored_image():
    method = method_of(f"{SEQ_IDC}subsets=2]", ipc=2)
    assert method.per_class == 8
    distilled = method.distilled()
    images, labels = distilled.training_data()
    first = torch.tensor(distilled.schedule.steps[0].images)
    assert torch.bincount(labels[first]).tolist() == [4, 4, 4]
    alone = method.task.distilled(distilled.images[::2], distilled.labels[::2], encoding=distilled.encoding)
    assert {tuple(image.flatten().tolist()) for image in images[first]} == {
        tuple(image.flatten().tolist()) for image in alone.training_data()[0]
    }
    held = method.images.detach()[method.subsets.places[0].flatten()]
    assert {tuple(image.flatten().tolist()) for image in held} == {
        tuple(image.flatten().tolist()) for image in images[first]
    }


def test_networks_of_a_later_subset_are_trained_on_the_earlier_ones(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "mpdd_plugins.methods.seqmatch.train_classifier",
        lambda network, images, labels, recipe, draw, **words: seen.append((labels.tolist(), recipe.epochs)) or [1.0],
    )
    method = method_of(f"{SEQ_IDC}subsets=3,as=pixels]", ipc=3)
    for subset in range(3):
        method.subset = subset
        method._warm_up(None, 0)
    every = [([0, 1, 2], 2), ([0, 1, 2] * 2, 2)]
    assert seen == [every[0], *every], "the first subset; then the first, and the first two"
    assert isinstance(method, SeqIDC)


def test_an_expert_of_a_later_subset_begins_with_what_the_earlier_taught():
    """With images that are real ones, its first epoch is better than chance, and no expert of the store."""
    running = toy_trajectory(f"{SEQ_MTT.replace('prior_epochs=2', 'prior_epochs=30')}subsets=2,step_size=0.1]", ipc=2)
    running.advance(3)
    (expert,) = running.method._experts.values()
    (stored,) = running.networks._supply(2, TINY_CONVNET)
    assert {name.partition(".")[0] for name in expert} == {"0", "1", "2"}
    network = component("architecture", TINY_CONVNET).network((1, 16, 16), 3)
    losses = []
    for tensors in (stored.tensors, expert):
        network.load_state_dict({name[2:]: tensor for name, tensor in tensors.items() if name.startswith("0.")})
        logits = network(running.method.images.detach()[::2])
        losses.append(float(torch.nn.functional.cross_entropy(logits, torch.arange(3)).detach()))
    assert losses[1] < 0.7 * losses[0]


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(UsageError, match="2 images a class cannot be divided into subsets=3"):
        method_of(f"{SEQ_MTT}subsets=3]")
    with pytest.raises(UsageError, match="has tensors that all subsets share"):
        method_of(f"{SEQ_MTT}as=hallucinators]")
    with pytest.raises(UsageError, match="use labels=hard"):
        method_of(f"{SEQ_MTT}labels=expert]")
    assert method_of(f"{SEQ_MTT[:-1]}]", ipc=1).has_schedule is False


# --- the protocol -----------------------------------------------------------------------------------------------------


def staged(images, rates=(0.05, 0.02)):
    """Return a set of two stages: the first image of each class, then all."""
    first = ScheduleStep(rates[0], tuple(range(0, len(images.images), 2)))
    return images.__class__(
        images.images, images.labels, images.classes, images.preprocessing,
        schedule=Schedule((first, ScheduleStep(rates[1], tuple(range(len(images.images)))))),
    )  # fmt: skip


def test_stages_train_one_after_the_other_from_the_weights_before():
    """By hand: two trainings by `train_classifier`, of which the second begins where the first ends."""
    problem, architecture, streams = toy_problem(), component("architecture", TINY_CONVNET), Streams(3)
    images, recipe = staged(toy_set(problem)), Recipe(epochs=4, batch=2)
    network, losses = train_network(Lesson(images, recipe, streams, by_stages=True), problem, architecture, 1)
    by_hand = architecture.build(problem.shape, 3, streams.generator("student", 0, 1))
    for number, step in enumerate(images.schedule.steps):
        own = list(step.images)

        def draw(purpose, epoch, number=number):
            return streams.generator(f"student-{purpose}", 4 * number + epoch, 1)

        own_recipe = Recipe(epochs=4, batch=2, lr=step.step_size)
        train_classifier(by_hand, images.images[own], images.labels[own], own_recipe, draw, sliced=False)
    assert len(losses) == 8
    (_, together), _ = train_networks(Lesson(images, recipe, streams, by_stages=True), problem, architecture, [1, 2])
    assert together == pytest.approx(losses, rel=1e-5)
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, by_hand.state_dict()[name]), name


def test_the_protocol_takes_rates_and_stages_from_the_set():
    problem, streams = toy_problem(), Streams(0)
    evaluator = component("evaluator", "plain[protocol=seqmatch,epochs=3]")
    architecture = component("architecture", TINY_CONVNET)
    assert evaluator.needs_schedule
    assert evaluator.protocol(problem, architecture) == "plain seqmatch v1 + epochs=3"
    (record,) = evaluator.evaluate(staged(toy_set(problem)), problem, architecture, [0], {}, streams)
    assert record.epochs == 6
    with pytest.raises(DataError, match="the protocol seqmatch trains by the set's schedule"):
        list(evaluator.evaluate(toy_set(problem), problem, architecture, [0], {}, streams))
    with pytest.raises(UsageError, match="leave out lr"):
        component("evaluator", "plain[protocol=seqmatch,lr=0.1]")
