"""Networks trained on the real data: against a plain loop, at every snapshot, resumed, loaded, and refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from toys import TINY_CONVNET, TINY_MLP, DropoutNetwork, FromFunction, MemoryScratch, component, toy_problem

from harness import (
    Artifact,
    CutMix,
    DDBenchError,
    NamedAugment,
    RealNetwork,
    Recipe,
    Streams,
    snapshot,
    train_expert,
    trained_network,
)
from harness.learning.artifacts.real_networks import train_real_network

CPU = torch.device("cpu")
RECIPE = Recipe(4, 0.05, batch=8)
CUTMIX = NamedAugment("cutmix 0.5", lambda problem: CutMix(len(problem.classes), 0.5))
BATCH_NORM = "convnet[width=4,depth=1,norm=batch]"


class Cut(Exception):
    """Stands for a kill."""


class Breaking(MemoryScratch):
    """A scratch that breaks after so many parts."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def put(self, part, tensors):
        self.left -= 1
        if self.left < 0:
            raise Cut
        super().put(part, tensors)


def request(**changes):
    return RealNetwork(**{"architecture": TINY_CONVNET, "recipe": RECIPE, "snapshots": (0, 1, 4), **changes})


def train(asked, problem=None, scratch=None, architecture=None, seed=0):
    architecture = architecture or component("architecture", asked.architecture)
    scratch = MemoryScratch() if scratch is None else scratch
    trained = train_real_network(asked, problem or toy_problem(), architecture, Streams(seed), scratch)
    return replace(trained, architecture=architecture)


def assert_same(mine, other):
    assert mine.tensors.keys() == other.tensors.keys()
    for name, tensor in mine.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
    assert mine.scalars == other.scalars


# Each optimiser by torch's own class, and the rate of each epoch by hand. A bias before a norm has no gradient but
# rounding, which AdamW would blow up to steps of full length: hence the MLP.
REFERENCES = {
    "sgd": (RECIPE, lambda weights: torch.optim.SGD(weights, 0.05, 0.9, weight_decay=5e-4), [1, 1, 1, 0.1]),
    "adamw": (
        Recipe(4, 0.01, "adamw", "milestones", batch=8, milestones=(2,), factor=0.5, weight_decay=0.1),
        lambda weights: torch.optim.AdamW(weights, 0.01, weight_decay=0.1),
        [1, 1, 0.5, 0.5],
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_weights_are_those_of_a_plain_loop(name):
    recipe, new_optimizer, factors = REFERENCES[name]
    architecture = TINY_CONVNET if name == "sgd" else TINY_MLP
    problem, asked = toy_problem(), request(architecture=architecture, recipe=recipe, snapshots=range(5), index=2)
    artifact, streams = train(asked, problem), Streams(0)
    generator = streams.generator("real-network", 0, 2)
    network = component("architecture", architecture).build(problem.shape, 3, generator)
    optimizer = new_optimizer(network.parameters())
    rate = optimizer.param_groups[0]["lr"]
    for epoch in range(5):
        for key, tensor in network.state_dict().items():
            torch.testing.assert_close(artifact.tensors[f"{epoch}.{key}"], tensor)
        if epoch == 4:
            break
        optimizer.param_groups[0]["lr"] = rate * factors[epoch]
        if name == "sgd" and epoch == 3:  # DC's step schedule begins anew after its drop
            optimizer.state.clear()
        order = torch.randperm(36, generator=streams.generator("real-network-order", epoch, 2))
        losses = []
        for index in torch.split(order, 8):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(problem.train_inputs[index]), problem.train.labels[index])
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()) * len(index))
    assert artifact.scalars["loss"] == pytest.approx(sum(losses) / 36)


def test_the_record_says_how_good_the_network_is_on_which_images():
    problem = toy_problem()
    artifact = train(request(recipe=Recipe(20, 0.1, batch=8), snapshots=()), problem)
    network = trained_network(artifact, problem)
    for split, images in (("train", problem.train), ("test", problem.score)):
        right = network(problem.preprocessing.to_inputs(images.images)).argmax(1) == images.labels
        assert artifact.scalars[f"{split}_accuracy"] == pytest.approx(float(right.double().mean()))
    assert artifact.scalars["train_accuracy"] > 0.9
    held_out = train(request(snapshots=(0,)), toy_problem(score_on="validation"))
    assert held_out.scalars.keys() == {"train_accuracy", "validation_accuracy"}, "epoch 0 has no loss"


def test_scored_images_decide_no_weight():
    problem = toy_problem()
    other = replace(problem, score=problem.score[torch.arange(5)])
    mine, its = train(request(), problem), train(request(), other)
    assert all(torch.equal(tensor, its.tensors[name]) for name, tensor in mine.tensors.items())


def test_training_ends_with_the_last_snapshot_on_the_schedule_of_all_epochs():
    whole, early = train(request(snapshots=(1, 2, 3, 4))), train(request(snapshots=(1, 2)))
    for name, tensor in early.tensors.items():
        assert torch.equal(tensor, whole.tensors[name])
    assert {name.partition(".")[0] for name in early.tensors} == {"1", "2"}


ARCHITECTURES = {
    "convnet": lambda: component("architecture", TINY_CONVNET),
    "batch norm": lambda: component("architecture", BATCH_NORM),
    "dropout": lambda: FromFunction(DropoutNetwork),
}


@pytest.mark.parametrize("augmentation", [None, CUTMIX], ids=["plain", "cutmix"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_training_that_is_cut_off_anywhere_goes_on_bit_for_bit(kind, augmentation):
    recipe = Recipe(3, 0.01, "adamw", "cosine", batch=12, warmup=1)
    asked, architecture = request(recipe=recipe, augmentation=augmentation, snapshots=(0, 2, 3)), ARCHITECTURES[kind]()
    scratch = MemoryScratch()
    whole = train(asked, scratch=scratch, architecture=architecture)
    assert len(scratch) == 3, "the training and two snapshots"
    parts = 3 + 2
    for after in range(parts):
        scratch = Breaking(after)
        with pytest.raises(Cut):
            train(asked, scratch=scratch, architecture=architecture)
        scratch.left = parts
        assert_same(train(asked, scratch=scratch, architecture=architecture), whole)
        assert parts - scratch.left <= parts - after + 1, "an epoch that was stored is not trained again"


def test_a_training_whose_snapshot_is_lost_begins_again():
    asked, scratch = request(), MemoryScratch()
    whole = train(asked, scratch=scratch)
    del scratch["snapshot-1"]
    assert_same(train(asked, scratch=scratch), whole)
    assert "snapshot-1" in scratch


def test_indices_seeds_and_augmentations_give_other_networks():
    variants = [
        train(request()),
        train(request(index=1)),
        train(request(), seed=1),
        train(request(augmentation=CUTMIX)),
    ]
    weights = {tuple(variant.tensors["4.classifier.weight"].flatten().tolist()) for variant in variants}
    assert len(weights) == 4
    first, other = (variant.tensors["0.classifier.weight"] for variant in (variants[0], variants[3]))
    assert torch.equal(first, other), "an augmentation changes no initial weight"


def test_a_loss_that_is_not_finite_is_one_line():
    with pytest.raises(DDBenchError, match=r"the loss of a network on the real data is nan in epoch 1: a lower"):
        train(request(recipe=replace(RECIPE, lr=1e30)), architecture=FromFunction(DropoutNetwork))


def test_a_network_is_loaded_at_a_snapshot_in_the_mode_that_is_asked_for():
    problem, artifact = toy_problem(), train(request(architecture=BATCH_NORM))
    for epoch, weights in [(0, 0), (1, 1), (None, 4)]:
        network = trained_network(artifact, problem, epoch)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, snapshot(artifact.tensors, weights, CPU)[name])
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
    student = trained_network(artifact, problem, 1, training=True)
    assert student.training
    assert all(parameter.requires_grad for parameter in student.parameters())
    student(problem.train_inputs).sum().backward()
    again = trained_network(artifact, problem, 1)
    assert int(again.state_dict()["body.1.num_batches_tracked"]) == 5, "each call gives a network of its own"


def test_an_expert_is_loaded_in_the_same_way():
    problem, architecture = toy_problem(), component("architecture", TINY_MLP)
    network = architecture.build(problem.shape, 3, torch.Generator())
    recipe = Recipe(2, 0.05, "sgd", "constant", 0.0, 0.0, 8)
    tensors, _ = train_expert(network, problem, recipe, Streams(0).generator, MemoryScratch())
    loaded = trained_network(Artifact(tensors, architecture=architecture), problem)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_an_epoch_that_is_not_stored_is_refused():
    problem, artifact = toy_problem(), train(request())
    with pytest.raises(DDBenchError, match="no weights are stored after epoch 3, only after 0, 1, 4: add it"):
        trained_network(artifact, problem, 3)
    with pytest.raises(TypeError, match="has no architecture to build it with"):
        trained_network(replace(artifact, architecture=None), problem)


REFUSED = {
    "snapshot 5 is not among the 4 epochs of a real network's recipe: ask for epochs from 0 to 4": {
        "snapshots": (0, 5)
    },
    "snapshot -1 is not among the 4 epochs": {"snapshots": (-1,)},
    "snapshot 0.5 is not among the 4 epochs": {"snapshots": (0.5,)},
    "index is a whole number from 0 on, not -1": {"index": -1},
    "recipe counts epochs, after which its weights are stored: set epochs": {"recipe": Recipe(0, steps=5)},
    "is of a named architecture, not None: name one": {"architecture": None},
    "augmentation has a name, by which its key knows it": {"augmentation": NamedAugment(" ", CUTMIX.build)},
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_request_that_cannot_be_met_is_refused_in_a_line(words):
    with pytest.raises(ValueError, match=words) as refusal:
        request(**REFUSED[words])
    assert "\n" not in str(refusal.value)


@given(snapshots=st.lists(st.integers(0, 4), max_size=8))
def test_equal_requests_are_equal_however_the_snapshots_are_written(snapshots):
    asked = request(snapshots=snapshots)
    assert asked == request(snapshots=tuple(reversed(snapshots)))
    assert asked.snapshots == (tuple(sorted(set(snapshots))) or (4,))
    assert asked.copies == len(asked.snapshots)
    assert asked.identity["snapshots"] == list(asked.snapshots)


def test_an_augmentation_is_known_by_its_name_and_package():
    same = NamedAugment("cutmix 0.5", lambda problem: CutMix(len(problem.classes), 0.5))
    assert request(augmentation=CUTMIX) == request(augmentation=same)
    assert request(augmentation=same).identity["augmentation"] == ["cutmix 0.5", __name__.partition(".")[0]]
    other = request(augmentation=NamedAugment("cutmix 1", CUTMIX.build))
    assert other.identity != request(augmentation=same).identity
