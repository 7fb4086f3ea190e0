"""CAFE: golden values of its authors' code, the discrimination loss in closed form, data-driven loops, resumption."""

import math

import pytest
import torch
from golden_inputs import GOLDEN, assert_golden, filled_convnet, formula
from toys import TINY_CONVNET, TINY_MLP, DropoutNetwork, component, toy_problem, toy_trajectory

from harness import Streams, Task
from mpdd_plugins.methods import cafe
from mpdd_plugins.methods.cafe import CAFE, CAFEOptions, Layers, loss_of, matched_taps

FEW = "batch_real=6,batch_query=4,most_updates=3,most_epochs=2"
GOLD = GOLDEN["cafe"]["loss of one step"]
BATCH_NORM = "single[main=convnet[width=4,depth=1,norm=batch]]"


@pytest.fixture(scope="module")
def network():
    return filled_convnet(3, 32, 10)


def method_of(problem, ipc=1, **options):
    return CAFE(Task(problem, ipc, Streams(0), 10), CAFEOptions(**options))


def with_golden_images(monkeypatch, real, ipc=2):
    """A method whose synthetic images are the golden ones, and whose real images a function of the class returns."""
    method = method_of(toy_problem(classes=10, shape=(3, 32, 32), train=1, test=1), ipc)
    monkeypatch.setattr(method, "real", lambda label, *words: real(label))
    method.images = formula(400, (20, 3, 32, 32), -2, 2).requires_grad_()
    return method


def golden_real(label):
    return formula(410 + label, (3, 3, 32, 32), -2, 2)


def test_loss_and_gradient_of_an_update_are_those_of_cafes_code(network, monkeypatch):
    loss, gradient = with_golden_images(monkeypatch, golden_real)._match(network, 0, 0)
    inert = GOLD["CE of real logits (reaches no image)"]
    assert float(loss) == pytest.approx(GOLD["total"] - inert, rel=1e-9)
    assert_golden(gradient, GOLD["grad"])


def test_the_layers_are_those_of_cafes_code(network, monkeypatch):
    method = with_golden_images(monkeypatch, golden_real)
    taps = matched_taps(network)
    assert taps == ("act1", "act2", "act3", "block3")
    real = method._layers(network, taps, [golden_real(label) for label in range(10)])
    mine = method._layers(network, taps, list(method.images.detach().split(2)))
    squares = [float((a - b).square().sum()) for a, b in zip(real.means, mine.means, strict=True)]
    assert squares == pytest.approx(next(v for k, v in GOLD.items() if k.startswith("block 1, 2, 3")), rel=1e-9)
    loss = loss_of(real, mine, torch.arange(10).repeat_interleave(3), early_weight=0.0, discrimination=0.0)
    last = squares[2] + 2 * squares[3]  # the last block counts twice: as a layer, and flattened
    assert float(loss) == pytest.approx(last, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("mlp", ("block1", "block2")),
        ("lenet", ("act1", "act2", "block2")),
        ("alexnet", ("act1", "act2", "block3", "block4", "act5", "block5")),
        ("resnet18", ("stem", "block1", "block2", "block3", "block4")),
    ],
)
def test_layers_of_any_network_are_matched(name, taps):
    network = component("architecture", name).build((3, 32, 32), 10, torch.Generator())
    assert matched_taps(network) == taps


def test_real_images_themselves_match_in_all_layers(network, monkeypatch):
    method = with_golden_images(monkeypatch, golden_real, ipc=3)
    method.images = torch.cat([golden_real(label) for label in range(10)]).requires_grad_()
    method.options = CAFEOptions(discrimination=0.0)
    loss, gradient = method._match(network, 0, 0)
    assert float(loss) == pytest.approx(0, abs=1e-18)
    assert float(gradient.abs().max()) < 1e-9


def test_the_discrimination_loss_of_orthonormal_centres_by_hand():
    """A real feature equal to its class's centre has the logit 1 there and 0 elsewhere: log(1 + (C - 1) / e)."""
    classes, each = 4, 3
    centres = torch.eye(classes, dtype=torch.float64).requires_grad_()
    labels = torch.arange(classes).repeat_interleave(each)
    real = Layers([], centres.detach()[labels], centres.detach())
    loss = loss_of(real, Layers([], centres, centres), labels, early_weight=0.1, discrimination=0.5)
    each_loss = math.log(1 + (classes - 1) / math.e)
    assert float(loss.detach()) == pytest.approx(0.5 * classes * each * each_loss, rel=1e-12)
    # The gradient at a centre: for each real image, (its probability of that class - 1 if it is of it) times itself.
    p = math.exp(-each_loss)
    (gradient,) = torch.autograd.grad(loss, centres)
    other = (1 - p) / (classes - 1)
    expected = 0.5 * each * (other * torch.ones(classes, classes) + (p - 1 - other) * torch.eye(classes))
    torch.testing.assert_close(gradient, expected.double())


def test_the_gradient_by_finite_differences(network, monkeypatch):
    method = with_golden_images(monkeypatch, golden_real)
    _, gradient = method._match(network, 0, 0)
    direction, images = formula(77, method.images.shape, -1, 1), method.images.detach().clone()
    losses = []
    for step in (1e-6, -1e-6):
        method.images = (images + step * direction).requires_grad_()
        losses.append(float(method._match(network, 0, 0)[0]))
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_class_by_class_and_all_at_once_are_the_definition(norm):
    problem = toy_problem()
    method = method_of(problem, 2, batch_real=7)
    name = f"convnet[width=4,depth=2,norm={norm}]"
    network = component("architecture", name).build(problem.shape, 3, torch.Generator().manual_seed(0))
    parts = [method.real(label, 7, "real", 0, 0) for label in range(3)]
    layers = method._layers(network, ("act1",), parts)
    outputs = network.features(torch.cat(parts), taps=["act1", "features"])
    torch.testing.assert_close(layers.means[0], outputs["act1"].unflatten(0, (3, 7)).mean(1).detach())
    torch.testing.assert_close(layers.vectors, outputs["features"].detach())
    torch.testing.assert_close(layers.centres, outputs["features"].unflatten(0, (3, 7)).mean(1).detach())


# --- the loops --------------------------------------------------------------------------------------------------------


@pytest.fixture
def accuracies(monkeypatch):
    """A list of accuracies to come, of which the last is repeated for ever."""
    coming = []
    monkeypatch.setattr(cafe, "accuracy", lambda *words: coming.pop(0) if len(coming) > 1 else coming[0])
    return coming


def logged(options, accuracies, coming):
    accuracies[:] = coming
    trajectory = toy_trajectory(f"cafe[batch_real=6,batch_query=4,{options}]")
    trajectory.advance(1)
    return trajectory.history.scalars["updates"][0], trajectory.history.scalars["epochs"][0]


def test_a_network_is_left_when_ten_accuracies_lie_within_lambda_1(accuracies):
    rising = [0.1 * i for i in range(6)]
    assert logged("most_epochs=0", accuracies, [0.5]) == (10, 0)
    assert logged("most_epochs=0", accuracies, [*rising, 0.53]) == (5 + 10, 0), "0.5 to 0.53"
    assert logged("most_epochs=0", accuracies, [*rising, 0.55]) == (6 + 10, 0), "0.5 to 0.55 is a change"
    assert logged("most_epochs=0,most_updates=12", accuracies, [*rising, *([0.0, 0.9] * 20)]) == (12, 0)


def test_the_network_trains_until_its_accuracy_has_changed(accuracies):
    # An update, two epochs of which the second has changed it, an update at the cap.
    assert logged("most_updates=2", accuracies, [0.5, 0.5, 0.6, 0.6]) == (2, 2)
    assert logged("most_updates=2,most_epochs=7", accuracies, [0.5]) == (2, 7)
    # Fifteen epochs of which no ten differ by more than lambda 2, though the first and the last do.
    slow = [0.5 + 0.003 * i for i in range(30)]
    assert logged("most_updates=2,most_epochs=15", accuracies, slow) == (2, 15)


def test_the_rate_of_the_images_is_halved_as_published():
    trajectory = toy_trajectory(f"cafe[{FEW}]")
    rates = []
    for iteration in (0, 1199, 1200, 1600, 1800):
        trajectory.networks.begin(iteration)
        trajectory.method.step(iteration, trajectory.networks)
        rates.append(trajectory.method.optimizer.param_groups[0]["lr"])
    assert rates == [0.1, 0.1, 0.05, 0.025, 0.0125]


def test_accuracy_is_that_of_the_evaluation_mode():
    problem = toy_problem()
    network = DropoutNetwork(problem.shape, 3)
    images, labels = problem.train_inputs, problem.train.labels
    with torch.no_grad():
        right = int((network.eval()(images).argmax(1) == labels).sum())
    network.train()
    assert cafe.accuracy(network, images, labels) == pytest.approx(right / 36)
    assert network.training


# --- the method -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [f"total-random[of={TINY_CONVNET}+{TINY_MLP}]", BATCH_NORM])
@pytest.mark.parametrize("method", [f"cafe[{FEW}]", f"cafe[{FEW},augment=auto]"])
def test_it_goes_on_bit_for_bit(method, pool):
    whole, parts, later = (toy_trajectory(method, pool, ipc=2) for _ in range(3))
    parts.advance(2)
    later.restore(*parts.state())
    assert torch.equal(later.advance(4).images, whole.advance(4).images)
    assert later.history.scalars == whole.history.scalars


def test_distilling_lowers_the_loss():
    trajectory = toy_trajectory("cafe[batch_real=12,batch_query=4,most_updates=5,most_epochs=2,lr_img=0.01]")
    trajectory.advance(30)
    losses = trajectory.history.scalars["loss"]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_bfloat16_changes_the_loss_by_its_rounding_only():
    exact, coarse = (toy_trajectory(f"cafe[{FEW}]", precision=precision) for precision in ("fp32", "bf16"))
    exact.advance(1)
    coarse.advance(1)
    first, second = (trajectory.history.scalars["loss"][0] for trajectory in (exact, coarse))
    assert first != second
    assert second == pytest.approx(first, rel=0.02)


@pytest.mark.parametrize(("shape", "classes", "ipc"), [((1, 12, 20), 3, 2), ((3, 16, 16), 7, 1)])
def test_any_shape_and_number_of_classes(shape, classes, ipc):
    problem = toy_problem(shape=shape, classes=classes)
    images = toy_trajectory(f"cafe[{FEW},as=unit-pixels]", problem=problem, ipc=ipc).advance(1).images
    assert images.shape == (classes * ipc, *shape)
