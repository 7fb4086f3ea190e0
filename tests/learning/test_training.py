"""Training by a recipe against SGD replayed in NumPy, float64, step by step."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness import DataError, Network, Recipe, cross_entropy, train_classifier
from harness.learning.training import batch_sizes

IMAGES = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def linear():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        network[1].weight.copy_(torch.arange(12.0, dtype=torch.float64).view(3, 4) / 10 - 0.5)
        network[1].bias.zero_()
    return network


def draw(role, epoch):
    return torch.Generator().manual_seed(1000 * len(role) + epoch)


def replay(rates, *, batch, momentum, decay, fresh_before=()):
    """Losses of each epoch and final weights of SGD, from the textbook."""
    inputs = np.c_[IMAGES.numpy().reshape(6, 4), np.ones(6)]
    weights = np.c_[np.arange(12).reshape(3, 4) / 10 - 0.5, np.zeros(3)]
    velocity, losses = np.zeros_like(weights), []
    for epoch, rate in enumerate(rates):
        if epoch in fresh_before:
            velocity[:] = 0
        order = torch.randperm(6, generator=draw("order", epoch)).numpy()
        total = 0.0
        for start in range(0, 6, batch):
            index = order[start : start + batch]
            logits = inputs[index] @ weights.T
            shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            right = LABELS.numpy()[index]
            total -= np.log(shares[np.arange(len(index)), right]).sum()
            gradient = (shares - np.eye(3)[right]).T @ inputs[index] / len(index) + decay * weights
            velocity = momentum * velocity + gradient
            weights = weights - rate * velocity
        losses.append(total / 6)
    return losses, weights


def assert_trained_as(recipe, rates, **how):
    network = linear()
    losses = train_classifier(network, IMAGES, LABELS, recipe, draw)
    expected, weights = replay(rates, batch=recipe.batch, momentum=recipe.momentum, decay=recipe.weight_decay, **how)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    np.testing.assert_allclose(network[1].weight.detach(), weights[:, :4], rtol=1e-9)
    np.testing.assert_allclose(network[1].bias.detach(), weights[:, 4], rtol=1e-9)


def test_plain_recipe_drops_the_rate_after_index_151_and_starts_with_fresh_momentum():
    rates = [0.01] * 152 + [0.001] * 149
    assert_trained_as(Recipe(epochs=301, lr=0.01, batch=4), rates, fresh_before={152})
    # The same replay with the old momentum, or with the drop an epoch off, is another training.
    right = replay(rates, batch=4, momentum=0.9, decay=5e-4, fresh_before={152})[0]
    for wrong in (
        replay(rates, batch=4, momentum=0.9, decay=5e-4)[0],
        replay([0.01] * 151 + [0.001] * 150, batch=4, momentum=0.9, decay=5e-4, fresh_before={151})[0],
    ):
        assert not np.allclose(right, wrong, rtol=1e-10)


def test_a_constant_rate_keeps_its_momentum():
    assert_trained_as(Recipe(epochs=30, lr=0.2, schedule="constant", batch=6, weight_decay=0.0), [0.2] * 30)


def test_a_cosine_rate_goes_to_zero():
    rates = [0.2 * (1 + math.cos(math.pi * epoch / 30)) / 2 for epoch in range(30)]
    assert_trained_as(Recipe(epochs=30, lr=0.2, schedule="cosine", batch=5), rates)


@pytest.mark.parametrize(("epochs", "last_high"), [(301, 151), (1001, 501), (101, 51)])
def test_step_schedule_drops_where_the_reference_does(epochs, last_high):
    recipe = Recipe(epochs=epochs)
    assert [recipe.rate(epoch) for epoch in range(epochs)] == pytest.approx(
        [0.01] * (last_high + 1) + [0.001] * (epochs - last_high - 1)
    )
    assert [epoch for epoch in range(epochs) if recipe.drops_after(epoch)] == [last_high]


@pytest.mark.parametrize(("name", "decoupled"), [("adam", False), ("adamw", True)])
def test_adam_is_the_textbooks(name, decoupled):
    network, recipe = linear(), Recipe(9, 0.05, name, "constant", weight_decay=0.01, batch=6)
    train_classifier(network, IMAGES, LABELS, recipe, draw)
    inputs = np.c_[IMAGES.numpy().reshape(6, 4), np.ones(6)]
    weights = np.c_[np.arange(12).reshape(3, 4) / 10 - 0.5, np.zeros(3)]
    first = second = np.zeros_like(weights)
    for step in range(1, 10):
        logits = inputs @ weights.T
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        gradient = (shares - np.eye(3)[LABELS.numpy()]).T @ inputs / 6
        if decoupled:
            weights = weights * (1 - 0.05 * 0.01)
        else:
            gradient = gradient + 0.01 * weights
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        weights = weights - 0.05 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(network[1].weight.detach(), weights[:, :4], rtol=1e-8)


def test_every_epoch_sees_every_image_once_in_another_order():
    seen = []

    def loss(batch):
        assert torch.equal(batch.images, IMAGES[batch.index])
        assert torch.equal(batch.labels, LABELS[batch.index])
        seen.append(batch.index)
        return cross_entropy(batch)

    losses = train_classifier(linear(), IMAGES, LABELS, Recipe(epochs=7, batch=4), draw, loss=loss)
    assert len(losses) == 7
    assert [len(index) for index in seen] == [4, 2] * 7
    orders = [tuple(torch.cat(seen[i : i + 2]).tolist()) for i in range(0, 14, 2)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(orders)) > 3


def test_images_are_augmented_anew_at_each_epoch_from_its_stream():
    seen = []

    def augment(images, generator):
        return images + torch.rand(len(images), generator=generator).view(-1, 1, 1, 1)

    def loss(batch):
        seen.append((batch.images - IMAGES[batch.index]).flatten(1)[:, 0])
        return cross_entropy(batch)

    train_classifier(linear(), IMAGES, LABELS, Recipe(epochs=2, batch=6), draw, loss=loss, augment=augment)
    for epoch, added in enumerate(seen):
        torch.testing.assert_close(added, torch.rand(6, generator=draw("augment", epoch)).double())


def test_training_stops_at_the_first_loss_that_is_not_finite():
    losses = train_classifier(linear(), IMAGES * 1e200, LABELS, Recipe(epochs=50, lr=1e200, batch=6), draw)
    assert 1 <= len(losses) < 50
    assert all(map(math.isfinite, losses[:-1]))
    assert not math.isfinite(losses[-1])


def test_no_epochs_leave_the_network_as_it_was():
    network = linear()
    assert train_classifier(network, IMAGES, LABELS, Recipe(epochs=0), draw) == []
    assert torch.equal(network[1].weight, linear()[1].weight)


def test_soft_labels_are_trained_on_as_hard_ones_where_they_say_the_same():
    hard, soft = linear(), linear()
    train_classifier(hard, IMAGES, LABELS, Recipe(epochs=5), draw)
    train_classifier(soft, IMAGES, torch.eye(3, dtype=torch.float64)[LABELS], Recipe(epochs=5), draw)
    torch.testing.assert_close(hard[1].weight, soft[1].weight, rtol=1e-12, atol=0)


# The last batch of an epoch


@given(images=st.integers(1, 700), batch=st.integers(1, 300))
def test_batches_are_equal_but_for_the_rest(images, batch):
    sizes = batch_sizes(images, batch, join_last=False)
    assert sizes == [len(part) for part in torch.split(torch.arange(images), batch)]


@given(images=st.integers(1, 700), batch=st.integers(1, 300))
def test_batches_hold_every_image_and_no_single_one_is_left_over(images, batch):
    sizes = batch_sizes(images, batch, join_last=True)
    assert sum(sizes) == images
    assert set(sizes[:-1]) <= {batch}
    assert sizes[-1] <= batch or (sizes[-1] == batch + 1 and images % batch == 1)
    assert 1 not in sizes or batch == 1 or images == 1


class OnePixel(Network):
    """Batch norm on features of one pixel, as at the end of a ResNet or a VGG."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(1), nn.Flatten())
        self.classifier = nn.Linear(1, 3)

    def features(self, images):
        return self.body(images)


@pytest.mark.parametrize(("batch", "left_over"), [(5, 1), (3, 0), (4, 2), (6, 0)])
def test_batch_norm_trains_whatever_is_left_over(batch, left_over):
    assert len(IMAGES) % batch == left_over
    losses = train_classifier(OnePixel(), IMAGES.float(), LABELS, Recipe(epochs=2, batch=batch), draw)
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize(("images", "batch"), [(1, 4), (6, 1)])
def test_a_batch_of_one_image_that_batch_norm_cannot_train_on_is_refused_with_the_remedy(images, batch):
    with pytest.raises(DataError, match=r"batch norm cannot train on one image .*: use a larger batch"):
        train_classifier(OnePixel(), IMAGES.float()[:images], LABELS[:images], Recipe(epochs=1, batch=batch), draw)


def test_another_error_of_a_network_stays_what_it_is():
    class Broken(OnePixel):
        def features(self, images):
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        train_classifier(Broken(), IMAGES.float(), LABELS, Recipe(epochs=1), draw)
