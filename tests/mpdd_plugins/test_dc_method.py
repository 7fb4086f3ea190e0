"""DC against its definition: the joint gradient, the optimisers replayed by hand, the loops, frozen batch norm."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import TINY_CONVNET, component, registry, resolve, toy_problem, toy_trajectory

from harness import DISTANCES, Streams, UsageError, gradient_of, mean_over_layers
from harness.learning.networks.pool_networks import PoolNetworks
from mpdd_plugins.methods.dc import DCOptions

SINGLE = f"single[main={TINY_CONVNET}]"


class Watch:
    """Looks on while a trajectory of DC goes: notes the images, their gradient and the network at each update."""

    def __init__(self, trajectory):
        self.method, self.network = trajectory.method, None
        self.updates, self.trained, self.modes = [], 0, []
        self.all = len(trajectory.method.labels)
        self.method.optimizer.register_step_pre_hook(self.before_update)
        draw = trajectory.networks.draw

        def watched_draw():
            self.network = draw()
            self.network.register_forward_pre_hook(self.before_forward)
            return self.network

        trajectory.networks.draw = watched_draw

    def weights(self):
        return [parameter.detach().clone() for parameter in self.network.parameters()]

    def before_update(self, *_):
        images = self.method.images
        self.updates.append((images.detach().clone(), images.grad.clone(), self.weights()))
        self.modes.append([m.training for m in self.network.modules() if isinstance(m, nn.BatchNorm2d)])

    def before_forward(self, network, args):
        self.trained += len(args[0]) == self.all


def watched(*args, **options):
    trajectory = toy_trajectory(*args, **options)
    return trajectory, Watch(trajectory)


@pytest.mark.parametrize("distance", ["layerwise", "mse", "cosine"])
@pytest.mark.parametrize("ipc", [1, 3])
def test_class_by_class_is_the_gradient_of_the_summed_loss(distance, ipc):
    trajectory, watch = watched(f"dc[batch_real=7,outer=1,distance={distance}]", ipc=ipc)
    trajectory.advance(1)
    (images, gradient, _), problem, streams = watch.updates[0], trajectory.problem, Streams(0)

    networks = PoolNetworks(component("pool", SINGLE), resolve, problem, streams)
    networks.begin(0)
    network = networks.draw()
    images.requires_grad_()
    loss = 0
    for label in range(3):
        real = problem.real_batch(label, 7, streams.generator("real", 0, 0, label))
        target = gradient_of(network, real, torch.full((7,), label))
        mine = images[label * ipc : (label + 1) * ipc]
        synthetic = gradient_of(network, mine, torch.full((ipc,), label), differentiable=True)
        loss = loss + DISTANCES[distance](synthetic, target)
    (joint,) = torch.autograd.grad(loss, images)

    torch.testing.assert_close(gradient, joint, rtol=1e-4, atol=1e-6 * float(joint.abs().max()))
    assert trajectory.history.scalars["loss"] == [pytest.approx(float(loss.detach()) / 3, rel=1e-5)]


def test_images_move_by_sgd_with_momentum_0_5_over_all_iterations():
    trajectory, watch = watched("dc[batch_real=7,outer=2,inner=1]", ipc=2)
    final = trajectory.advance(3).images.double()
    assert len(watch.updates) == 6
    images, velocity = watch.updates[0][0].double(), torch.zeros_like(final)
    for before, gradient, _ in watch.updates:
        torch.testing.assert_close(before.double(), images, rtol=1e-5, atol=1e-6)
        velocity = 0.5 * velocity + gradient
        images = images - 0.1 * velocity
    torch.testing.assert_close(final, images, rtol=1e-5, atol=1e-6)


def test_n_iterations_are_exactly_n_updates_and_0_are_the_initial_images():
    trajectory, watch = watched()
    initial = trajectory.advance(0)
    noise = torch.randn(3, 1, 16, 16, generator=Streams(0).generator("init", 0))
    assert torch.equal(initial.images, noise)
    for asked in (1, 4, 4):
        trajectory.advance(asked)
        assert len(watch.updates) == trajectory.history.iterations == asked
    assert watch.trained == 0  # ipc 1 has one outer step: the network never trains


def test_labels_are_class_by_class():
    distilled = toy_trajectory(ipc=3).advance(0)
    assert distilled.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert distilled.images.shape == (9, 1, 16, 16)
    assert distilled.label_kind == "hard"


def test_preprocessing_and_class_names_travel_with_the_set():
    problem = toy_problem()
    distilled = toy_trajectory(problem=problem).advance(1)
    assert distilled.preprocessing is problem.preprocessing
    assert distilled.classes == problem.classes


def test_ten_images_a_class_take_ten_updates_with_50_epochs_between_them_and_none_after():
    trajectory, watch = watched("dc[batch_real=7]", "single[main=mlp[width=4]]", ipc=10)
    trajectory.advance(1)
    assert len(watch.updates) == 10
    assert watch.trained == 9 * 50
    weights = [torch.cat([part.flatten() for part in weights]) for _, _, weights in watch.updates]
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(weights))
    assert torch.equal(torch.cat([part.flatten() for part in watch.weights()]), weights[-1])


def test_between_updates_the_network_trains_on_the_new_images_by_plain_sgd():
    trajectory, watch = watched("dc[batch_real=7,outer=2,inner=2,lr_net=0.03]", ipc=2)
    trajectory.advance(1)
    (_, _, before), (images, _, after) = watch.updates
    network = component("architecture", TINY_CONVNET).network((1, 16, 16), 3)
    for parameter, value in zip(network.parameters(), before, strict=True):
        parameter.data = value.clone()
    for _ in range(2):
        loss = functional.cross_entropy(network(images), torch.tensor([0, 0, 1, 1, 2, 2]))
        for parameter, slope in zip(
            network.parameters(), torch.autograd.grad(loss, list(network.parameters())), strict=True
        ):
            parameter.data = parameter.data - 0.03 * slope
    for mine, theirs in zip(network.parameters(), after, strict=True):
        torch.testing.assert_close(mine.data, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ipc", "loops"),
    [
        *[(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10))],
        *[
            (2, (2, 250)),
            (3, (3, 166)),
            (5, (5, 100)),
            (49, (49, 10)),
            (51, (50, 10)),
            (100, (50, 10)),
            (1000, (50, 10)),
        ],
    ],
)
def test_loops_are_the_published_ones_and_sound_for_any_other_ipc(ipc, loops):
    assert DCOptions().loops(ipc) == loops


def test_loops_can_be_given():
    assert DCOptions(outer=4, inner=0).loops(10) == (4, 0)
    assert DCOptions(inner=3).loops(10) == (10, 3)
    assert DCOptions(outer=25).loops(7) == (25, 20)


def test_real_initial_images_are_training_images_of_their_class():
    problem = toy_problem()
    distilled = toy_trajectory("dc[init=real]", problem=problem, ipc=4).advance(0)
    inputs = problem.preprocessing.to_inputs(problem.train.images)
    for image, label in zip(distilled.images, distilled.labels, strict=True):
        (where,) = [i for i, real in enumerate(inputs) if torch.equal(real, image)]
        assert problem.train.labels[where] == label
    assert len(distilled.images.flatten(1).unique(dim=0)) == 12
    other = toy_trajectory("dc[init=real]", problem=problem, ipc=4, seed=1).advance(0)
    assert not torch.equal(other.images, distilled.images)


def test_batch_norm_is_frozen_at_the_statistics_of_a_real_batch_before_each_update():
    trajectory, watch = watched(
        "dc[batch_real=7,batch_statistics=5,outer=3,inner=1]", "single[main=convnet[width=4,depth=1,norm=batch]]", ipc=2
    )
    frozen, problem, streams = [], trajectory.problem, Streams(0)

    def look(*_):
        (norm,) = (module for module in watch.network.modules() if isinstance(module, nn.BatchNorm2d))
        frozen.append((norm.running_mean.clone(), norm.running_var.clone()))

    trajectory.method.optimizer.register_step_pre_hook(look)
    trajectory.advance(1)

    assert watch.modes == [[False]] * 3
    for round_, (mean, variance) in enumerate(frozen):
        real = torch.cat(
            [problem.real_batch(label, 5, streams.generator("statistics", 0, round_, label)) for label in range(3)]
        )
        weight, bias = watch.updates[round_][2][:2]
        maps = functional.conv2d(real, weight, bias, padding=1).numpy().astype(np.float64)
        values = maps.transpose(1, 0, 2, 3).reshape(4, -1)
        np.testing.assert_allclose(mean, values.mean(1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(variance, values.var(1, ddof=1), rtol=1e-4)
    assert not torch.equal(frozen[0][0], frozen[1][0])


def test_batch_norm_is_frozen_by_16_images_a_class():
    main = "single[main=convnet[width=4,depth=1,norm=batch]]"
    trajectory = toy_trajectory("dc[batch_real=7]", main, problem=toy_problem(train=20))
    sizes, draw = [], trajectory.networks.draw

    def counted_draw():
        network = draw()
        network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
        return network

    trajectory.networks.draw = counted_draw
    trajectory.advance(1)
    statistics, probe, *matching = sizes
    assert (statistics, probe) == (16 * 3, 2)
    assert sorted(matching) == [1, 1, 1, 7, 7, 7], "the classes side by side, in any order"


def test_distilling_lowers_the_loss():
    trajectory = toy_trajectory("dc[batch_real=7,lr_img=1]")
    trajectory.advance(60)
    losses = trajectory.history.scalars["loss"]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_bfloat16_changes_the_real_gradient_by_its_rounding_only():
    exact, exact_watch = watched()
    coarse, coarse_watch = watched(precision="bf16")
    exact.advance(1)
    coarse.advance(1)
    first, second = exact_watch.updates[0][1].flatten(), coarse_watch.updates[0][1].flatten()
    assert not torch.equal(first, second)
    assert functional.cosine_similarity(first, second, dim=0) > 0.99


@pytest.mark.parametrize("option", ["lr_img=0", "momentum_img=1", "outer=0", "inner=-1", "init=zeros", "distance=l2"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(UsageError, match="dc"):
        registry().resolve("method", f"dc[{option}]")


# --- deep networks ----------------------------------------------------------------------------------------------------

DEEP = "single[main=resnet-cifar[depth=8,norm=instance]]"


def learned(method, pool=DEEP, iterations=2, **options):
    trajectory = toy_trajectory(method, pool, **options)
    trajectory.advance(iterations)
    return trajectory


@pytest.mark.parametrize("options", ["outer=2,inner=1", "distance=mse,outer=1"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_computing_activations_again_changes_no_bit_and_no_key(options, norm):
    pool, names = f"single[main=resnet-cifar[depth=8,norm={norm}]]", [f"dc[batch_real=7,{options}{more}]" for more in
                                                              ("", ",recompute=true")]  # fmt: skip
    first, second = (learned(name, pool) for name in names)
    assert torch.equal(first.method.images, second.method.images)
    assert first.history.scalars == second.history.scalars
    assert registry().resolve("method", names[0]).identity() == registry().resolve("method", names[1]).identity()


@pytest.mark.parametrize("distance", ["layerwise", "mse"])
@pytest.mark.parametrize(("layers", "number"), [("mean", 8), ("mean-outputs", 3 * 16 + 2 * 32 + 2 * 64 + 3)])
def test_the_mean_over_layers_is_the_published_distance_divided_by_their_number(distance, layers, number):
    first, second = (
        learned(f"dc[batch_real=7,distance={distance},layers={value}]", iterations=1) for value in ("sum", layers)
    )
    assert first.history.scalars["loss"] == pytest.approx([number * second.history.scalars["loss"][0]], rel=1e-5)
    wanted = number * second.method.images.grad
    assert float((first.method.images.grad - wanted).norm()) < 1e-4 * float(wanted.norm())


def test_the_mean_over_layers_of_equal_layers_does_not_depend_on_their_number():
    a, b = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    vectors = torch.ones(5)
    for name in ("layerwise", "mse"):
        distance = mean_over_layers(DISTANCES[name])
        single = distance([a, vectors], [b, vectors])
        torch.testing.assert_close(distance([a, vectors] * 9, [b, vectors] * 9), single)
        torch.testing.assert_close(single, DISTANCES[name]([a], [b]))
    wide = mean_over_layers(DISTANCES["layerwise"], outputs=True)
    torch.testing.assert_close(wide([a, vectors] * 9, [b, vectors] * 9), DISTANCES["layerwise"]([a], [b]) / 5)
    assert mean_over_layers(DISTANCES["mse"]) is mean_over_layers(DISTANCES["mse"]), "a GPU finds its recordings by it"


def test_norms_of_gradients_are_logged_from_the_first_layer_to_the_last():
    trajectory = toy_trajectory("dc[batch_real=7,norms=true]", DEEP)
    watch, images = Watch(trajectory), trajectory.method.images.detach().clone()
    trajectory.advance(1)
    logged = {name: values[0] for name, values in trajectory.history.scalars.items() if name != "loss"}
    gradient = gradient_of(watch.network, images, trajectory.method.labels)
    norms = [float(part.norm()) for part in gradient if part.ndim > 1]
    assert len(norms) == 8
    assert logged == pytest.approx({
        "norm-first": norms[0], "norm-quarter": norms[2], "norm-middle": norms[4],
        "norm-three-quarters": norms[5], "norm-last": norms[7],
    }, rel=1e-4)  # fmt: skip


@pytest.mark.parametrize("pool", [DEEP, "single[main=vit[dim=8,depth=2,heads=2,mlp=8,patch=4]]"])
def test_logging_norms_changes_no_image(pool):
    first, second = (learned(f"dc[batch_real=7{more}]", pool) for more in ("", ",norms=true"))
    assert torch.equal(first.method.images, second.method.images)
    assert first.history.scalars["loss"] == second.history.scalars["loss"]


def test_only_layers_and_norms_that_are_set_are_part_of_a_key():
    def options(text):
        return registry().resolve("method", f"dc{text}").identity()["options"]

    assert not options("").keys() & {"layers", "norms", "recompute"}
    assert options("[layers=mean]")["layers"] == "mean"
    assert options("[norms=true]")["norms"] is True
    assert not registry().resolve("method", "dsac").identity()["options"].keys() & {"layers", "norms", "recompute"}


def test_a_cosine_of_all_layers_has_no_mean_over_layers():
    with pytest.raises(UsageError, match="dc: distance=cosine takes all layers as one vector: layers=mean needs"):
        component("method", "dc[distance=cosine,layers=mean]")


@pytest.mark.parametrize("method", ["dc[batch_real=7,outer=2,inner=1]", "dsa[batch_real=7]", "dm[batch_real=7]"])
@pytest.mark.parametrize(
    "pool",
    ["deep[main=convnet[width=8]:0.1,others=resnet-cifar[depth=8]+wrn[depth=10,width=1,norm=instance]+densenet-bc[depth=10]]",
     "main-similar[main=convnet[width=8]:0.1,depth=3+6]"],
)  # fmt: skip
def test_matching_through_deep_pools_stays_finite(method, pool):
    trajectory = learned(method, pool, iterations=3)
    assert trajectory.history.diverged_at is None
    assert len(trajectory.history.architectures) > 1
    assert bool(trajectory.method.images.isfinite().all())
    assert float(trajectory.method.images.grad.abs().max()) > 0
