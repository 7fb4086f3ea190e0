"""Networks drawn from a pool: their distribution, and what two pools share."""

import functools
import itertools
import types

import pytest
import torch
from scipy import stats
from torch import nn
from toys import TINY_CONVNET, component, resolve, toy_problem, toy_trajectory

from harness.compute.compiling import is_compiled, set_compilation
from harness.errors import PluginError, UsageError
from harness.learning.networks.lottery import Lottery, mixture
from harness.learning.networks.pool_networks import PoolNetworks
from harness.plugins.registry import Resolved
from harness.types.network import Architecture
from harness.types.options import Options
from harness.types.pool import Pool
from harness.types.seeds import Streams

DRAWS = 4000


class NoNetwork(Architecture[Options]):
    """Stands for any architecture where only the draw matters."""

    def network(self, shape, classes):
        return nn.Identity()


class Given(Pool[Options]):
    """A pool with the distribution that a test gives it."""

    def __init__(self, **distribution):
        super().__init__(Options())
        self.probabilities = distribution

    def distribution(self, iteration):
        return self.probabilities


class Nothing(Resolved):
    """Knows its name by heart: thousands of draws ask for it."""

    @functools.cached_property
    def _name(self):
        return super().__str__()

    def __str__(self):
        return self._name


@functools.cache
def resolve_to_nothing(name):
    return Nothing(**vars(resolve(name)) | {"cls": NoNetwork})


def drawn_by(pool, iterations, seed=0):
    networks = PoolNetworks(pool, resolve_to_nothing, toy_problem(), Streams(seed))
    drawn = []
    for iteration in range(iterations):
        networks.begin(iteration)
        networks.draw()
        drawn += networks.drawn
    return drawn


SIMILAR = [
    str(resolve(f"convnet[act={act},norm={norm},pool={pool}]"))
    for act, norm, pool in itertools.product(
        ("relu", "sigmoid", "leakyrelu", "swish"), ("instance", "batch", "layer", "group"), ("avg", "max")
    )
]


def main_similar(main):
    return dict.fromkeys(SIMILAR, (1 - main) / 32) | {"convnet": main + (1 - main) / 32}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("total-random", {"convnet": 0.25, "lenet": 0.25, "alexnet": 0.25, "vgg11": 0.25}),
        ("main-model", {"convnet": 0.9, "lenet": 0.1 / 3, "alexnet": 0.1 / 3, "vgg11": 0.1 / 3}),
        ("main-similar", main_similar(0.9)),
        ("main-similar[main=0.2]", main_similar(0.2)),
        ("mix[of=convnet:1+mlp:3]", {"convnet": 0.25, "mlp": 0.75}),
    ],
)
def test_draws_follow_the_distribution(name, expected):
    lottery = Lottery(component("pool", name), resolve_to_nothing, Streams(0))
    drawn = [str(lottery.draw(iteration)) for iteration in range(DRAWS)]
    assert set(drawn) <= set(expected)
    counts = [drawn.count(key) for key in expected]
    test = stats.chisquare(counts, [DRAWS * share for share in expected.values()])
    assert test.pvalue > 0.01  # the seed is fixed: this does not fail now and then


def test_draws_within_an_iteration_are_independent():
    networks = PoolNetworks(Given(mlp=0.5, lenet=0.5), resolve_to_nothing, toy_problem(), Streams(0))
    pairs = []
    for iteration in range(1000):
        networks.begin(iteration)
        networks.draw()
        networks.draw()
        pairs.append(tuple(networks.drawn))
    counts = [pairs.count(pair) for pair in itertools.product(("mlp", "lenet"), repeat=2)]
    assert stats.chisquare(counts).pvalue > 0.001


def test_draws_depend_on_seed_and_iteration_and_on_nothing_drawn_before():
    pool = component("pool", "total-random")
    drawn = drawn_by(pool, 50)
    networks = PoolNetworks(pool, resolve_to_nothing, toy_problem(), Streams(0))
    for iteration in (31, 7):
        torch.rand(3)
        networks.begin(iteration)
        networks.draw()
        assert networks.drawn == [drawn[iteration]]
    assert drawn_by(pool, 50, seed=1) != drawn


def test_equal_architectures_are_one_choice():
    same = Given(**{"convnet": 0.5, "convnet[depth=3]": 0.25, "convnet[width=128,act=relu]": 0.25})
    choices = mixture(same, 0, resolve)
    assert [(str(chosen), share) for chosen, share in choices] == [("convnet", 1.0)]


def test_impossible_architectures_are_not_even_resolved():
    assert [str(chosen) for chosen, _ in mixture(Given(mlp=1.0, unheard_of=0.0), 0, resolve)] == ["mlp"]


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ({"mlp": 0.5, "lenet": 0.4}, "sum to 0.9"),
        ({"mlp": 0.7, "lenet": 0.4}, "sum to 1.1"),
        ({"mlp": 1.5, "lenet": -0.5}, "'lenet' the probability -0.5"),
        ({"mlp": float("nan"), "lenet": 1.0}, "'mlp' the probability nan"),
        ({"mlp": float("inf")}, "'mlp' the probability inf"),
        ({"mlp": 0.0}, "sum to 0 "),
        ({}, "sum to 0 "),
    ],
)
def test_what_is_no_distribution_is_an_error_of_the_plugin(distribution, message):
    with pytest.raises(PluginError, match="Given gives") as error:
        drawn_by(Given(**distribution), 1)
    assert message in str(error.value)


def test_an_unknown_architecture_in_a_pool_is_a_users_error():
    with pytest.raises(UsageError, match="did you mean 'convnet'"):
        mixture(component("pool", "single[main=convnt]"), 0, resolve)


def test_networks_are_fresh_in_training_mode_and_differ_from_draw_to_draw(toy):
    networks = PoolNetworks(component("pool", f"single[main={TINY_CONVNET}]"), resolve, toy, Streams(0))
    networks.begin(0)
    first, second = networks.draw(), networks.draw()
    networks.begin(1)
    third = networks.draw()
    assert first.training
    weights = [network.classifier.weight for network in (first, second, third)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(weights, 2))


def seen_along(pool, *, iterations=12):
    """What a DC trajectory sees: per iteration, the architecture, its initial weights, the real batches."""
    trajectory = toy_trajectory("dc[batch_real=7,batch_statistics=5]", pool)
    seen, draw = [], trajectory.networks.draw

    def spying_draw():
        network = draw()
        weights = [parameter.detach().clone() for parameter in network.parameters()]
        batches = []
        network.register_forward_pre_hook(lambda _, args: batches.append(args[0]) if len(args[0]) == 7 else None)
        seen.append((trajectory.networks.drawn[-1], weights, batches))
        return network

    trajectory.networks.draw = spying_draw
    trajectory.advance(iterations)
    # In the order of their sums, because the classes are matched side by side, in any order.
    return [(name, weights, sorted(batches, key=lambda batch: float(batch.sum()))) for name, weights, batches in seen]


def test_two_pools_share_real_batches_always_and_weights_wherever_both_draw_the_main_model():
    alone = seen_along(f"single[main={TINY_CONVNET}]")
    mixed = seen_along(f"main-similar[main={TINY_CONVNET}:0.5,width=4,depth=1]")
    main = str(resolve(TINY_CONVNET))
    both = [name == main for name, _, _ in mixed]
    assert 0 < sum(both) < len(both)
    for (_, mine, batches), (name, others, other_batches) in zip(alone, mixed, strict=True):
        assert len(batches) == len(other_batches) == 3
        assert all(torch.equal(a, b) for a, b in zip(batches, other_batches, strict=True))
        if name == main:
            assert all(torch.equal(a, b) for a, b in zip(mine, others, strict=True))


def test_only_networks_that_are_drawn_often_are_compiled():
    pool = Given(**{"convnet": 0.96, "convnet[act=swish]": 0.04})
    problem = types.SimpleNamespace(shape=(3, 32, 32), classes=range(10), device=torch.device("cpu"))
    networks = PoolNetworks(pool, resolve, problem, Streams(0))
    compiled = set()
    set_compilation("auto")
    try:
        for iteration in range(80):
            networks.begin(iteration)
            network = networks.draw()
            compiled.add((networks.drawn[0], is_compiled(network, torch.zeros(8, 3, 32, 32))))
    finally:
        set_compilation("never")
    assert compiled == {("convnet", True), ("convnet[act=swish]", False)}


def test_artifacts_are_asked_for_by_the_network_and_not_by_the_last_draw():
    asked = []

    def supply(iteration, architecture):
        asked.append((iteration, architecture))
        return []

    pool = Given(**{TINY_CONVNET: 0.5, "mlp": 0.5})
    networks = PoolNetworks(pool, resolve, toy_problem(), Streams(0), supply)
    networks.begin(3)
    drawn = [networks.draw() for _ in range(12)]
    assert len(set(networks.drawn)) == 2, "both architectures are among the draws"
    for network in drawn:
        networks.needed(network)
    networks.needed(None)
    assert asked == [(3, name) for name in [*networks.drawn, None]]


def test_a_network_of_another_iteration_has_no_artifacts_here():
    networks = PoolNetworks(Given(mlp=1.0), resolve, toy_problem(), Streams(0), lambda iteration, architecture: [])
    networks.begin(0)
    network = networks.draw()
    networks.begin(1)
    with pytest.raises(PluginError, match="was not drawn at this iteration: hand it what"):
        networks.needed(network)


def test_nobody_makes_artifacts_for_a_bare_pool():
    networks = PoolNetworks(Given(mlp=1.0), resolve, toy_problem(), Streams(0))
    with pytest.raises(PluginError, match="nobody to make them"):
        networks.needed(None)
