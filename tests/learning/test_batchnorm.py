"""Batch norm is frozen at exactly the statistics of one batch."""

import numpy as np
import pytest
import torch
from torch import nn

from harness import freeze_statistics


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5)
    ).double()


def images_of(mean, count=9):
    return mean + 3 * torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(1)).double()


def moments(maps):
    """Mean and unbiased variance of each channel, in NumPy."""
    values = maps.detach().numpy().transpose(1, 0, 2, 3).reshape(maps.shape[1], -1)
    mean = values.sum(1) / values.shape[1]
    return mean, ((values - mean[:, None]) ** 2).sum(1) / (values.shape[1] - 1)


def test_statistics_are_those_of_the_batch_and_stay_while_matching(network):
    images = images_of(5.0)
    freeze_statistics(network, lambda: images)

    first = network[0](images)
    mean, variance = moments(first)
    np.testing.assert_allclose(network[1].running_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(network[1].running_var, variance, rtol=1e-12)
    # The second layer sees what the first one gives with the batch's own (biased) variance.
    biased = first.detach().var(dim=(0, 2, 3), unbiased=False).view(1, -1, 1, 1)
    hidden = torch.relu((first - torch.from_numpy(mean).view(1, -1, 1, 1)) / (biased + 1e-5).sqrt())
    mean, variance = moments(network[3](hidden))
    np.testing.assert_allclose(network[4].running_mean, mean, rtol=1e-9)
    np.testing.assert_allclose(network[4].running_var, variance, rtol=1e-9)

    network(images_of(-20.0))
    np.testing.assert_allclose(network[4].running_mean, mean, rtol=1e-9)
    assert [layer.training for layer in network] == [True, False, True, True, False, True]


def test_what_was_frozen_before_is_forgotten(network):
    freeze_statistics(network, lambda: images_of(-20.0))
    network.train()
    network(images_of(7.0))
    freeze_statistics(network, lambda: images_of(5.0))
    mean, _ = moments(network[0](images_of(5.0)))
    np.testing.assert_allclose(network[1].running_mean, mean, rtol=1e-12)


def test_training_again_uses_the_layers_own_momentum(network):
    network[1].momentum = 0.25
    freeze_statistics(network, lambda: images_of(5.0))
    before = network[1].running_mean.clone()
    network.train()
    network(images_of(7.0))
    mean, _ = moments(network[0](images_of(7.0)))
    np.testing.assert_allclose(network[1].running_mean, 0.75 * before.numpy() + 0.25 * mean, rtol=1e-12)


def test_without_batch_norm_no_images_are_asked_for():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(4, 4))
    freeze_statistics(network, lambda: pytest.fail("images were asked for"))
    assert network[1].training
