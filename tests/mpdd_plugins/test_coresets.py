"""Methods that choose real images: against brute force, uniformity, and what they share."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toys import TINY_CONVNET, TINY_MLP, FromFunction, MemoryScratch, registry, supplied, toy_problem

from harness import Artifact, DDBenchError, Network, Streams, Task, UsageError
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import Trajectory
from mpdd_plugins.methods import features as feature_module
from mpdd_plugins.methods.coresets import Herding, KCenter
from mpdd_plugins.methods.features import feature_map

TINY = f"network={TINY_CONVNET},epochs=2"
METHODS = ["random", f"herding[{TINY}]", f"k-center[{TINY}]", "whole"]


def built(method, problem=None, ipc=2, distillation=0, seed=0):
    """A method about to choose."""
    task = Task(problem or toy_problem(), ipc, Streams(seed, distillation), iterations=1)
    return registry().resolve("method", method).make(task)


def trajectory(method, problem=None, ipc=2, distillation=0, seed=0, supply=None):
    problem = problem or toy_problem()
    chooser = built(method, problem, ipc, distillation, seed)
    streams, supply = Streams(seed, distillation), supply or supplied(chooser, problem, seed)
    return Trajectory(chooser, PoolNetworks(None, None, problem, streams, supply), problem, streams)


def chosen(method, *args, **options):
    running = trajectory(method, *args, **options)
    running.advance(1)
    return running.method.chosen


class Pixels(Network):
    """Features are the inputs themselves."""

    def __init__(self, shape, classes):
        super().__init__()
        self.classifier = nn.Linear(int(np.prod(shape)), classes)

    def features(self, images):
        return images.flatten(1)


def pixels_for(problem):
    """Hands out `Pixels` in place of a trained network."""
    architecture = FromFunction(Pixels)
    weights = architecture.network(problem.shape, len(problem.classes)).state_dict()
    return lambda iteration, drawn: [Artifact(weights, architecture=architecture)]


def brute_herding(points, count):
    """Every remaining image is tried: the means are computed anew."""
    taken = []
    for _ in range(count):
        rest = [i for i in range(len(points)) if i not in taken]
        away = [np.linalg.norm(points[[*taken, i]].mean(0) - points.mean(0)) for i in rest]
        taken.append(rest[int(np.argmin(away))])
    return taken


def brute_k_center(points, count):
    """Every remaining image is compared with every centre."""
    taken = [int(np.argmin([np.linalg.norm(point - points.mean(0)) for point in points]))]
    while len(taken) < count:
        rest = [i for i in range(len(points)) if i not in taken]
        away = [min(np.linalg.norm(points[i] - points[j]) for j in taken) for i in rest]
        taken.append(rest[int(np.argmax(away))])
    return taken


RULES = [(Herding, brute_herding), (KCenter, brute_k_center)]


@pytest.mark.parametrize(("method", "brute"), RULES)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_order_is_that_of_trying_every_image(method, brute, seed, offset):
    points = offset + torch.randn(30, 4, generator=torch.Generator().manual_seed(seed)).double()
    for count in (1, 7, 30):
        assert method.order(points, count) == brute(points.numpy(), count)


@pytest.mark.parametrize(("name", "brute"), [("herding", brute_herding), ("k-center", brute_k_center)])
def test_each_class_is_chosen_on_its_own_by_the_features_of_the_network(name, brute):
    problem = toy_problem(train=9)
    shuffled = replace(problem, train=problem.train[torch.randperm(27, generator=torch.Generator().manual_seed(3))])
    inputs = shuffled.preprocessing.to_inputs(shuffled.train.images).flatten(1).double().numpy()
    wanted = [members[brute(inputs[members], 4)] for members in shuffled.of_class]
    assert torch.equal(chosen(name, shuffled, 4, supply=pixels_for(shuffled)), torch.cat(wanted))


def test_of_equals_the_first_is_chosen():
    square = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]).double()
    assert Herding.order(square, 4) == [0, 2, 1, 3]
    assert KCenter.order(square, 4) == [0, 2, 1, 3]
    same = torch.ones(4, 3).double()
    assert Herding.order(same, 4) == KCenter.order(same, 4) == [0, 1, 2, 3]


def test_k_center_takes_the_middle_and_then_the_ends():
    line = torch.arange(9.0).double()[:, None]
    assert KCenter.order(line, 5) == [4, 0, 8, 2, 6]


@pytest.mark.parametrize("method", METHODS)
def test_the_set_is_real_images_of_each_class_once_class_by_class(method):
    problem, running = toy_problem(), trajectory(method, ipc=3)
    distilled, indices = running.advance(1), running.method.chosen
    each = 12 if method == "whole" else 3
    assert distilled.labels.tolist() == [label for label in range(3) for _ in range(each)]
    assert torch.equal(problem.train.labels[indices], distilled.labels)
    assert torch.equal(distilled.images, problem.preprocessing.to_inputs(problem.train.images[indices]))
    assert len(set(indices.tolist())) == 3 * each
    assert indices.dtype == torch.int64
    assert distilled.label_kind == "hard"
    assert distilled.classes == problem.classes
    assert distilled.preprocessing is running.problem.preprocessing


def test_whole_is_all_training_images_and_asks_for_no_size():
    resolved = registry().resolve("method", "whole")
    assert not resolved.cls.uses_ipc
    assert sorted(chosen("whole", ipc=0).tolist()) == list(range(36))


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_drawn_from_a_pool_and_there_is_one_step(method):
    cls = registry().resolve("method", method).cls
    assert not cls.uses_pool
    assert not cls.iterates
    assert built(method).work() == 0


@pytest.mark.parametrize("method", METHODS)
def test_before_the_step_there_is_no_set(method):
    with pytest.raises(RuntimeError, match="in its first step"):
        trajectory(method).advance(0)


@pytest.mark.parametrize("method", METHODS)
def test_the_state_is_the_choice(method):
    running, later = trajectory(method), trajectory(method)
    later.restore(*trajectory(method).state())
    assert len(later.method.chosen) == 0
    distilled = running.advance(1)
    tensors, history = running.state()
    assert list(tensors) == ["chosen"]
    later.restore(tensors, history)
    again = later.advance(1)
    assert torch.equal(again.images, distilled.images)
    assert torch.equal(again.labels, distilled.labels)
    tensors["chosen"].zero_()
    assert torch.equal(later.advance(1).images, distilled.images), "a copy"


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_chooses_the_same(method):
    assert torch.equal(chosen(method), chosen(method))


def test_random_differs_by_distillation_and_seed_and_the_others_by_seed_alone():
    problem = toy_problem(train=40)
    first = chosen("random", problem, 5)
    assert not torch.equal(first, chosen("random", problem, 5, distillation=1))
    assert not torch.equal(first, chosen("random", problem, 5, seed=1))
    for method in METHODS[1:]:
        assert torch.equal(chosen(method, problem, 5), chosen(method, problem, 5, distillation=1))


def test_random_is_where_methods_start_and_grows_by_appending():
    problem = toy_problem()
    initial = registry().resolve("method", "dc[init=real]").make(Task(problem, 4, Streams(7, 2), 1)).distilled()
    ours = trajectory("random", problem, 4, distillation=2, seed=7).advance(1)
    assert torch.equal(ours.images, initial.images)
    four, two = (chosen("random", problem, ipc).view(3, ipc) for ipc in (4, 2))
    assert torch.equal(four[:, :2], two)


def test_random_chooses_each_image_and_each_pair_as_often_as_any_other():
    problem, times = toy_problem(train=6, classes=2), 1500
    drawn = [chosen("random", problem, 2, distillation=index).tolist() for index in range(times)]
    singles = np.bincount(np.array(drawn).flatten(), minlength=12) / times
    np.testing.assert_allclose(singles, 1 / 3, atol=5 * np.sqrt(2 / 9 / times))
    for pair in itertools.permutations(range(6), 2):
        share = sum(tuple(images[:2]) == pair for images in drawn) / times
        assert abs(share - 1 / 30) < 5 * np.sqrt(1 / 30 / times)
    together = np.mean([images[0] == images[2] - 6 for images in drawn])
    assert abs(together - 1 / 6) < 5 * np.sqrt(5 / 36 / times), "classes are drawn independently"


def test_one_network_serves_both_methods_every_size_and_every_distillation():
    problem = toy_problem()

    def request(method, **options):
        (needed,) = built(method, problem, **options).needs(0, None)
        return needed

    first = request("herding")
    assert (first.kind, first.index, first.architecture) == ("features", 0, "convnet")
    assert first.identity["recipe"]["epochs"] == 20
    assert first.work == (3 * 20 + 1) * 36
    assert request("k-center") == request("herding", ipc=7) == request("herding", distillation=3) == first
    assert request("herding[epochs=21]").identity != first.identity
    assert request(f"herding[network={TINY_MLP}]").architecture == TINY_MLP
    assert request("herding[epochs=0]").work == 36


def artifact_of(method="herding", seed=0, architecture=TINY_CONVNET, problem=None):
    """The feature network of a method."""
    problem = problem or toy_problem()
    chooser = built(f"{method}[network={architecture},epochs=3]", problem)
    (request,) = chooser.needs(0, None)
    architecture = registry().resolve("architecture", architecture).make()
    artifact = chooser.make_artifact(request, problem, architecture, Streams(seed), MemoryScratch())
    return replace(artifact, architecture=architecture)


def test_the_recipe_decides_the_request(monkeypatch):
    before = built("herding").needs(0, None)[0].identity
    options = feature_module.FeatureOptions
    monkeypatch.setattr(options, "recipe", lambda self: replace(feature_module.Recipe(epochs=self.epochs), lr=0.02))
    assert built("herding").needs(0, None)[0].identity != before


def test_the_network_is_the_same_for_both_methods_and_another_for_another_seed():
    first, second, other = artifact_of(), artifact_of("k-center"), artifact_of(seed=1)
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    assert first.scalars == second.scalars
    assert any(not torch.equal(tensor, other.tensors[name]) for name, tensor in first.tensors.items())


def test_the_network_learns_the_real_images_and_untrained_it_is_as_initialised():
    problem = toy_problem()

    def loss(epochs):
        chooser = built(f"herding[network={TINY_CONVNET},epochs={epochs}]", problem)
        supply = supplied(chooser, problem)
        return supply(0, None)[0]

    few, many, none = loss(1), loss(60), loss(0)
    assert many.scalars["loss"] < 0.5 * few.scalars["loss"]
    assert none.scalars == {}
    fresh = none.architecture.build(problem.shape, 3, Streams(0).generator("features", 0, 0)).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in none.tensors.items())
    assert len(chosen(f"herding[network={TINY_CONVNET},epochs=0]", problem)) == 6


def test_making_it_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    artifact_of()
    assert torch.equal(torch.get_rng_state(), before)


def test_features_come_in_slices_in_evaluation_mode_without_graph(monkeypatch):
    problem = toy_problem()
    artifact = artifact_of(architecture="convnet[width=4,depth=1,norm=batch]", problem=problem)
    network = artifact.architecture.build(problem.shape, 3, torch.Generator())
    network.load_state_dict(dict(artifact.tensors))
    with torch.no_grad():
        wanted = network.eval().features(problem.train_inputs)
    monkeypatch.setattr(feature_module, "SLICE", 7)
    features = feature_map(artifact, problem)(problem.train.images)
    assert features.dtype == torch.float64
    assert not features.requires_grad
    torch.testing.assert_close(features, wanted.double(), rtol=1e-5, atol=1e-6)
    assert torch.equal(features[:2].float(), feature_map(artifact, problem)(problem.train.images[:7])[:2].float())


class Exploding(Pixels):
    def forward(self, images):
        return super().forward(images) * torch.inf


def test_a_network_that_diverges_is_an_error():
    problem, chooser = toy_problem(), built("herding")
    (request,) = chooser.needs(0, None)
    with pytest.raises(DDBenchError, match="feature network"):
        chooser.make_artifact(request, problem, FromFunction(Exploding), Streams(0), MemoryScratch())


@pytest.mark.parametrize("name", ["herding[epochs=-1]", "k-center[epoch=3]", "random[ipc=3]", "whole[epochs=1]"])
def test_options_out_of_range_are_refused(name):
    with pytest.raises(UsageError, match=r"epoch|ipc"):
        registry().resolve("method", name)
