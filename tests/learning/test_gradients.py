"""Gradients in slices, side by side, against those of the whole batch."""

import contextlib
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from toys import component

from harness.learning.gradients import SLICE, as_a_whole, in_slices


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
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(by(in_slices, network, images, labels)[1])
    finally:
        torch.set_num_threads(threads)
    for gradient in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradient, found[0], strict=True))
