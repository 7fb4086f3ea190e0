"""The outer loop: exact counts, divergence, resuming, history."""

import math

import pytest
import torch
from torch import nn
from toys import TINY_CONVNET, component, resolve, toy_problem, toy_trajectory

from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import Trajectory
from harness.types.method import Method, Task
from harness.types.options import Options
from harness.types.pool import Pool
from harness.types.seeds import Streams

POOL = f"main-similar[main={TINY_CONVNET}:0.4,width=4,depth=1]"


class Writes(Method[Options]):
    """Writes the next of the given values into its images at each step."""

    def __init__(self, task, values):
        super().__init__(task, Options())
        self.values = values
        self.images = torch.zeros(3, *task.problem.shape)

    def step(self, iteration, networks):
        networks.draw()
        self.images[1, 0, 2, 3] = self.values[iteration]
        return {"loss": 10.0 + iteration}

    def distilled(self):
        return self.task.distilled(self.images, torch.arange(3))

    def learned(self):
        return {"images": self.images}

    def state(self):
        return {"images": self.images}

    def restore(self, state):
        self.images.copy_(state["images"])


def writing(*values, pool=None):
    problem, streams = toy_problem(), Streams(0)
    networks = PoolNetworks(pool or component("pool", "mix[of=mlp:1+lenet:1]"), resolve, problem, streams)
    return Trajectory(Writes(Task(problem, 1, streams, len(values)), values), networks, problem, streams)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1000.1, -5e4])
def test_a_set_out_of_range_is_dropped_for_the_last_one_in_range_and_nothing_follows(bad):
    trajectory = writing(1.0, 1000.0, bad, 2.0, 3.0)
    distilled = trajectory.advance(5)
    assert float(distilled.images[1, 0, 2, 3]) == 1000.0
    assert trajectory.history.diverged_at == trajectory.history.iterations == 3
    assert trajectory.status(distilled) == "diverged"
    assert torch.equal(trajectory.advance(5).images, distilled.images)
    assert trajectory.history.iterations == 3


def test_a_set_beyond_eight_times_the_real_data_is_flagged_and_goes_on():
    problem = toy_problem()
    extreme = float(problem.preprocessing.to_inputs(problem.train.images).abs().max())
    trajectory = writing(7.99 * extreme, 8.01 * extreme, -8.01 * extreme, 1.0)
    said = [trajectory.status(trajectory.advance(n)) for n in (0, 1, 2, 3, 4)]
    assert said == ["done", "done", "blown up", "blown up", "done"]
    assert trajectory.history.diverged_at is None


def test_exactly_as_many_steps_are_done_as_asked_for():
    trajectory, seen = writing(1.0, 2.0, 3.0, 4.0), []
    for asked in (0, 2, 2, 1, 4):
        distilled = trajectory.advance(asked, lambda done, scalars: seen.append((done, scalars["loss"])))
        assert float(distilled.images[1, 0, 2, 3]) == trajectory.history.iterations == len(seen)
    assert seen == [(1, 10.0), (2, 11.0), (3, 12.0), (4, 13.0)]


def test_history_records_every_draw_and_every_scalar():
    trajectory = writing(*range(20))
    drawn, draw = [], trajectory.networks.draw

    def noting_draw():
        network = draw()
        drawn.append("lenet" if any(isinstance(module, nn.Conv2d) for module in network.modules()) else "mlp")
        return network

    trajectory.networks.draw = noting_draw
    trajectory.advance(20)
    history = trajectory.history
    assert [history.architectures[index] for (index,) in history.draws] == drawn
    assert history.realised_mix() == {name: drawn.count(name) for name in ("mlp", "lenet")}
    assert history.scalars == {"loss": [10.0 + i for i in range(20)]}
    assert history.seconds > 0


def without_time(history):
    return {key: value for key, value in vars(history).items() if key != "seconds"}


@pytest.mark.parametrize("method", ["dc[batch_real=7]", "dc[batch_real=7,outer=2,inner=2]"])
def test_a_trajectory_resumed_midway_is_bit_for_bit_the_uninterrupted_one(method):
    whole = toy_trajectory(method, POOL)
    expected = whole.advance(6)

    begun = toy_trajectory(method, POOL)
    begun.advance(3)
    tensors, history = begun.state()
    begun.advance(5)  # going on changes nothing of the state that was taken
    resumed = toy_trajectory(method, POOL)
    resumed.restore(tensors, history)
    assert resumed.history.iterations == 3

    assert torch.equal(resumed.advance(6).images, expected.images)
    assert without_time(resumed.history) == without_time(whole.history)
    final, of_whole = resumed.state()[0], whole.state()[0]
    assert final.keys() == of_whole.keys() == {"images", "momentum"}
    assert all(torch.equal(final[name], of_whole[name]) for name in final)

    again = toy_trajectory(method, POOL)
    again.restore(tensors, history)
    assert torch.equal(again.advance(6).images, expected.images)


def test_state_before_the_first_step_can_be_taken_up_too():
    fresh, other = toy_trajectory(), toy_trajectory(seed=5)
    other.advance(1)
    other.restore(*fresh.state())
    assert torch.equal(other.method.distilled().images, fresh.method.distilled().images)
    assert other.history.iterations == 0


def test_the_distilled_set_is_a_snapshot():
    trajectory = toy_trajectory()
    before = trajectory.advance(1)
    images_before = before.images.clone()
    trajectory.advance(2)
    assert torch.equal(before.images, images_before)
    assert not before.images.requires_grad


def test_numbers_do_not_depend_on_the_global_generators_and_leave_them_alone():
    torch.manual_seed(1)
    first = toy_trajectory("dc[batch_real=7,outer=2,inner=1]", POOL).advance(3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    trajectory = toy_trajectory("dc[batch_real=7,outer=2,inner=1]", POOL)
    trajectory.advance(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.equal(trajectory.advance(3).images, first.images)
    other = toy_trajectory("dc[batch_real=7,outer=2,inner=1]", POOL, seed=1).advance(3)
    assert not torch.equal(other.images, first.images)


class DrawsGlobally(Writes):
    """Uses a library that takes no generator."""

    def step(self, iteration, networks):
        self.images += torch.rand(self.images.shape)
        return {}


def test_what_a_method_draws_globally_comes_from_the_iterations_stream_too():
    sets = []
    for seed, stops in ((1, (3,)), (2, (1, 3))):
        torch.manual_seed(seed)
        problem, streams = toy_problem(), Streams(0)
        networks = PoolNetworks(component("pool", "single"), resolve, problem, streams)
        method = DrawsGlobally(Task(problem, 1, streams, 3), ())
        trajectory = Trajectory(method, networks, problem, streams)
        for stop in stops:
            torch.rand(5)
            before = torch.get_rng_state()
            distilled = trajectory.advance(stop)
            assert torch.equal(torch.get_rng_state(), before)
        sets.append(distilled.images)
    assert torch.equal(*sets)


class Listening(Pool[Options]):
    """An adaptive pool: counts what it hears."""

    def __init__(self):
        super().__init__(Options())
        self.heard = []

    def distribution(self, iteration):
        return {"mlp": 1.0}

    def observe(self, architecture, scalars):
        self.heard.append([architecture, scalars["loss"]])

    def state(self):
        return {"heard": self.heard}

    def restore(self, state):
        self.heard = list(state["heard"])


def test_an_adaptive_pool_hears_every_step_and_resumes_with_what_it_learned():
    begun = writing(*range(5), pool=Listening())
    begun.advance(2)
    tensors, history = begun.state()
    begun.advance(4)
    resumed = writing(*range(5), pool=Listening())
    resumed.restore(tensors, history)
    resumed.advance(3)
    assert resumed.networks.pool.heard == [["mlp", 10.0], ["mlp", 11.0], ["mlp", 12.0]]
