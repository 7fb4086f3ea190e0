"""DCC and DSAC: golden values of DCC's code, the collective loss against its definition, warm-up, loops, resumption."""

import contextlib

import pytest
import torch
from golden_inputs import GOLDEN, assert_golden, filled_convnet, formula
from torch import nn
from torch.nn import functional
from toys import TINY_CONVNET, component, toy_problem, toy_trajectory

from harness import DISTANCES, Pair, gradient_of, layerwise_cosine, match_classes, match_collectively
from mpdd_plugins.methods import dcc

PLAIN = contextlib.nullcontext


def same(images):
    """Transform nothing."""
    return images


class Linear(nn.Module):
    """A softmax regression, whose gradient is known in closed form."""

    def __init__(self, shape, classes):
        super().__init__()
        self.weight = nn.Parameter(formula(5, (classes, torch.Size(shape).numel()), -1, 1))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


class Coupled(Linear):
    """The same with the images of a batch coupled: each loses the batch's mean."""

    def forward(self, images):
        return super().forward(images - images.mean(0) / 2)


def pairs_of(problem, real, synthetic, per_class, transform=same):
    """Return the function of a class's images, from tensors that hold all of them class by class."""
    count = len(real) // len(problem.classes)

    def pair(label):
        own = slice(label * per_class, (label + 1) * per_class)
        return Pair(label, transform(real[label * count : (label + 1) * count]), synthetic[own], transform)

    return pair


@pytest.mark.parametrize(
    ("match", "name"),
    [(match_classes, "class-wise (before the warm-up ends)"), (match_collectively, "class-collective")],
)
def test_losses_and_image_gradients_are_those_of_dccs_code(match, name):
    golden, problem = GOLDEN["dcc"][name], toy_problem(shape=(3, 16, 16))
    network = filled_convnet(3, 16, 3)
    real = torch.cat([formula(310 + label, (5, 3, 16, 16), -2, 2) for label in range(3)])
    pair = pairs_of(problem, real, formula(300, (6, 3, 16, 16), -2, 2), 2)
    loss, gradient = match(network, problem, pair, layerwise_cosine, PLAIN)
    assert float(loss) == pytest.approx(golden["loss"], rel=1e-9)
    assert_golden(gradient, golden["grad"])


@pytest.mark.parametrize("kind", [Linear, Coupled])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_collective_loss_is_its_definition_in_one_graph(kind, distance):
    """Networks that couple images take one batch of all classes, and the others slices: both are the definition."""
    problem = toy_problem(shape=(1, 4, 4))
    network = kind(problem.shape, 3)
    real, synthetic = formula(1, (12, 1, 4, 4), -1, 1), formula(2, (6, 1, 4, 4), -1, 1)

    def transform(images):
        return 0.5 * images + 0.25 * images**2

    pair = pairs_of(problem, real, synthetic, 2, transform)
    loss, gradient = match_collectively(network, problem, pair, DISTANCES[distance], PLAIN)

    leaf, labels = synthetic.clone().requires_grad_(), torch.arange(3)
    parts = [gradient_of(network, transform(real[4 * c : 4 * c + 4]), torch.full((4,), c)) for c in range(3)]
    target = [sum(pieces) / 3 for pieces in zip(*parts, strict=True)]
    mine = gradient_of(network, transform(leaf), labels.repeat_interleave(2), differentiable=True)
    expected = DISTANCES[distance](mine, target)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0], rtol=1e-8, atol=1e-12)


def test_the_gradient_of_a_linear_network_by_hand():
    """G = (p - onehot) x^T, averaged over images."""
    problem, network = toy_problem(shape=(1, 4, 4)), Linear((1, 4, 4), 3)
    real, synthetic = formula(1, (9, 1, 4, 4), -1, 1), formula(2, (3, 1, 4, 4), -1, 1)

    def by_hand(images, labels):
        flat = images.flatten(1)
        slopes = (flat @ network.weight.T).softmax(1) - functional.one_hot(labels, 3)
        return slopes.T @ flat / len(images)

    labels = torch.arange(3)
    first, second = by_hand(synthetic, labels), by_hand(real, labels.repeat_interleave(3))
    cosines = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1) + 1e-6)
    pair = pairs_of(problem, real, synthetic, 1)
    loss, _ = match_collectively(network, problem, pair, layerwise_cosine, PLAIN)
    assert float(loss) == pytest.approx(float((1 - cosines).sum().detach()), rel=1e-12)


def test_real_images_themselves_match():
    problem, network = toy_problem(shape=(3, 16, 16)), filled_convnet(3, 16, 3)
    real = formula(1, (6, 3, 16, 16), -2, 2)
    loss, _ = match_collectively(network, problem, pairs_of(problem, real, real, 2), DISTANCES["mse"], PLAIN)
    assert float(loss) == pytest.approx(0, abs=1e-20)


def test_the_loss_is_the_same_if_classes_are_permuted():
    problem, network = toy_problem(shape=(1, 4, 4)), Linear((1, 4, 4), 3)
    real, synthetic = formula(1, (12, 1, 4, 4), -1, 1), formula(2, (6, 1, 4, 4), -1, 1)
    pair, order = pairs_of(problem, real, synthetic, 2), [2, 0, 1]
    permuted = Linear((1, 4, 4), 3)
    with torch.no_grad():
        permuted.weight.copy_(network.weight[order])

    def moved(label):
        images = pair(order[label])
        return Pair(label, images.real, images.synthetic, images.transform)

    loss, gradient = match_collectively(network, problem, pair, layerwise_cosine, PLAIN)
    other, of_other = match_collectively(permuted, problem, moved, layerwise_cosine, PLAIN)
    assert float(loss) == pytest.approx(float(other), rel=1e-12)
    torch.testing.assert_close(gradient.view(3, 2, 1, 4, 4)[order].flatten(0, 1), of_other)


# --- the method -------------------------------------------------------------------------------------------------------

FEW = "batch_real=6,outer=3,inner=1"


@pytest.fixture
def losses_used(monkeypatch):
    """Records which loss each update has."""
    used = []

    def watched(name, original):
        return lambda *words: used.append(name) or original(*words)

    monkeypatch.setattr(dcc, "match_collectively", watched("collective", match_collectively))
    monkeypatch.setattr("mpdd_plugins.methods.dc.match_classes", watched("class-wise", match_classes))
    return used


def test_the_warm_up_is_class_by_class(losses_used):
    toy_trajectory(f"dcc[{FEW},warm_outer=1,warm_inner=2]", ipc=2).advance(2)
    assert losses_used == ["class-wise", "class-wise", "collective", *["collective"] * 3]


@pytest.mark.parametrize(
    ("ipc", "loops"), [(1, (10, 5)), (10, (10, 50)), (20, (20, 25)), (50, (50, 10)), (5, (10, 50)), (100, (50, 10))]
)
def test_loops_are_the_published_ones(ipc, loops):
    options = dcc.DCCOptions()
    assert options.loops(ipc) == loops
    assert (options.warm_outer, options.warm_inner, options.lr_img, options.init) == (250, 10, 0.1, "real")
    assert dcc.DCCOptions(outer=2, inner=0).loops(ipc) == (2, 0)


def test_the_logged_loss_is_the_mean_over_updates(losses_used, monkeypatch):
    monkeypatch.setattr(dcc, "match_collectively", lambda *words: (torch.tensor(2.0), torch.zeros(3, 1, 16, 16)))
    trajectory = toy_trajectory(f"dcc[{FEW},warm_outer=0]")
    trajectory.advance(1)
    assert trajectory.history.scalars["loss"] == [pytest.approx(2.0)]


@pytest.mark.parametrize("method", [f"dcc[{FEW},warm_outer=1]", f"dsac[{FEW},warm_outer=1]"])
def test_it_goes_on_bit_for_bit(method):
    whole, parts = toy_trajectory(method, ipc=2), toy_trajectory(method, ipc=2)
    wanted = whole.advance(3)
    parts.advance(2)
    state = {name: tensor.clone() for name, tensor in parts.method.state().items()}
    later = toy_trajectory(method, ipc=2)
    later.method.restore(state)
    for iteration in (2,):
        later.networks.begin(iteration)
        later.method.step(iteration, later.networks)
    assert torch.equal(later.method.distilled().images, wanted.images)


def test_dsac_differs_from_dcc_by_its_augmentation_alone():
    plain, without = (
        toy_trajectory(f"{method}[{FEW},warm_outer=0{more}]").advance(1)
        for method, more in (("dcc", ""), ("dsac", ",augment=none"))
    )
    augmented = toy_trajectory(f"dsac[{FEW},warm_outer=0,augment=color]").advance(1)
    assert torch.equal(plain.images, without.images)
    assert not torch.equal(plain.images, augmented.images)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_slices_and_a_whole_batch_agree(norm):
    """Batch norm that is not frozen couples images; the same network with another norm does not."""
    problem = toy_problem()
    name = f"convnet[width=4,depth=1,norm={norm}]"
    network = component("architecture", name).build(problem.shape, 3, torch.Generator().manual_seed(0)).double()
    real, synthetic = formula(1, (12, 1, 16, 16), -1, 1), formula(2, (6, 1, 16, 16), -1, 1)
    pair = pairs_of(problem, real, synthetic, 2)
    loss, gradient = match_collectively(network, problem, pair, DISTANCES["mse"], PLAIN)
    leaf = synthetic.clone().requires_grad_()
    parts = [gradient_of(network, real[4 * c : 4 * c + 4], torch.full((4,), c)) for c in range(3)]
    mine = gradient_of(network, leaf, torch.arange(3).repeat_interleave(2), differentiable=True)
    expected = DISTANCES["mse"](mine, [sum(pieces) / 3 for pieces in zip(*parts, strict=True)])
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-9)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])


def test_as_another_parametrisation():
    trajectory = toy_trajectory(f"dcc[{FEW},warm_outer=0,as=multi-formation]", f"single[main={TINY_CONVNET}]")
    before = trajectory.method.encoded.tensors["images"].detach().clone()
    after = trajectory.advance(1).images
    assert after.shape == (3, 1, 16, 16)
    assert not torch.equal(before, after)
