"""Cosines of image gradients: what pools that watch them hear, of every method that can measure them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studies import small_run
from toys import TINY_CONVNET, component, resolve, supplied, toy_problem, toy_trajectory

from harness import UsageError
from harness.errors import PluginError
from harness.learning.networks.alignment import MEMORY, Alignment
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import Trajectory
from harness.types.method import ImageGradient, Method, Task
from harness.types.seeds import Streams

POOL = f"adaptive[main={TINY_CONVNET}:0.5,others=mlp[width=8]+convnet[width=2,depth=1],strategy=conflict]"
MTT = "experts=1,train_epochs=2,steps=2,expert_epochs=1,max_start_epoch=1,lr_img=1"
METHODS = [
    "dc[batch_real=4]",
    "dc[batch_real=4,outer=2,inner=1]",
    "dsa[batch_real=4]",
    "dcc[batch_real=4,outer=1,warm_outer=1,warm_inner=1]",
    "dm[batch_real=4]",
    "dm[batch_real=4,as=downsample]",
    "dm[batch_real=4,as=multi-formation]",
    "idc[inner=2,batch_real=4,n_data=12,batch_train=8,update=joint]",
    "cafe[batch_real=4,batch_query=4,most_updates=2,most_epochs=1]",
    "ncfm[batch_real=4,frequencies=8,networks=fresh]",
    f"mtt[{MTT}]",
]


def watched(trajectory):
    """The gradients by decoded images that the method's optimiser is called with, summed over each step's updates."""
    method, gradients = trajectory.method, {}
    optimizer = getattr(method, "adamw", method.optimizer)
    step = optimizer.step

    def spying_step(*arguments):
        gradient = method.images.grad.detach().double().flatten()
        iteration = trajectory.history.iterations
        gradients[iteration] = gradients.get(iteration, 0) + gradient
        return step(*arguments)

    optimizer.step = spying_step
    return gradients


@pytest.mark.parametrize("method", METHODS)
def test_a_method_logs_the_cosine_of_its_gradient_by_decoded_images(method):
    trajectory = toy_trajectory(method, POOL)
    gradients = watched(trajectory)
    trajectory.advance(7)
    history, mean, expected = trajectory.history, None, []
    for iteration in range(7):
        gradient = gradients[iteration]
        assert len(gradient) == trajectory.method.images.numel(), "of what students train on, not of what is stored"
        known = mean is not None and float(gradient.norm()) > 0
        expected.append(float(gradient @ mean / gradient.norm() / mean.norm()) if known else math.nan)
        (drawn,) = history.draws[iteration]
        if history.architectures[drawn] == str(resolve(TINY_CONVNET)):
            mean = gradient if mean is None else MEMORY * mean + (1 - MEMORY) * gradient
    assert len(history.architectures) > 1, "the main architecture and another"
    assert history.scalars["main_cosine"] == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_images_that_are_updated_class_by_class_have_the_gradient_of_a_joint_update():
    """The first update of both is of the same images."""
    totals = []
    for update in ("class", "joint"):
        trajectory = toy_trajectory(f"idc[inner=1,batch_real=4,n_data=12,batch_train=8,update={update}]", POOL)
        trajectory.advance(1)
        totals.append(trajectory._alignment._watch.total)
    assert torch.equal(*totals)


@pytest.mark.parametrize("method", ["dc[batch_real=4,outer=2,inner=1]", "dm[batch_real=4,as=downsample]"])
def test_a_trajectory_goes_on_with_the_same_cosines_and_shares(method):
    whole = toy_trajectory(method, POOL)
    expected = whole.advance(8)
    begun = toy_trajectory(method, POOL)
    begun.advance(5)
    state = begun.state()
    resumed = toy_trajectory(method, POOL)
    resumed.restore(*state)
    assert torch.equal(resumed.advance(8).images, expected.images)
    scalars = [
        {name: list(map(str, values)) for name, values in each.history.scalars.items()} for each in (whole, resumed)
    ]
    assert scalars[0] == scalars[1]
    assert len(set(scalars[0]["main_probability"])) > 1, "the shares have changed"


def test_nobody_pays_for_what_no_pool_watches():
    trajectory = toy_trajectory("dm[batch_real=4]")
    trajectory.advance(2)
    assert trajectory.method.optimizer.watch is None
    assert list(trajectory.history.scalars) == ["loss"]
    assert list(trajectory.state()[0]) == ["images", "momentum"]


VECTORS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4).map(torch.tensor)


@given(VECTORS, VECTORS)
def test_the_cosine_lies_between_minus_1_and_1_or_is_unknown(first, second):
    watch = ImageGradient()
    alignment = Alignment(watch, "main")
    watch.add(first)
    assert math.isnan(alignment.end(["main"])), "nothing is known before"
    alignment.begin()
    assert alignment.end(["other"]) is None, "the method passed nothing on"
    watch.add(second)
    cosine = alignment.end(["other"])
    ones, others = first.double(), second.double()
    if float(ones.norm() * others.norm()) > 0:
        assert cosine == pytest.approx(float(ones @ others / ones.norm() / others.norm()))
        assert -1 <= cosine <= 1
    else:
        assert math.isnan(cosine)


def test_a_step_with_several_architectures_has_no_cosine_and_teaches_nothing():
    watch = ImageGradient()
    alignment = Alignment(watch, "main")
    watch.add(torch.ones(3))
    alignment.end(["main", "main"])
    before = alignment.state()["alignment/mean"]
    alignment.begin()
    watch.add(-torch.ones(3))
    assert math.isnan(alignment.end(["main", "other"]))
    alignment.begin()
    watch.add(torch.tensor([1.0, math.nan, 1.0]))
    assert math.isnan(alignment.end(["main"]))
    assert torch.equal(alignment.state()["alignment/mean"], before)


@pytest.mark.parametrize("method", ["frepo", "dd"])
def test_a_method_without_such_a_gradient_makes_the_pool_refuse_in_a_line(data, tmp_path, method):
    with pytest.raises(UsageError) as error:
        small_run(data, tmp_path, method=method, pool=POOL, evaluator="plain[epochs=1]")
    assert "is not applicable: it measures no gradient of the images" in str(error.value)
    assert "\n" not in str(error.value)


class Silent(Method):
    """Promises a gradient, and passes none on."""

    images = torch.zeros(3, 1, 16, 16)

    def watch_images(self):
        return ImageGradient()

    def step(self, iteration, networks):
        networks.draw()
        return {}

    def distilled(self):
        return self.task.distilled(self.images, torch.arange(3))

    def learned(self):
        return {"images": self.images}

    def state(self):
        return {}

    def restore(self, state):
        pass


def test_a_method_that_passes_no_gradient_on_is_an_error_of_its_plugin():
    problem, streams = toy_problem(), Streams(0)
    method = Silent(Task(problem, 1, streams, 1), None)
    networks = PoolNetworks(component("pool", POOL), resolve, problem, streams, supplied(method, problem))
    with pytest.raises(PluginError, match="passed no gradient on"):
        Trajectory(method, networks, problem, streams).advance(1)
