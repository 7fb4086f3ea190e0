"""Gradients in slices, side by side, against those of the whole batch."""

import contextlib
import copy
import functools
import random
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from toys import component

from harness.compute.network_traits import can_be_sliced
from harness.compute.parallel import SLICE
from harness.learning.gradients import as_a_whole, gradient_in_slices, gradient_of, in_slices


def built(dtype=torch.float64):
    return component("architecture", "convnet[width=4,depth=1]").build((1, 8, 8), 3, torch.Generator()).to(dtype)


def data(count, dtype=torch.float64):
    generator = torch.Generator().manual_seed(count)
    labels = torch.randint(3, (count,), generator=generator)
    return torch.randn(count, 1, 8, 8, generator=generator, dtype=dtype), labels


def by(way, network, images, labels, reduced=contextlib.nullcontext):
    return way(network, images, lambda logits: functional.cross_entropy(logits, labels), reduced)


@settings(deadline=None, max_examples=15)
@given(count=st.integers(1, 3 * SLICE + 5))
def test_slices_give_the_loss_and_gradient_of_the_whole_batch(count):
    network = built()
    images, labels = data(count)
    loss, gradient = by(in_slices, network, images, labels)
    whole_loss, whole = by(as_a_whole, network, images, labels)
    expected = torch.autograd.grad(functional.cross_entropy(network(images), labels), list(network.parameters()))
    torch.testing.assert_close(loss, whole_loss)
    for ours, theirs, plain in zip(gradient, whole, expected, strict=True):
        torch.testing.assert_close(ours, plain)
        torch.testing.assert_close(theirs, plain)


@pytest.mark.parametrize("way", [in_slices, as_a_whole])
def test_a_weight_that_the_loss_does_not_depend_on_has_no_gradient(way):
    network = built()
    network.idle = nn.Linear(2, 2).double()
    *used, weight, bias = by(way, network, *data(70))[1]
    assert all(part is not None for part in used)
    assert weight is bias is None


@pytest.mark.parametrize("way", [in_slices, as_a_whole])
def test_a_lower_precision_is_the_networks_alone(way):
    network = built(torch.float32)
    images, labels = data(70, torch.float32)
    reduced = functools.partial(torch.autocast, "cpu", torch.bfloat16)
    exact, coarse = by(way, network, images, labels), by(way, network, images, labels, reduced)
    assert coarse[0].dtype == torch.float32
    assert coarse[0] != exact[0]
    assert coarse[0] == pytest.approx(float(exact[0]), rel=0.02)
    ours, theirs = (torch.cat([part.flatten() for part in gradient]) for _, gradient in (coarse, exact))
    assert ours.dtype == torch.float32
    assert functional.cosine_similarity(ours, theirs, dim=0) > 0.99


def test_slices_do_not_depend_on_the_number_of_threads():
    network, (images, labels), threads = built(torch.float32), data(100, torch.float32), torch.get_num_threads()
    gradients = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            gradients.append(by(in_slices, network, images, labels)[1])
    finally:
        torch.set_num_threads(threads)
    for gradient in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradient, gradients[0], strict=True))


class Centred(nn.Module):
    """Subtracts the mean of the batch, which no name gives away."""

    def forward(self, images):
        return images - images.mean(0)


class ByChance(nn.Module):
    """Adds a number of somebody's generator."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, images):
        return images + self.draw()


def network_of(*layers, zero_head=False):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers, nn.Flatten(), nn.Linear(4 * 64, 3))
    if zero_head:
        nn.init.zeros_(network[-1].weight)
    return network


def residual(norm):
    """A branch that its last weight switches off, as networks with residuals often begin."""
    nn.init.zeros_(norm.weight)
    return norm


IN_ONE_PASS = {
    "batch norm": lambda: network_of(nn.BatchNorm2d(4), nn.ReLU()),
    "batch norm without running statistics": lambda: network_of(nn.BatchNorm2d(4, track_running_stats=False)).eval(),
    "batch norm before a head of zeros": lambda: network_of(nn.BatchNorm2d(4), zero_head=True),
    "batch norm whose scale is zero": lambda: network_of(residual(nn.BatchNorm2d(4))),
    "the mean of the batch": lambda: network_of(Centred()),
    "the mean of the batch, evaluated": lambda: network_of(Centred()).eval(),
    "dropout": lambda: network_of(nn.Dropout(0.3)),
    "dropout of maps": lambda: network_of(nn.Dropout2d(0.3), nn.Tanh()),
    "dropout of torch's functions": lambda: network_of(ByChance(lambda: torch.rand(()))),
    "Python's generator": lambda: network_of(ByChance(random.random)),
    "NumPy's generator": lambda: network_of(ByChance(lambda: float(np.random.rand()))),
}
IN_SLICES = {
    "no norm": lambda: network_of(nn.ReLU()),
    "instance norm": lambda: network_of(nn.InstanceNorm2d(4), nn.ReLU(), nn.MaxPool2d(1)),
    "layer norm": lambda: network_of(nn.LayerNorm([4, 8, 8]), nn.Sigmoid()),
    "group norm": lambda: network_of(nn.GroupNorm(2, 4), nn.SiLU()),
    "frozen batch norm": lambda: network_of(nn.BatchNorm2d(4)).eval(),
    "dropout, evaluated": lambda: network_of(nn.Dropout(0.3)).eval(),
}


def seeded(work):
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    return work()


def assert_same_gradient(network, count, size):
    images, labels = data(count, torch.float32)
    other = copy.deepcopy(network)
    whole = seeded(lambda: gradient_of(network, images, labels))
    sliced = seeded(lambda: gradient_in_slices(other, images, labels, size))
    for ours, theirs in zip(sliced, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    for ours, theirs in zip(other.buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", [*IN_ONE_PASS, *IN_SLICES])
@settings(deadline=None, max_examples=3)
@given(count=st.integers(2, 70), size=st.integers(1, 40))
def test_gradients_in_slices_are_those_of_one_pass_whatever_the_network(kind, count, size):
    assert_same_gradient((IN_ONE_PASS | IN_SLICES)[kind](), count, size)


@pytest.mark.parametrize("kind", [*IN_ONE_PASS, *IN_SLICES])
def test_only_what_can_be_taken_apart_is_sliced(kind):
    network = (IN_ONE_PASS | IN_SLICES)[kind]()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]
    assert can_be_sliced(network, data(2, torch.float32)[0]) == (kind in IN_SLICES)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[2])
    for name, tensor in network.state_dict().items():
        assert torch.equal(before[name], tensor)


def test_a_network_that_was_lost_to_nan_does_not_decide_for_others_of_its_structure():
    lost, sound = network_of(nn.Hardswish()), network_of(nn.Hardswish())
    nn.init.constant_(lost[0].weight, torch.nan)
    images = data(2, torch.float32)[0]
    assert can_be_sliced(lost, images)
    assert can_be_sliced(sound, images)


def test_a_network_that_cannot_be_copied_takes_one_pass():
    network = network_of(nn.ReLU())
    network.lock = threading.Lock()
    assert not can_be_sliced(network, data(2, torch.float32)[0])
    images, labels = data(9, torch.float32)
    for ours, theirs in zip(
        gradient_in_slices(network, images, labels, 2), gradient_of(network, images, labels), strict=True
    ):
        assert torch.equal(ours, theirs)


class Fussy(nn.Module):
    """Refuses what is not finite."""

    def forward(self, images):
        if not bool(images.isfinite().all()):
            raise ValueError("not finite")
        return images


def test_a_network_that_refuses_nan_is_asked_by_noise_alone():
    images = data(2, torch.float32)[0]
    assert can_be_sliced(network_of(Fussy()), images)
    assert not can_be_sliced(network_of(Fussy(), nn.BatchNorm2d(4)), images)


def test_a_slice_has_an_image():
    with pytest.raises(ValueError, match="at least one image, not 0"):
        gradient_in_slices(network_of(), *data(9, torch.float32), 0)


def test_other_threads_are_not_waited_for_by_a_thread_that_holds_the_generator():
    """A step holds the process's generator while its threads take gradients: they must not ask for it."""
    from harness.compute.parallel import side_by_side
    from harness.types.seeds import global_rng_from

    network, (images, labels) = network_of(nn.Softsign()), data(40, torch.float32)
    network.uncomparable = object()  # its answer is not remembered, so that each thread asks anew
    with global_rng_from(torch.Generator()):
        work = side_by_side(lambda _: gradient_in_slices(network, images, labels, 8), range(2), images.device, 2)
        assert len(list(work)) == 2
