"""Expert trajectories: what is kept of them, and going on after a try that was cut off."""

import pytest
import torch
from torch import nn

from harness import Recipe, snapshot, train_expert
from harness.errors import DDBenchError
from harness.types.seeds import Streams
from tests.toys import toy_problem

RECIPE = Recipe(3, 0.05, "sgd", "constant", 0.0, 0.0, 8)


class MemoryScratch(dict):
    """A scratch in memory, which breaks after so many parts."""

    def __init__(self, breaks_after=None):
        super().__init__()
        self.breaks_after = breaks_after

    def put(self, part, tensors):
        if self.breaks_after is not None and len(self) == self.breaks_after:
            raise KeyboardInterrupt
        self[part] = {name: tensor.clone() for name, tensor in tensors.items()}

    def get(self, part):
        return dict(super().get(part)) if part in self else None


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 3))


def draw(purpose, epoch):
    return Streams(0).generator(purpose, epoch)


def train(scratch, recipe=RECIPE, problem=None, **options):
    return train_expert(network(), problem or toy_problem(), recipe, draw, scratch, **options)


def test_every_epoch_is_kept_and_none_is_another():
    tensors, losses = train(MemoryScratch())
    names = set(network().state_dict())
    assert {name.partition(".")[0] for name in tensors} == {"0", "1", "2", "3"}
    for epoch in range(4):
        assert set(snapshot(tensors, epoch, torch.device("cpu"))) == names
    assert all(torch.equal(tensor, tensors[f"0.{name}"]) for name, tensor in network().state_dict().items())
    for epoch in range(3):
        now, then = (snapshot(tensors, at, torch.device("cpu")) for at in (epoch, epoch + 1))
        assert not torch.equal(now["0.weight"], then["0.weight"]), "snapshots alias the live weights"
        assert now["0.weight"].data_ptr() != then["0.weight"].data_ptr()
    assert len(losses) == 3
    assert losses[2] < losses[0]


def test_weights_are_those_of_plain_gradient_descent():
    problem = toy_problem()
    tensors, _ = train(MemoryScratch(), problem=problem)
    mine, images = network(), problem.train_inputs
    for epoch in range(3):
        for index in torch.split(torch.randperm(len(images), generator=draw("order", epoch)), 8):
            loss = nn.functional.cross_entropy(mine(images[index]), problem.train.labels[index])
            gradients = torch.autograd.grad(loss, list(mine.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(mine.parameters(), gradients, strict=True):
                    weight -= 0.05 * gradient
    for name, tensor in mine.state_dict().items():
        torch.testing.assert_close(tensors[f"3.{name}"], tensor)
    assert int(tensors["3.1.num_batches_tracked"]) == 15, "running statistics are part of a snapshot"


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_later_try_goes_on_after_the_last_epoch_that_was_kept(done, monkeypatch):
    whole, losses = train(MemoryScratch())
    scratch = MemoryScratch(breaks_after=done)
    with pytest.raises(KeyboardInterrupt):
        train(scratch)
    assert len(scratch) == done
    scratch.breaks_after = None
    trained = []
    original = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *words, **more: trained.append(1) or original(*words, **more))
    again, same = train(scratch)
    assert len(trained) == 3 - done, "epochs that were kept are not trained again"
    assert same == losses
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_more_epochs_begin_with_the_same_ones():
    short, _ = train(MemoryScratch())
    long, _ = train(MemoryScratch(), Recipe(4, 0.05, "sgd", "constant", 0.0, 0.0, 8))
    assert all(torch.equal(long[name], tensor) for name, tensor in short.items())


def test_a_loss_that_is_not_finite_is_reported():
    with pytest.raises(DDBenchError, match="loss is nan in epoch 1: a lower learning rate"):
        train(MemoryScratch(), Recipe(3, 1e30, "sgd", "constant", 0.0, 0.0, 8))


@pytest.mark.parametrize("recipe", [Recipe(momentum=0.9, schedule="constant"), Recipe(momentum=0.0)])
def test_a_recipe_that_could_not_go_on_is_refused(recipe):
    with pytest.raises(ValueError, match="momentum 0 and a constant rate"):
        train(MemoryScratch(), recipe)


def test_batches_are_augmented():
    plain, _ = train(MemoryScratch())
    flipped, _ = train(MemoryScratch(), augment=lambda images, generator: images.flip(-2))
    assert not torch.equal(plain["1.0.weight"], flipped["1.0.weight"])


def test_dropout_comes_from_the_streams():
    def dropping():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 3))

    def trained(seed, scratch=None):
        torch.manual_seed(seed)
        with torch.random.fork_rng():
            mine = dropping()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        tensors, _ = train_expert(
            mine, toy_problem(), RECIPE, draw, scratch if scratch is not None else MemoryScratch()
        )
        assert torch.equal(before, torch.get_rng_state())
        return tensors

    first = trained(1)
    assert all(torch.equal(tensor, first[name]) for name, tensor in trained(2).items())
    cut = MemoryScratch(breaks_after=1)
    with pytest.raises(KeyboardInterrupt):
        trained(1, cut)
    cut.breaks_after = None
    assert all(torch.equal(tensor, first[name]) for name, tensor in trained(3, cut).items())
