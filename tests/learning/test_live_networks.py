"""Networks that live across iterations: their training, their replacement, and that a run goes on bit for bit."""

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from toys import TINY_CONVNET, TINY_MLP, component, resolve, toy_problem

from harness import (
    OptimizerState,
    PixelMethod,
    PixelOptions,
    PluginError,
    Pool,
    Recipe,
    UsageError,
    cross_entropy,
    squared_error,
    train_classifier,
)
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import Trajectory
from harness.types.method import Task
from harness.types.options import Options
from harness.types.seeds import Streams

SGD = Recipe(lr=0.05, optimizer="sgd", schedule="cosine", batch=7)
ADAM = Recipe(lr=0.01, optimizer="adam", schedule="constant", weight_decay=0.0, batch=7)
BATCH_NORM = "convnet[width=4,depth=1,norm=batch]"
POOLS = {
    "single": f"single[main={TINY_CONVNET}]",
    "batch norm": f"single[main={BATCH_NORM}]",
    "main-similar": f"main-similar[main={TINY_CONVNET}:0.4,width=4,depth=1]",
    "total-random": f"total-random[of={TINY_CONVNET}+{TINY_MLP}+lenet]",
    "mix": f"mix[of={TINY_MLP}:1+{TINY_CONVNET}:2]",
}


class Adaptive(Pool[Options]):
    """Prefers a network with batch norm more and more, the larger the losses that it sees."""

    def __init__(self):
        super().__init__(Options())
        self.seen = 0.0

    def distribution(self, iteration):
        share = self.seen / (1 + self.seen)
        return {BATCH_NORM: share, TINY_MLP: 1 - share}

    def observe(self, architecture, scalars):
        self.seen += scalars["loss"]

    def state(self):
        return {"seen": self.seen}

    def restore(self, state):
        self.seen = state["seen"]


class Warming(Pool[Options]):
    """Draws the main architecture alone at first, as a warm-up."""

    def __init__(self):
        super().__init__(Options())

    def distribution(self, iteration):
        return {TINY_MLP: 1.0} if iteration < 3 else {TINY_CONVNET: 1.0}


class LiveOptions(PixelOptions):
    init: str = "real"
    lr_img: float = 0.1


class Living(PixelMethod[LiveOptions]):
    """Matches mean features of one of its live networks, then trains it on the images: FRePo's course in small."""

    Options = LiveOptions

    def __init__(self, task, options, recipe=SGD, *, count=3, steps=2, loss=cross_entropy, staggered=True):
        super().__init__(task, options)
        self.recipe, self.how, self.count, self.loss = recipe, {"steps": steps, "staggered": staggered}, count, loss
        self.log = []

    def step(self, iteration, networks):
        live = networks.live(self.count, recipe=self.recipe, **self.how)
        chosen = live.choose()
        network = chosen.network.eval().requires_grad_(False)
        loss = torch.zeros(())
        for label in range(self.classes):
            real = network.features(self.real(label, 4, "real", iteration)).mean(0)
            loss = loss + (network.features(self.images[self.mine(label)]).mean(0) - real).square().sum()
        (self.images.grad,) = torch.autograd.grad(loss, self.images)
        self.optimizer.step()
        labels = self.labels if self.loss is cross_entropy else nn.functional.one_hot(self.labels).float()
        losses = chosen.train(self.images.detach(), labels, loss=self.loss)
        self.log.append((chosen.architecture, chosen.age, bool(losses)))
        return {"loss": loss.item(), "age": float(chosen.age)}


def living(pool, recipe=SGD, *, seed=0, ipc=3, method=Living, **how):
    problem, streams = toy_problem(), Streams(seed)
    built = method(Task(problem, ipc, streams, 100), LiveOptions(), recipe, **how)
    pool = component("pool", POOLS[pool]) if isinstance(pool, str) else pool
    return Trajectory(built, PoolNetworks(pool, resolve, problem, streams), problem, streams)


def without_time(history):
    return {key: value for key, value in vars(history).items() if key != "seconds"}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def check_every_resumption(begin, iterations):
    """Stop after every iteration, go on in a new trajectory, and compare with one that was never stopped."""
    whole, states = begin(), []
    for iteration in range(iterations + 1):
        whole.advance(iteration)
        states.append(whole.state())
    for start, (tensors, history) in enumerate(states):
        resumed = begin()
        resumed.restore(tensors, history)
        assert same(resumed.state()[0], tensors), "what is restored is what the next state holds"
        resumed.advance(iterations)
        assert same(resumed.state()[0], states[-1][0]), f"resumed after {start}"
        assert without_time(resumed.history) == without_time(whole.history)
    return whole


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("pool", [*POOLS, Adaptive, Warming], ids=str)
def test_a_run_goes_on_bit_for_bit_after_every_iteration(pool, recipe):
    make = (lambda: pool) if isinstance(pool, str) else pool
    whole = check_every_resumption(lambda: living(make(), recipe, count=2), 5)
    assert sum(map(len, whole.history.draws)) > 2, "networks are replaced on the way"
    assert whole.networks.live_sets.state(), "the sets are part of the state"


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "lamb"])
def test_so_it_does_with_other_optimisers_and_losses(optimizer):
    recipe = Recipe(lr=0.01, optimizer=optimizer, schedule="step", batch=5)
    check_every_resumption(lambda: living("batch norm", recipe, loss=squared_error, steps=4, count=1, ipc=1), 3)


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 1000), count=st.integers(1, 4), steps=st.integers(1, 4), stops=st.sets(st.integers(0, 6)),
    staggered=st.booleans(),
)  # fmt: skip
def test_however_often_it_stops(seed, count, steps, stops, staggered):
    begin = functools.partial(
        living, "total-random", SGD, seed=seed, ipc=1, count=count, steps=steps, staggered=staggered
    )
    whole, resumed = begin(), begin()
    whole.advance(6)
    for stop in sorted(stops):
        resumed.advance(stop)
        tensors, history = resumed.state()
        resumed = begin()
        resumed.restore(tensors, history)
    resumed.advance(6)
    assert same(whole.state()[0], resumed.state()[0])
    assert without_time(whole.history) == without_time(resumed.history)


def test_a_trajectory_can_be_taken_back():
    trajectory = living("mix")
    trajectory.advance(2)
    early = trajectory.state()
    expected = [trajectory.advance(5).images, trajectory.state()[0]]
    trajectory.restore(*early)
    assert torch.equal(trajectory.advance(5).images, expected[0])
    assert same(trajectory.state()[0], expected[1])


# --- lives ---


def test_ages_rise_to_the_limit_and_begin_again_with_a_draw_of_that_iteration():
    trajectory = living("mix", count=1, steps=3, staggered=False)
    trajectory.advance(9)
    ages = [age for _, age, _ in trajectory.method.log]
    assert ages == [1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert [trained for _, _, trained in trajectory.method.log] == [age > 0 for age in ages]
    assert [len(draws) for draws in trajectory.history.draws] == [1, 0, 0, 1, 0, 0, 0, 1, 0]
    drawn = [trajectory.history.architectures[index] for draws in trajectory.history.draws for index in draws]
    assert [trajectory.method.log[iteration][0] for iteration in (0, 3, 7)] == drawn


def test_a_replacement_is_the_draw_that_any_method_would_get():
    """Architecture and weights are those of the iteration, so that two pools share the weights of what both draw."""
    problem, streams, pool = toy_problem(), Streams(0), component("pool", POOLS["total-random"])
    living_ones, drawing = (PoolNetworks(pool, resolve, problem, streams) for _ in range(2))
    for iteration in range(6):
        for networks in (living_ones, drawing):
            networks.begin(iteration)
        live = living_ones.live(2, steps=1, recipe=SGD)
        if iteration:
            live[0].renew()
            live[1].renew()
        fresh = [drawing.draw() for _ in range(2)]
        assert living_ones.drawn == drawing.drawn
        for member, network in zip(live, fresh, strict=True):
            assert same(member.network.state_dict(), network.state_dict())


def test_a_warm_up_pool_draws_by_the_iteration_of_the_replacement():
    trajectory = living(Warming(), count=1, steps=1)
    trajectory.advance(6)
    drawn = [trajectory.history.architectures[draws[0]] if draws else None for draws in trajectory.history.draws]
    assert drawn == [TINY_MLP, TINY_MLP, None, TINY_CONVNET, None, TINY_CONVNET]


def test_staggered_networks_are_replaced_in_turn():
    networks = started()
    live = networks.live(4, steps=8, recipe=SGD, staggered=True)
    assert [member.age for member in live] == [0, 2, 4, 6]
    problem = toy_problem()
    replaced = {}
    for step, (index, member) in itertools.product(range(9), enumerate(live)):
        if not member.train(problem.train_inputs, problem.train.labels):
            replaced.setdefault(index, step)
    assert replaced == {0: 8, 1: 6, 2: 4, 3: 2}


def started(pool="single", iteration=0):
    networks = PoolNetworks(component("pool", POOLS[pool]), resolve, toy_problem(), Streams(0))
    networks.begin(iteration)
    return networks


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
def test_a_life_is_one_training_by_the_recipe(recipe):
    """Trained step by step, schedule and momentum go on: the weights are those of a single call."""
    problem, networks = toy_problem(), started("batch norm")
    live = networks.live(2, steps=9, recipe=recipe)
    alone = started("batch norm").live(2, steps=9, recipe=recipe)
    inputs, labels = problem.train_inputs, problem.train.labels
    for iteration in range(9):
        networks.begin(iteration)
        live[0].train(inputs, labels)
    alone[0].train(inputs, labels, steps=4)
    alone[0].train(inputs, labels, steps=100)
    assert [live[0].age, alone[0].age, live[1].age] == [9, 9, 0]
    assert same(live[0].network.state_dict(), alone[0].network.state_dict())

    single = started("batch norm").draw()
    whole = Recipe(**{**vars(recipe), "epochs": 0, "steps": 9})
    streams = Streams(0)
    train_classifier(single, inputs, labels, whole, lambda role, unit: streams.generator(f"live {role}", 0, 0, unit),
                     state=OptimizerState())  # fmt: skip
    assert same(live[0].network.state_dict(), single.state_dict())


def test_choices_are_uniform_and_depend_on_seed_and_iteration_alone():
    networks = started()
    live, seen = networks.live(4, steps=5, recipe=SGD), []
    for iteration in range(400):
        networks.begin(iteration)
        torch.rand(3)
        seen.append(list(live).index(live.choose()))
    assert stats.chisquare([seen.count(index) for index in range(4)]).pvalue > 0.01
    networks.begin(7)
    assert list(live).index(live.choose()) == seen[7]
    assert len({list(live).index(live.choose()) for _ in range(40)}) == 4, "choices of one iteration are independent"


def test_what_a_step_does_to_modes_and_flags_does_not_outlive_it():
    networks = started("batch norm")
    live = networks.live(1, steps=5, recipe=SGD)
    network = live[0].network
    network.eval().requires_grad_(False)
    weight = next(network.parameters())
    weight.grad = torch.zeros_like(weight)
    networks.begin(1)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_several_sets_have_names():
    networks = started("mix")
    first, second = (
        networks.live(2, steps=3, recipe=SGD, name="slow"),
        networks.live(1, steps=3, recipe=ADAM, name="fast"),
    )
    assert networks.live(2, steps=3, recipe=SGD, name="slow") is first
    assert len(networks.drawn) == 3
    assert {name.split("/")[1] for name in networks.live_sets.state()} == {"slow", "fast"}
    assert second is not first


def test_a_diverged_trajectory_holds_no_networks():
    trajectory = living("single", count=1)
    trajectory.advance(1)
    step = trajectory.method.step

    def exploding(iteration, networks):
        scalars = step(iteration, networks)
        with torch.no_grad():
            trajectory.method.images.fill_(1e9)
        return scalars

    trajectory.method.step = exploding
    trajectory.advance(3)
    assert trajectory.history.diverged_at == 2
    assert not [name for name in trajectory.state()[0] if name.startswith("live/")]


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, r"networks.live\(0, steps=5\): both are at least 1"),
        ({"steps": 0}, "both are at least 1"),
        ({"count": 3}, "asks for other networks than before"),
        ({"recipe": ADAM}, "asks for other networks than before"),
        ({"name": "two words"}, "a name consists of letters"),
    ],
)
def test_demands_that_cannot_be_met_are_named(change, message):
    networks = started()
    networks.live(2, steps=5, recipe=SGD)
    how = {"count": 2, "steps": 5, "recipe": SGD, **change}
    with pytest.raises(PluginError, match=message):
        networks.live(how.pop("count"), **how)


def test_a_method_without_a_pool_has_no_live_networks():
    with pytest.raises(PluginError, match="uses_pool = False"):
        PoolNetworks(None, resolve, toy_problem(), Streams(0)).live(1, steps=1, recipe=SGD)


def test_no_step_is_too_few():
    member = started().live(1, steps=5, recipe=SGD)[0]
    with pytest.raises(ValueError, match="at least one step, not 0"):
        member.train(torch.zeros(1, 1, 16, 16), torch.zeros(1, dtype=torch.int64), steps=0)


def test_another_number_of_networks_than_the_run_had_is_named():
    trajectory, other = living("single"), living("single", count=4)
    trajectory.advance(1)
    other.restore(*trajectory.state())
    with pytest.raises(PluginError, match=r"networks.live\(4, name='networks'\): the trajectory .* has 3 networks"):
        other.advance(2)


def test_an_architecture_that_is_gone_is_named():
    trajectory = living("single")
    trajectory.advance(1)
    tensors, history = trajectory.state()
    for name in [name for name in tensors if name.endswith("/architecture")]:
        tensors[name] = torch.tensor(list(b"gone[width=4]"), dtype=torch.uint8)
    other = living("single")
    other.restore(tensors, history)
    with pytest.raises(UsageError, match="there is no architecture 'gone'"):
        other.advance(2)


def test_a_methods_own_tensors_have_other_names():
    class Colliding(Living):
        def state(self):
            return {**super().state(), "live/mine": torch.zeros(1)}

    with pytest.raises(PluginError, match="'live/mine': names that begin with 'live/' are those of live networks"):
        living("single", method=Colliding).state()
