"""2x2 pooling against torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from harness.architectures.pooling import AveragePool, MaxPool

POOLS = [(AveragePool(), functional.avg_pool2d), (MaxPool(), functional.max_pool2d)]
sides = st.integers(2, 9)


def maps(height, width, seed=0):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("pool", "reference"), POOLS)
@settings(deadline=None, max_examples=20)
@given(height=sides, width=sides, seed=st.integers(0, 99))
def test_values_and_gradients_are_torchs(pool, reference, height, width, seed):
    ours, theirs = maps(height, width, seed).requires_grad_(), maps(height, width, seed).requires_grad_()
    torch.testing.assert_close(pool(ours), reference(theirs, 2))
    for images, pooled in ((ours, pool(ours)), (theirs, reference(theirs, 2))):
        pooled.square().sum().backward()
        assert images.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(("pool", "reference"), POOLS)
def test_values_are_torchs_without_gradients_too(pool, reference):
    images = maps(5, 8)
    images[0, 0, 1, 1] = torch.nan
    with torch.no_grad():
        torch.testing.assert_close(pool(images), reference(images, 2), equal_nan=True)
    assert torch.isnan(pool(images)[0, 0, 0, 0])


@pytest.mark.parametrize("pool", [pool for pool, _ in POOLS])
def test_gradients_can_be_differentiated(pool):
    images = maps(4, 4).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda images: pool(images).tanh(), images)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_forward_mode_and_vmap_work():
    images = torch.randn(3, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, tangent = torch.func.jvp(AveragePool(), (images,), (images,))
    torch.testing.assert_close(tangent, value)
    gradients = torch.func.vmap(torch.func.grad(lambda image: AveragePool()(image[None]).square().sum()))(images)
    leaf = images.clone().requires_grad_()
    torch.testing.assert_close(gradients, torch.autograd.grad(AveragePool()(leaf).square().sum(), leaf)[0])
