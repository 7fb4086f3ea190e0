"""NCFM: golden values of its authors' code, closed forms of the distance, pairs of networks, resumption."""

import math
import statistics

import pytest
import torch
from golden_inputs import GOLDEN, assert_golden, formula
from torch.nn import functional
from toys import TINY_CONVNET, TINY_MLP, registry, toy_problem, toy_trajectory

from harness import RealNetwork, Streams, Task, UsageError, snapshot
from mpdd_plugins.augmentations.ncfm import check_strategy, ncfm_augmentation, own_strategy
from mpdd_plugins.methods.ncfm import SCALE, between, characteristic_distance

FEW = "batch_real=6,frequencies=16,pairs=2,train_epochs=2"
BOTH = f"total-random[of={TINY_CONVNET}+{TINY_MLP}]"
REAL, FREQUENCIES = formula(700, (7, 6), -1, 1), formula(702, (9, 6), -2, 2)


def method_of(name=f"ncfm[{FEW}]", *, problem=None, ipc=1):
    """Return a method before its first step."""
    return registry().resolve("method", name).make(Task(problem or toy_problem(), ipc, Streams(0), iterations=10))


def synthetic():
    return formula(701, (4, 6), -1, 1).requires_grad_()


# --- the distance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amplitude", "phase"), [(0.5, 0.5), (0.9, 0.1)])
def test_the_distance_and_its_gradient_are_those_of_ncfms_code(amplitude, phase):
    golden, mine = GOLDEN["ncfm"][f"characteristic function distance alpha {amplitude} beta {phase}"], synthetic()
    loss = characteristic_distance(REAL, mine, FREQUENCIES, amplitude=amplitude, phase=phase)
    assert float(loss.detach()) == pytest.approx(golden["loss"], rel=1e-9)
    assert_golden(torch.autograd.grad(loss, mine)[0], golden["grad"])


def test_the_matching_loss_is_that_of_ncfms_code():
    golden, mine = GOLDEN["ncfm"]["matching loss: features scaled to unit length, 300 times the distance"], synthetic()
    ends = functional.normalize(REAL), functional.normalize(mine)
    loss = SCALE * characteristic_distance(*ends, FREQUENCIES, amplitude=0.5, phase=0.5)
    assert float(loss.detach()) == pytest.approx(golden["loss"], rel=1e-9)
    assert_golden(torch.autograd.grad(loss, mine)[0], golden["grad"])


def test_a_set_is_at_the_floor_from_itself_in_any_order():
    golden = GOLDEN["ncfm"]["distance of a set to itself (not zero: clamp at 1e-12 before the square root)"]
    for other in (REAL, REAL.flip(0)):
        loss = characteristic_distance(REAL, other, FREQUENCIES, amplitude=0.5, phase=0.5)
        assert float(loss) == pytest.approx(golden["loss"], rel=1e-6)


def test_the_distance_of_two_points_is_the_sine_of_half_their_phase():
    """|Phi| = 1 for both, so that 2 (1 - cos a) / 2 = 2 sin^2(a / 2) remains."""
    first, second = torch.tensor([[0.3, -0.2]]).double(), torch.tensor([[-0.1, 0.6]]).double().requires_grad_()
    frequencies = torch.tensor([[1.0, 0.3], [-0.4, 2.0], [0.7, 0.1]]).double()
    loss = characteristic_distance(first, second, frequencies, amplitude=0.5, phase=0.5)
    angles = (frequencies @ (first - second).detach().T).flatten()
    by_hand = math.sqrt(2) * (angles / 2).sin().abs()
    assert float(loss.detach()) == pytest.approx(float(by_hand.mean()), rel=1e-12)
    slopes = -math.sqrt(0.5) * (angles / 2).cos() * (angles / 2).sin().sign() / len(frequencies)
    torch.testing.assert_close(torch.autograd.grad(loss, second)[0][0], slopes @ frequencies)


def test_the_gradient_by_finite_differences():
    step = torch.zeros(4, 6).double()
    loss = characteristic_distance(REAL, mine := synthetic(), FREQUENCIES, amplitude=0.7, phase=0.3)
    (gradient,) = torch.autograd.grad(loss, mine)
    for place in ((0, 0), (2, 5)):
        step.zero_()[place] = 1e-6
        ends = [
            float(characteristic_distance(REAL, mine.detach() + sign * step, FREQUENCIES, amplitude=0.7, phase=0.3))
            for sign in (1, -1)
        ]
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(gradient[place]), rel=1e-5)


# --- networks ---------------------------------------------------------------------------------------------------------


def test_a_network_between_two_is_the_interpolation_and_keeps_counters():
    trained = {"weight": torch.tensor([1.0, 2.0]), "count": torch.tensor(7)}
    initial = {"weight": torch.tensor([3.0, 0.0]), "count": torch.tensor(0)}
    mixed = between(trained, initial, 0.25)
    assert mixed["weight"].tolist() == [1.5, 1.5]
    assert mixed["count"] == 7


def test_pairs_of_the_drawn_architecture_are_needed():
    method = method_of(f"ncfm[{FEW},augment_net=crop+cutmix]")
    requests = [method.needs(iteration, name)[0] for iteration in range(40) for name in (TINY_CONVNET, TINY_MLP)]
    assert {(request.architecture, request.index) for request in requests} == {
        (name, index) for name in (TINY_CONVNET, TINY_MLP) for index in (0, 1)
    }
    first = requests[0]
    assert isinstance(first, RealNetwork)
    assert (first.snapshots, first.recipe.schedule, first.recipe.factor, first.recipe.batch) == (
        (0, 2), "milestones", 0.2, 128,
    )  # fmt: skip
    assert first.augmentation.name == "ncfm crop+cutmix"
    assert method_of(f"ncfm[{FEW},augment_net=none]").needs(0, TINY_MLP)[0].augmentation is None
    assert method_of(f"ncfm[{FEW},networks=fresh]").needs(0, TINY_MLP) == ()


def test_published_milestones_of_the_networks_training():
    (request,) = method_of("ncfm").needs(0, "convnet")
    assert (request.recipe.epochs, request.recipe.milestones) == (60, (40, 50))


def test_matched_is_the_network_between_its_two_ends(monkeypatch):
    trajectory = toy_trajectory(f"ncfm[{FEW}]")
    method, networks = trajectory.method, trajectory.networks
    networks.begin(3)
    network, final = method._networks(3, networks)
    share = float(torch.rand((), generator=Streams(0).generator("share", 3)))
    (artifact,) = networks._supply(3, TINY_CONVNET)
    ends = [snapshot(artifact.tensors, epoch, torch.device("cpu")) for epoch in (2, 0)]
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(weight, (1 - share) * ends[0][name] + share * ends[1][name])
        assert torch.equal(final.state_dict()[name], ends[0][name])
    assert not network.training
    assert not final.training


# --- the method -------------------------------------------------------------------------------------------------------


def test_the_gradient_is_that_of_each_class_in_the_drawn_network():
    trajectory = toy_trajectory(f"ncfm[{FEW},networks=fresh,augment=none,as=pixels]", ipc=2)
    method = trajectory.method
    trajectory.networks.begin(0)
    network, final = method._networks(0, trajectory.networks)
    assert final is None
    loss = method._match(network, 0)
    leaf, total = method.images.detach().clone().requires_grad_(), 0
    frequencies = torch.randn(16, network.features(leaf[:1]).shape[1], generator=Streams(0).generator("frequencies", 0))
    for label in range(3):
        ends = (network.features(method.real(label, 6, "real", 0)), network.features(leaf[2 * label : 2 * label + 2]))
        units = [rows / rows.norm(dim=1, keepdim=True) for rows in ends]
        total = total + 300 * characteristic_distance(*units, frequencies, amplitude=0.5, phase=0.5)
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    (expected,) = torch.autograd.grad(total, leaf)
    # In float32, and with differences of numbers that are almost equal.
    assert (method.images.grad - expected).norm() < 1e-3 * expected.norm()


def test_the_calibration_lowers_the_trained_networks_loss():
    trajectory = toy_trajectory(f"ncfm[{FEW},lr_img=0.01]")
    method = trajectory.method
    trajectory.networks.begin(0)
    _, final = method._networks(0, trajectory.networks)
    losses = []
    for _ in range(20):
        losses.append(method._calibrate(final))
        method._update()
    mean = functional.cross_entropy(final(method.images), method.labels)
    assert losses[-1] < losses[0]
    assert method._calibrate(final) == pytest.approx(3 * float(mean.detach()), rel=1e-5)


def test_a_step_is_two_of_torchs_adamw_in_range():
    trajectory = toy_trajectory(f"ncfm[{FEW},as=unit-pixels]")
    before = trajectory.method.encoded.tensors["images"].detach().clone()
    trajectory.advance(1)
    after = trajectory.method.encoded.tensors["images"].detach()
    # Adam's first two steps are at most the rate each, before the clamp.
    assert 0 < float((after - before).abs().max()) <= 2 * 1e-3 * 1.1
    assert 0 <= float(after.min()) <= float(after.max()) <= 1
    assert trajectory.history.scalars.keys() == {"loss", "calibration", "lr_img"}


def test_the_rate_is_halved_when_the_loss_no_longer_falls(monkeypatch):
    trajectory = toy_trajectory(f"ncfm[{FEW},networks=fresh,patience=2]")
    monkeypatch.setattr(trajectory.method, "_match", lambda *words: 1.0)
    trajectory.method.images.grad = torch.zeros_like(trajectory.method.images)
    trajectory.advance(8)
    assert trajectory.history.scalars["lr_img"] == [*[1e-3] * 3, *[5e-4] * 3, *[2.5e-4] * 2]


@pytest.mark.parametrize("options", ["sampler=true,patience=0", "networks=fresh,as=pixels"])
def test_it_goes_on_bit_for_bit(options):
    method = f"ncfm[{FEW},{options}]"
    whole, parts, later = (toy_trajectory(method, BOTH, ipc=2) for _ in range(3))
    parts.advance(3)
    later.restore(*parts.state())
    assert torch.equal(later.advance(6).images, whole.advance(6).images)
    assert later.history.scalars == whole.history.scalars


def test_the_sampler_begins_with_the_standard_normal_and_finds_larger_distances():
    plain, learned = (
        toy_trajectory(f"ncfm[{FEW},networks=fresh{more}]") for more in ("", ",sampler=true,lr_sampler=0.1")
    )
    plain.advance(1)
    learned.advance(1)
    assert plain.history.scalars["loss"] == learned.history.scalars["loss"], "all scales are 1"
    method, networks = learned.method, learned.networks
    networks.begin(1)
    network, _ = method._networks(1, networks)
    losses = [method._match(network, 1) for _ in range(20)]
    # The mean of several, because each loss is of frequencies of its own.
    assert statistics.fmean(losses[10:]) > 1.2 * losses[0]


def test_distilling_lowers_the_loss():
    trajectory = toy_trajectory(f"ncfm[{FEW},networks=fresh,init=noise,augment=none,lr_img=0.02]")
    trajectory.advance(40)
    losses = trajectory.history.scalars["loss"]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_bfloat16_changes_the_loss_by_its_rounding_only():
    exact, coarse = (toy_trajectory(f"ncfm[{FEW}]", precision=precision) for precision in ("fp32", "bf16"))
    exact.advance(1)
    coarse.advance(1)
    first, second = (trajectory.history.scalars["loss"][0] for trajectory in (exact, coarse))
    assert first != second
    assert second == pytest.approx(first, rel=0.05)


@pytest.mark.parametrize("option", ["phase=0", "pairs=0", "augment=cutmix", "augment_net=blur", "networks=old"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(UsageError, match="ncfm"):
        registry().resolve("method", f"ncfm[{option}]")


@pytest.mark.parametrize(("shape", "classes"), [((1, 12, 20), 3), ((3, 16, 16), 7)])
def test_any_shape_and_number_of_classes(shape, classes):
    problem = toy_problem(shape=shape, classes=classes)
    distilled = toy_trajectory(f"ncfm[{FEW},networks=fresh]", problem=problem, ipc=2).advance(1)
    assert distilled.images.shape == (classes * 2, *shape)
    assert len(distilled.training_data()[0]) == classes * 2 * 4


# --- its augmentation in training -------------------------------------------------------------------------------------


def test_cutmix_follows_dsas_operations_where_it_suits_the_data():
    assert own_strategy(toy_problem(shape=(3, 16, 16), augmentations={"dsa": "crop"})) == "crop+cutmix"
    assert own_strategy(toy_problem(augmentations={"dsa": "crop"})) == "crop", "grey, and never mirrored"
    assert own_strategy(toy_problem(augmentations={"dsa": "none"})) == "none"
    assert check_strategy("cutmix_crop") == "crop+cutmix"
    assert check_strategy("cutmix") == "cutmix"
    for wrong in ("cutmix+cutmix", "blur"):
        with pytest.raises(ValueError, match="cutmix"):
            check_strategy(wrong)


@pytest.mark.parametrize(("strategy", "has_weights"), [("crop", False), ("cutmix", True), ("crop+cutmix", True)])
def test_labels_become_weights_with_cutmix(strategy, has_weights):
    augment, images, labels = ncfm_augmentation(strategy, 3), formula(1, (6, 1, 8, 8)).float(), torch.arange(6) % 3
    generator = torch.Generator().manual_seed(0)
    if has_weights:
        mixed, weights = augment(images, labels, generator)
        assert mixed.shape == images.shape
        torch.testing.assert_close(weights.sum(1), torch.ones(6))
    else:
        assert augment(images, generator).shape == images.shape
