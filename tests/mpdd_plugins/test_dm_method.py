"""DM against its definition: mean features and their gradient by hand, siamese transforms, batch norm, its state."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import TINY_CONVNET, DropoutNetwork, FromFunction, component, registry, resolve, toy_problem, toy_trajectory

from harness import Streams, UsageError
from harness.learning.networks.pool_networks import PoolNetworks
from mpdd_plugins.augmentations.dsa import siamese
from mpdd_plugins.methods import dm

SINGLE = f"single[main={TINY_CONVNET}]"
BATCH_NORM = "single[main=convnet[width=4,depth=1,norm=batch]]"
PLAIN = "dm[batch_real=7,augment=none]"


class Linear(nn.Module):
    """Features are W x: all that DM does with them can be written down."""

    def __init__(self, shape, classes):
        super().__init__()
        self.body = nn.Linear(int(np.prod(shape)), 5, bias=False)
        self.classifier = nn.Linear(5, classes)

    def features(self, images):
        return self.body(images.flatten(1))

    def forward(self, images):
        return self.classifier(self.features(images))


class Given:
    """Gives networks of one's own."""

    def __init__(self, make, problem):
        self.architecture, self.problem, self.drawn = FromFunction(make), problem, []

    def draw(self):
        generator = torch.Generator().manual_seed(len(self.drawn))
        self.drawn.append(self.architecture.build(self.problem.shape, len(self.problem.classes), generator))
        return self.drawn[-1]

    def draw_together(self):
        return [self.draw()]

    def combine(self, gradients):
        (gradient,) = gradients
        return gradient


def updates_of(trajectory):
    """Notes images and their gradient before each update."""
    updates, images = [], trajectory.method.images
    trajectory.method.optimizer.register_step_pre_hook(
        lambda *_: updates.append((images.detach().clone(), images.grad.clone()))
    )
    return updates


def network_of(trajectory, pool, iteration=0):
    """The network that an iteration draws, once more."""
    networks = PoolNetworks(component("pool", pool), resolve, trajectory.problem, Streams(0))
    networks.begin(iteration)
    return networks.draw()


def real_batches(problem, count, iteration=0):
    return [problem.real_batch(label, count, Streams(0).generator("real", iteration, label)) for label in range(3)]


def joint(network, real, images, transforms=(lambda batch: batch,) * 3):
    """The loss of all classes at once, and its gradient."""
    images = images.clone().requires_grad_()
    loss = 0
    for batch, mine, transform in zip(real, images.chunk(3), transforms, strict=True):
        difference = network.features(transform(batch)).mean(0) - network.features(transform(mine)).mean(0)
        loss = loss + difference.square().sum()
    return loss.detach(), torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize("ipc", [1, 3])
def test_of_linear_features_loss_and_gradient_are_those_of_the_formula(ipc):
    problem = toy_problem()
    trajectory = toy_trajectory(PLAIN, problem=problem, ipc=ipc)
    updates, networks = updates_of(trajectory), Given(Linear, problem)
    scalars = trajectory.method.step(0, networks)

    (images, gradient), weight = updates[0], networks.drawn[0].body.weight.detach().numpy().astype(np.float64)
    total, slopes = 0.0, []
    for batch, mine in zip(real_batches(problem, 7), images.chunk(3), strict=True):
        batch, mine = (part.flatten(1).numpy().astype(np.float64) for part in (batch, mine))
        difference = weight @ (mine.mean(0) - batch.mean(0))
        total += (difference**2).sum()
        slopes += [2 / ipc * weight.T @ difference] * ipc
    assert scalars == {"loss": pytest.approx(total / 3, rel=1e-5)}
    np.testing.assert_allclose(gradient.flatten(1), np.stack(slopes), rtol=1e-4, atol=1e-6)


def test_class_by_class_is_the_gradient_of_the_summed_loss():
    trajectory = toy_trajectory(PLAIN, ipc=3)
    updates = updates_of(trajectory)
    trajectory.advance(1)
    images, gradient = updates[0]
    loss, expected = joint(network_of(trajectory, SINGLE), real_batches(trajectory.problem, 7), images)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()))
    assert trajectory.history.scalars["loss"] == [pytest.approx(float(loss) / 3, rel=1e-5)]


def test_slices_of_the_real_batch_change_nothing(monkeypatch):
    whole = toy_trajectory("dm[batch_real=12,augment=none]").advance(2).images
    monkeypatch.setattr(dm, "SLICE", 5)
    torch.testing.assert_close(toy_trajectory("dm[batch_real=12,augment=none]").advance(2).images, whole)


def test_images_start_real_and_move_by_sgd_with_rate_1_and_momentum_0_5():
    problem = toy_problem()
    trajectory = toy_trajectory(PLAIN, problem=problem, ipc=2)
    updates = updates_of(trajectory)
    first = [problem.real_batch(label, 2, Streams(0).generator("init", 0, label)) for label in range(3)]
    assert torch.equal(trajectory.advance(0).images, torch.cat(first))
    final = trajectory.advance(3)
    assert len(updates) == 3
    images, velocity = torch.cat(first).double(), torch.zeros_like(final.images).double()
    for before, gradient in updates:
        torch.testing.assert_close(before.double(), images, rtol=1e-5, atol=1e-6)
        velocity = 0.5 * velocity + gradient
        images = images - velocity
    torch.testing.assert_close(final.images.double(), images, rtol=1e-5, atol=1e-6)
    assert final.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_each_iteration_draws_one_fresh_network_and_never_trains_it():
    problem = toy_problem()
    method = toy_trajectory(PLAIN, problem=problem).method
    networks = Given(Linear, problem)
    for iteration in range(2):
        method.step(iteration, networks)
    assert len(networks.drawn) == 2
    for number, network in enumerate(networks.drawn):
        fresh = FromFunction(Linear).build(problem.shape, 3, torch.Generator().manual_seed(number))
        assert not any(parameter.requires_grad for parameter in network.parameters())
        for mine, theirs in zip(network.parameters(), fresh.parameters(), strict=True):
            assert torch.equal(mine, theirs)


class Calls:
    """Stands in for `siamese`: multiplies by a number drawn for each transform, and notes what it is applied to."""

    def __init__(self):
        self.drawn = []

    def __call__(self, strategy, shape, generator):
        factor = 0.5 + float(torch.rand((), generator=generator))
        self.drawn.append((strategy, shape, factor, sizes := []))

        def transform(images):
            sizes.append(len(images))
            return images * factor

        return transform


@pytest.mark.parametrize("pool", [SINGLE, BATCH_NORM])
def test_one_transform_a_class_and_iteration_is_done_to_real_and_synthetic_alike(pool, monkeypatch):
    calls = Calls()
    monkeypatch.setattr(dm, "siamese", calls)
    trajectory = toy_trajectory("dm[batch_real=7,augment=flip+scale]", pool, ipc=2)
    trajectory.advance(2)
    assert [(strategy, shape) for strategy, shape, _, _ in calls.drawn] == [("flip+scale", (1, 16, 16))] * 6
    assert all(sizes == [7, 2] for _, _, _, sizes in calls.drawn)
    wanted = [
        0.5 + float(torch.rand((), generator=Streams(0).generator("augment", iteration, label)))
        for iteration in range(2)
        for label in range(3)
    ]
    assert sorted(factor for _, _, factor, _ in calls.drawn) == sorted(wanted)
    assert len(set(wanted)) == 6


@pytest.mark.parametrize("pool", [SINGLE, BATCH_NORM])
def test_the_augmented_loss_has_the_gradient_through_the_transform(pool):
    trajectory = toy_trajectory("dm[batch_real=7,augment=scale+crop+color]", pool, ipc=2)
    updates = updates_of(trajectory)
    trajectory.advance(1)
    network, real = network_of(trajectory, pool), real_batches(trajectory.problem, 7)
    transforms = [
        siamese("scale+crop+color", (1, 16, 16), Streams(0).generator("augment", 0, label)) for label in range(3)
    ]
    (images, gradient), reference = updates[0], joint_of_batch_norm if pool == BATCH_NORM else joint
    loss, expected = reference(network, real, images, transforms)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert trajectory.history.scalars["loss"] == [pytest.approx(float(loss) / 3, rel=1e-4)]


def joint_of_batch_norm(network, real, images, transforms=(lambda batch: batch,) * 3):
    """The loss with batch norm's statistics over all classes: maps normalised, activated and pooled by hand."""
    images = images.clone().requires_grad_()
    mine = [transform(part) for transform, part in zip(transforms, images.chunk(3), strict=True)]
    theirs = [transform(part) for transform, part in zip(transforms, real, strict=True)]
    convolution = next(module for module in network.modules() if isinstance(module, nn.Conv2d))

    def features(parts):
        maps = functional.conv2d(torch.cat(parts).double(), *(p.double() for p in convolution.parameters()), padding=1)
        mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), correction=0, keepdim=True)
        pooled = functional.avg_pool2d(((maps - mean) / (variance + 1e-5).sqrt()).relu(), 2).flatten(1)
        return pooled.split([len(part) for part in parts])

    loss = sum((a.mean(0) - b.mean(0)).square().sum() for a, b in zip(features(mine), features(theirs), strict=True))
    return loss.detach(), torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize("ipc", [1, 3])
def test_batch_norm_sees_all_classes_at_once(ipc):
    trajectory = toy_trajectory(PLAIN, BATCH_NORM, ipc=ipc)
    updates = updates_of(trajectory)
    trajectory.advance(1)
    images, gradient = updates[0]
    network, real = network_of(trajectory, BATCH_NORM), real_batches(trajectory.problem, 7)
    loss, expected = joint_of_batch_norm(network, real, images)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert trajectory.history.scalars["loss"] == [pytest.approx(float(loss) / 3, rel=1e-4)]


@pytest.mark.parametrize("pool", [SINGLE, BATCH_NORM])
def test_a_class_with_fewer_real_images_than_a_batch_gives_all_it_has(pool):
    problem = toy_problem(train=8)
    uneven = replace(problem, train=problem.train[torch.cat([torch.arange(3), torch.arange(8, 24)])])
    trajectory = toy_trajectory("dm[batch_real=6,augment=none]", pool, problem=uneven, ipc=2)
    updates = updates_of(trajectory)
    trajectory.advance(1)
    real = real_batches(uneven, 6)
    assert [len(batch) for batch in real] == [3, 6, 6]
    (images, gradient), reference = updates[0], joint_of_batch_norm if pool == BATCH_NORM else joint
    _, expected = reference(network_of(trajectory, pool), real, images)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_every_pool_sees_the_same_real_images(monkeypatch):
    def seen(pool):
        trajectory, batches = toy_trajectory(PLAIN, pool), {}
        draw = trajectory.method.real
        trajectory.method.real = lambda label, *rest: batches.setdefault((label, *rest), draw(label, *rest))
        trajectory.advance(2)
        return batches

    first, second = seen(SINGLE), seen(BATCH_NORM)
    assert len(first) == 6
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("pool", [SINGLE, BATCH_NORM])
@pytest.mark.parametrize("method", [PLAIN, "dm[batch_real=7]"])
def test_two_iterations_and_two_more_are_four_bit_for_bit(method, pool):
    whole, parts, later = (toy_trajectory(method, pool, ipc=2) for _ in range(3))
    parts.advance(2)
    later.restore(*parts.state())
    assert torch.equal(later.advance(4).images, whole.advance(4).images)
    assert later.history.scalars == whole.history.scalars


def test_the_number_of_cores_changes_no_number():
    problem, threads = toy_problem(classes=5), torch.get_num_threads()

    def images(cores):
        torch.set_num_threads(cores)
        return toy_trajectory("dm[batch_real=7]", problem=problem, ipc=2).advance(4).images

    try:
        assert torch.equal(images(1), images(4))
    finally:
        torch.set_num_threads(threads)


def test_networks_with_dropout_are_matched_one_class_after_the_other(monkeypatch):
    problem, asked = toy_problem(), []

    def watched(work, indices, device, workers):
        asked.append(workers)
        return map(work, indices)

    monkeypatch.setattr(dm, "side_by_side", watched)
    for make in (DropoutNetwork, Linear):
        toy_trajectory(PLAIN, problem=problem).method.step(0, Given(make, problem))
    assert asked == [1, None]


@pytest.mark.parametrize("pool", [SINGLE, BATCH_NORM])
def test_bfloat16_changes_the_gradient_by_its_rounding_only(pool):
    exact, coarse = (toy_trajectory(PLAIN, pool, precision=precision) for precision in ("fp32", "bf16"))
    first, second = updates_of(exact), updates_of(coarse)
    exact.advance(1)
    coarse.advance(1)
    assert not torch.equal(first[0][1], second[0][1])
    assert functional.cosine_similarity(first[0][1].flatten(), second[0][1].flatten(), dim=0) > 0.99


def test_distilling_lowers_the_loss():
    trajectory = toy_trajectory("dm[batch_real=12,augment=none,init=noise]")
    trajectory.advance(60)
    losses = trajectory.history.scalars["loss"]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_the_data_sets_own_operations_are_used_unless_others_are_given():
    digits = toy_problem(augmentations={"dsa": "crop+scale"})
    assert toy_trajectory("dm", problem=digits).method.strategy == "crop+scale"
    assert set(toy_trajectory("dm").method.strategy.split("+")) == {
        "color", "crop", "cutout", "flip", "scale", "rotate",
    }  # fmt: skip
    assert toy_trajectory("dm[augment=flip]", problem=digits).method.strategy == "flip"
    assert toy_trajectory("dm[augment=none]", problem=digits).method.strategy == "none"


@pytest.mark.parametrize("option", ["lr_img=0", "momentum_img=1", "batch_real=0", "init=zeros", "augment=blur"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(UsageError, match="dm"):
        registry().resolve("method", f"dm[{option}]")


def test_its_work_is_known_before_a_run():
    assert toy_trajectory("dm", ipc=10).method.work() == 3 * (256 + 2 * 10)
