"""Pools of the model pool's rivals: several architectures at once, and networks at an early stage of training."""

import json

import pytest
import torch
from golden_inputs import DATA, formula
from hypothesis import given
from hypothesis import strategies as st
from studies import METHOD, records, small_run
from toys import TINY_CONVNET, TINY_MLP, component, registry, resolve, supplied, toy_problem, toy_trajectory

from harness import PluginError, UsageError, trained_network
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import Trajectory
from harness.testing.small import real_network
from harness.types.method import Task
from harness.types.seeds import Streams
from mpdd_plugins.pools.early_stage import LEAST, MOST, normalised

PAIR = f"pair[of={TINY_CONVNET}+{TINY_MLP}]"


# --- pair ---


def gradient_of_first_step(pool, method="dc[batch_real=4,momentum_img=0,lr_img=1]"):
    """The images' gradient in the first step: the images move by it."""
    trajectory = toy_trajectory(method, pool)
    before = trajectory.method.images.detach().clone()
    trajectory.advance(1)
    return before - trajectory.method.images.detach(), trajectory


@pytest.mark.parametrize("method", ["dc", "dsa", "dm", "dcc"])
def test_each_step_matches_every_architecture_and_moves_by_the_mean(method):
    name = f"{method}[batch_real=4,momentum_img=0,lr_img=1]"
    name = name.replace("lr_img=1", "lr_img=1,outer=1,warm_outer=0,warm_inner=0") if method == "dcc" else name
    ours, trajectory = gradient_of_first_step(PAIR, name)
    (drawn,) = trajectory.history.draws
    assert [trajectory.history.architectures[index] for index in drawn] == [
        str(resolve(TINY_CONVNET)),
        str(resolve(TINY_MLP)),
    ]
    first, _ = gradient_of_first_step(f"single[main={TINY_CONVNET}]", name)
    # The second network has the initial weights of draw 1 of the iteration.
    alone = toy_trajectory(name, f"single[main={TINY_MLP}]")
    build = alone.networks._build
    alone.networks._build = lambda birth, chosen=None: build(
        type(birth)(birth.architecture, 0, 1, birth.is_seldom), chosen
    )
    before = alone.method.images.detach().clone()
    alone.advance(1)
    second = before - alone.method.images.detach()
    assert torch.allclose(ours, (first + second) / 2, atol=1e-4)


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=4))
def test_balanced_gradients_have_the_same_size(sizes):
    pool = component("pool", "pair[of=mlp+lenet,balance=size]")
    gradients = [size * formula(number, (2, 1, 3, 3), -1, 1).float() for number, size in enumerate(sizes)]
    largest = [float(gradient.abs().max()) for gradient in gradients]
    mean = sum(largest) / len(largest)
    expected = sum(gradient * (mean / most) for gradient, most in zip(gradients, largest, strict=True)) / len(sizes)
    assert torch.allclose(pool.combine(gradients), expected, rtol=1e-4)
    assert torch.allclose(component("pool", "pair[of=mlp+lenet]").combine(gradients), torch.stack(gradients).mean(0))


def test_a_gradient_of_nothing_stays_nothing():
    pool = component("pool", "pair[of=mlp+lenet,balance=size]")
    combined = pool.combine([torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)])
    assert torch.equal(combined, torch.full((1, 1, 2, 2), 0.25))


def test_a_pair_goes_on_with_the_same_bits():
    method = "dc[batch_real=4,outer=2,inner=1]"
    whole = toy_trajectory(method, PAIR)
    expected = whole.advance(4)
    begun, resumed = toy_trajectory(method, PAIR), toy_trajectory(method, PAIR)
    begun.advance(2)
    resumed.restore(*begun.state())
    assert torch.equal(resumed.advance(4).images, expected.images)
    assert resumed.history.draws == [[0, 1]] * 4


@pytest.mark.parametrize("method", ["mtt", "frepo", "idc"])
def test_a_method_that_takes_one_network_is_refused_in_a_line(data, tmp_path, method):
    with pytest.raises(UsageError) as error:
        small_run(data, tmp_path, method=method, pool=PAIR, evaluator="plain[epochs=1]")
    assert "it takes one network at a time, and this pool draws 2 together" in str(error.value)


def test_a_pair_has_two_members():
    with pytest.raises(UsageError, match="at least 2"):
        registry().resolve("pool", "pair[of=mlp]")


# --- early stage ---


def test_directions_are_those_of_the_authors_code():
    golden = json.loads((DATA / "acc_dd.json").read_text())["directions"]
    shapes = [tuple(entry["shape"]) for entry in golden]
    weights, directions = ([formula(k + i, shape, -1, 1) for i, shape in enumerate(shapes)] for k in (950, 960))
    for ours, entry in zip(normalised(directions, weights), golden, strict=True):
        assert ours.flatten().tolist() == pytest.approx(entry["values"], abs=1e-9)


def early(options, method="dm[batch_real=4]"):
    """A trajectory through early-stage networks."""
    problem, streams = toy_problem(), Streams(0)
    distiller = registry().resolve("method", method).make(Task(problem, 1, streams, iterations=100))
    trained = {}

    def fetch(request):
        if request.index not in trained:
            trained[request.index] = real_network(request, problem, resolve)
        return trained[request.index]

    pool = component("pool", f"early-stage[of={TINY_CONVNET}{options}]")
    networks = PoolNetworks(pool, resolve, problem, streams, supplied(distiller, problem), fetch)
    return Trajectory(distiller, networks, problem, streams)


def test_a_network_is_a_trained_one_moved_along_two_directions_of_the_filters_size():
    trajectory = early(",networks=2,epochs=1")
    networks, problem = trajectory.networks, trajectory.problem
    for iteration in range(4):
        networks.begin(iteration)
        network = networks.draw()
        assert network.training
        request = networks.pool.starts_from(networks.drawn[0], iteration, 0)
        assert (request.index, request.snapshots) == (iteration % 2, (1,))
        trained = trained_network(networks._fetch(request), problem)
        moved = 0.0
        for ours, theirs in zip(network.parameters(), trained.parameters(), strict=True):
            if theirs.ndim <= 1:
                assert torch.equal(ours, theirs), "biases and norms stay"
                continue
            rows = theirs.flatten(1).norm(dim=1)
            distance = (ours - theirs).detach().flatten(1).norm(dim=1) / rows
            assert bool((distance <= 2 * MOST * 1.001).all())
            moved = max(moved, float(distance.max()))
        assert moved >= LEAST * 0.1


def test_the_factor_scales_the_perturbation():
    def moved(perturb):
        trajectory = early(f",networks=1,epochs=1,perturb={perturb}")
        trajectory.networks.begin(0)
        weight = trajectory.networks.draw().classifier.weight
        artifact = trajectory.networks._fetch(trajectory.networks.pool.starts_from(trajectory.networks.drawn[0], 0, 0))
        return weight - trained_network(artifact, trajectory.problem).classifier.weight

    assert torch.equal(moved(0), torch.zeros_like(moved(0)))
    assert torch.allclose(moved(2), 2 * moved(1), atol=1e-6)


@pytest.mark.parametrize("method", ["dm[batch_real=4]", "dc[batch_real=4,outer=2,inner=1]"])
def test_an_early_stage_trajectory_goes_on_with_the_same_bits(method):
    options = ",networks=2,epochs=1"
    expected = early(options, method=method).advance(4)
    begun, resumed = (early(options, method=method) for _ in range(2))
    begun.advance(2)
    resumed.restore(*begun.state())
    assert torch.equal(resumed.advance(4).images, expected.images)


def test_a_run_trains_the_networks_before_any_set_and_shares_them(data, tmp_path):
    pool = "early-stage[of=convnet[width=4,depth=1],networks=2,epochs=1]"
    study = {"pool": pool, "iterations": 3, "students": 1, "evaluator": "plain[epochs=1]"}
    small_run(data, tmp_path, method=METHOD, **study)
    small_run(data, tmp_path, method="dm[batch_real=4]", **study)
    stored = list(records(tmp_path).values())
    artifacts = [record for record in stored if record["kind"] == "artifact"]
    assert len(artifacts) == 2, "of both methods"
    sets = [record for record in stored if record["kind"] == "distilled"]
    assert len(sets) == 2
    assert all("artifacts" in record["identity"] for record in sets)


@pytest.mark.parametrize(
    ("method", "is_applicable"),
    [("mtt", False), ("seqmatch-mtt", False), ("ncfm", False), ("ncfm[networks=fresh]", True), ("haba", True)],
)
def test_a_method_that_loads_weights_of_its_own_does_not_go_with_networks_that_were_trained(
    data, tmp_path, method, is_applicable
):
    pools = ["early-stage[of=convnet[width=4,depth=1]]", "single[main=convnet[width=4,depth=1]]"]
    planned = small_run(data, tmp_path / "store", method=method, pool=pools, iterations=3, students=1, dry_run=True)
    lines = [note for note in planned.notes if "loads weights of its own into its networks" in note]
    assert len(lines) == (not is_applicable)
    assert all(line.startswith(method) and " through early-stage[" in line for line in lines)
    through = {("early-stage" in cell["label"]) for cell in planned.cells if cell["kind"] == "distilled"}
    assert through == ({True, False} if is_applicable else {False})


def test_nobody_trains_networks_for_a_bare_pool():
    networks = PoolNetworks(component("pool", "early-stage[of=mlp[width=4]]"), resolve, toy_problem(), Streams(0))
    networks.begin(0)
    with pytest.raises(PluginError, match="nobody makes them here"):
        networks.draw()
