"""The unrolled student: exact against finite differences, constant against TESLA's formula, and what each remembers."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from harness import Step, Student, unroll_constantly, unroll_exactly

CLASSES, SIZE, IMAGES = 3, 4, 6
UNROLLS = [unroll_exactly, unroll_constantly]


def tiny_network():
    """Smooth, so that finite differences are exact enough; with a norm, which has no running statistics."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.GroupNorm(2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(2 * SIZE**2, CLASSES)
    ).double()


def weights_of(network, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: weight.detach() + 0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        for name, weight in network.named_parameters()
    }


@pytest.fixture
def scene():
    network = tiny_network()
    images = torch.randn(IMAGES, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    labels = torch.arange(CLASSES).repeat(2)
    return {
        "student": Student(network, {}, labels),
        "start": weights_of(network, 1),
        "target": weights_of(network, 2),
        "images": images,
        "step_size": torch.tensor(0.2, dtype=torch.float64),
    }


def steps(count, transform=torch.clone, size=4):
    """Batches of other images each, some more often than others."""
    return [Step(torch.arange(number, number + size) % IMAGES, transform) for number in range(count)]


def doubled(images):
    return 2 * images + 0.1 * images**2


def played(scene, batches, images, step_size):
    """The loss by plain gradient descent, with nothing of the code under test."""
    network, labels = scene["student"].network, scene["student"].labels
    weights = {name: tensor.clone() for name, tensor in scene["start"].items()}
    for batch in batches:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
        logits = functional_call(network, leaves, (batch.transform(images[batch.index]),))
        loss = nn.functional.cross_entropy(logits, labels[batch.index])
        gradient = torch.autograd.grad(loss, list(leaves.values()))
        weights = {name: weights[name] - step_size * part for name, part in zip(weights, gradient, strict=True)}
    away = sum((weights[name] - scene["target"][name]).square().sum() for name in weights)
    return away / sum((scene["start"][name] - scene["target"][name]).square().sum() for name in weights)


@pytest.mark.parametrize("unroll", UNROLLS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_loss_is_that_of_plain_gradient_descent(scene, unroll, count):
    batches = steps(count, doubled)
    outcome = unroll(batches=batches, **scene)
    assert float(outcome.loss) == pytest.approx(float(played(scene, batches, scene["images"], 0.2)), rel=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_exact_gradient_is_that_of_finite_differences(scene, count):
    batches, eps = steps(count, doubled), 1e-5
    outcome = unroll_exactly(batches=batches, **scene)
    for index in [(0, 0, 1, 2), (3, 0, 0, 0), (4, 0, 3, 3), (5, 0, 2, 1)]:
        bump = torch.zeros_like(scene["images"])
        bump[index] = eps
        up, down = (played(scene, batches, scene["images"] + sign * bump, 0.2) for sign in (1, -1))
        assert float(outcome.images[index]) == pytest.approx(float(up - down) / (2 * eps), rel=1e-5, abs=1e-9)
    up, down = (played(scene, batches, scene["images"], 0.2 + sign * eps) for sign in (1, -1))
    assert float(outcome.step_size) == pytest.approx(float(up - down) / (2 * eps), rel=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_constant_gradient_is_teslas_formula(scene, count):
    """Against the formula written out, its sum over steps made in one graph with every step's weights detached."""
    batches = steps(count, doubled)
    network, labels = scene["student"].network, scene["student"].labels
    images = scene["images"].clone().requires_grad_()
    weights, gradients = scene["start"], []
    for batch in batches:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
        logits = functional_call(network, leaves, (doubled(images[batch.index]),))
        loss = nn.functional.cross_entropy(logits, labels[batch.index])
        gradient = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        gradients.append(torch.cat([part.flatten() for part in gradient]))
        weights = {name: leaves[name] - 0.2 * part for name, part in zip(leaves, gradient, strict=True)}
    start, target = (torch.cat([w.flatten() for w in scene[key].values()]) for key in ("start", "target"))
    total, d = torch.stack(gradients).sum(0), (start - target).square().sum()
    left = (2 / d) * (0.2 * (target - start) + 0.2**2 * total).detach()
    (expected,) = torch.autograd.grad(left @ total, images)
    outcome = unroll_constantly(batches=batches, **scene)
    torch.testing.assert_close(outcome.images, expected, rtol=1e-10, atol=1e-14)
    beta = -(2 / d) * total @ (start - 0.2 * total - target)
    assert float(outcome.step_size) == pytest.approx(float(beta.detach()), rel=1e-10)


def test_one_step_is_the_same_either_way(scene):
    exact, constant = (unroll(batches=steps(1, doubled), **scene) for unroll in UNROLLS)
    for mine, other in zip(exact, constant, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-14)


def test_the_constant_gradient_leaves_out_what_later_weights_owe_to_earlier_images(scene):
    """Same loss; the gradient of the last step's own images agrees, that of the first step's does not."""
    first, last = Step(torch.tensor([0, 1]), doubled), Step(torch.tensor([4, 5]), doubled)
    exact, constant = (unroll(batches=[first, last], **scene) for unroll in UNROLLS)
    assert float(exact.loss) == pytest.approx(float(constant.loss), rel=1e-12)
    torch.testing.assert_close(exact.images[4:], constant.images[4:], rtol=1e-9, atol=1e-13)
    assert float((exact.images[:2] - constant.images[:2]).norm() / exact.images[:2].norm()) > 0.01
    assert float((exact.step_size - constant.step_size).abs()) > 1e-4


class SavedTensor:
    """A tensor that a graph holds; counts itself as long as it lives."""

    live = peak = 0

    def __init__(self, tensor):
        self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
        SavedTensor.live += self.size
        SavedTensor.peak = max(SavedTensor.peak, SavedTensor.live)

    def __del__(self):
        SavedTensor.live -= self.size


def graph_memory(unroll, scene, count):
    """Bytes that graphs hold at most at one time."""
    SavedTensor.live = SavedTensor.peak = 0
    with torch.autograd.graph.saved_tensors_hooks(SavedTensor, lambda saved: saved.tensor):
        unroll(batches=steps(count), **scene)
    return SavedTensor.peak


def test_graph_memory_of_the_constant_gradient_is_flat_in_the_number_of_steps(scene):
    few, many = (graph_memory(unroll_constantly, scene, count) for count in (2, 20))
    assert few > 0
    assert many == few
    few, many = (graph_memory(unroll_exactly, scene, count) for count in (2, 20))
    assert many > 8 * few


@pytest.mark.parametrize("unroll", UNROLLS)
def test_nothing_given_is_changed(scene, unroll):
    before = {key: {n: t.clone() for n, t in scene[key].items()} for key in ("start", "target")}
    images = scene["images"].clone()
    network = {name: weight.clone() for name, weight in scene["student"].network.named_parameters()}
    unroll(batches=steps(3), **scene)
    assert torch.equal(images, scene["images"])
    assert not scene["images"].requires_grad
    for key, tensors in before.items():
        assert all(torch.equal(tensor, scene[key][name]) for name, tensor in tensors.items())
    assert all(torch.equal(network[name], weight) for name, weight in scene["student"].network.named_parameters())


@pytest.mark.parametrize("mode", [True, False], ids=["batch statistics", "an expert's"])
@pytest.mark.parametrize("unroll", UNROLLS)
def test_running_statistics_stay_as_they_are(scene, unroll, mode):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, CLASSES))
    network = network.double().train(mode)
    buffers = {name: buffer.clone() + 1 for name, buffer in network.named_buffers()}
    changed = {**scene, "student": Student(network, buffers, scene["student"].labels)}
    changed |= {key: weights_of(network, seed) for seed, key in enumerate(("start", "target"))}
    outcome = unroll(batches=steps(2), **changed)
    assert torch.isfinite(outcome.images).all()
    assert outcome.images.abs().sum() > 0
    for name, buffer in network.named_buffers():
        assert torch.equal(buffers[name], buffer + 1)
    other = {**changed, "student": Student(network, {n: b * 3 for n, b in buffers.items()}, changed["student"].labels)}
    changed = not torch.equal(unroll(batches=steps(2), **other).images, outcome.images)
    assert changed == (not mode), "statistics count exactly where the network uses them"


@pytest.mark.parametrize("unroll", UNROLLS)
def test_dropout_is_the_same_whenever_a_step_is_played(scene, unroll):
    network = nn.Sequential(nn.Dropout(0.5), tiny_network())
    changed = {key: {f"1.{name}": t for name, t in scene[key].items()} for key in ("start", "target")}
    student = Student(network, {}, scene["student"].labels)
    batches = [Step(batch.index, batch.transform, seed=seed) for seed, batch in enumerate(steps(3))]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = unroll(batches=batches, **{**scene, **changed, "student": student})
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second = unroll(batches=batches, **{**scene, **changed, "student": student})
    assert torch.equal(first.images, second.images)
    if unroll is unroll_constantly:  # the last step's own gradient is exact, if both passes dropped alike
        exact = unroll_exactly(batches=batches, **{**scene, **changed, "student": student})
        only_last = batches[2].index[-1]
        torch.testing.assert_close(first.images[only_last], exact.images[only_last], rtol=1e-9, atol=1e-13)
