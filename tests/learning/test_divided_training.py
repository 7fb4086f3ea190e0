"""Training that counts steps or images, that goes on from call to call, and losses that draw random numbers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import CLASSES, data, draw_of, networks_of

from harness import CutMix, DrawingLoss, OptimizerState, Recipe, cross_entropy, train_classifier
from harness.learning.training import train_together
from mpdd_plugins.augmentations.dsa import dsa_augmentation

NAME = "mlp[width=8]"
OPTIMIZERS = ["sgd", "adam", "adamw", "lion", "lamb"]
AUGMENTS = {"none": None, "dsa": dsa_augmentation("crop+cutout"), "cutmix": CutMix(CLASSES, 0.5)}


def trained(recipe, spans=(None,), network=None, augment=None, batches=None, **more):
    """Losses, weights and state of a training that is divided among calls."""
    network, state, losses = network or networks_of(NAME, 1)[0], OptimizerState(), []

    def loss(batch):
        if batches is not None:
            batches.append(batch.index.tolist())
        return cross_entropy(batch)

    for span in spans:
        words = {"loss": loss, "augment": augment, "state": state, "span": span, **more}
        losses += train_classifier(network, *data(), recipe, draw_of(0), **words)
    return losses, network.state_dict(), state


def assert_equal(mine, other):
    assert mine.keys() == other.keys()
    for name in mine:
        assert torch.equal(mine[name], other[name]), name


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_epochs_in_two_calls_are_those_in_one(optimizer, schedule, augment):
    recipe = Recipe(7, 0.02, optimizer, schedule, batch=4, warmup=2)
    whole = trained(recipe, augment=AUGMENTS[augment])
    for split in (3, 5):
        parts = trained(recipe, [range(split), range(split, 7)], augment=AUGMENTS[augment])
        assert parts[0] == whole[0]
        assert_equal(parts[1], whole[1])
        assert_equal(parts[2].tensors, whole[2].tensors)
    assert whole[2].tensors


@settings(max_examples=30, deadline=None)
@given(
    splits=st.lists(st.integers(0, 11), max_size=4).map(sorted),
    optimizer=st.sampled_from(OPTIMIZERS),
    augment=st.sampled_from(sorted(AUGMENTS)),
    milestones=st.booleans(),
)
def test_steps_in_any_number_of_calls_are_those_in_one(splits, optimizer, augment, milestones):
    recipe = Recipe(0, 0.02, optimizer, "constant", batch=4, steps=11)
    if milestones:
        recipe = replace(recipe, schedule="milestones", milestones=(4, 9), factor=0.5)
    spans = [range(first, last) for first, last in zip([0, *splits], [*splits, 11], strict=True)]
    whole = trained(recipe, augment=AUGMENTS[augment])
    parts = trained(recipe, spans, augment=AUGMENTS[augment])
    assert_equal(parts[1], whole[1])
    assert_equal(parts[2].tensors, whole[2].tensors)


def test_a_state_goes_through_a_file_and_its_tensors_are_left_alone(tmp_path):
    from safetensors.torch import load_file, save_file

    recipe = Recipe(6, 0.02, "adamw", "constant", batch=4)
    whole, first, network = trained(recipe), OptimizerState(), networks_of(NAME, 1)[0]
    train_classifier(network, *data(), recipe, draw_of(0), state=first, span=range(2))
    save_file(first.tensors, tmp_path / "state")
    stored = load_file(tmp_path / "state")
    second = OptimizerState(dict(stored))
    train_classifier(network, *data(), recipe, draw_of(0), state=second, span=range(2, 6))
    assert_equal(network.state_dict(), whole[1])
    assert_equal(stored, first.tensors)
    assert not torch.equal(second.tensors["0.exp_avg"], stored["0.exp_avg"])


def test_without_a_state_an_optimiser_begins_anew():
    recipe, network = Recipe(4, 0.02, schedule="constant", batch=4), networks_of(NAME, 1)[0]
    for span in (range(2), range(2, 4)):
        train_classifier(network, *data(), recipe, draw_of(0), span=span)
    assert not torch.equal(network.classifier.weight, trained(recipe)[1]["classifier.weight"])


@pytest.mark.parametrize("optimizer", ["adam", "lion"])
def test_a_state_of_another_optimiser_or_network_is_refused(optimizer):
    state = trained(Recipe(1, 0.02, batch=4))[2]
    for network, kind in ((networks_of(NAME, 1)[0], optimizer), (networks_of("mlp[width=9]", 1)[0], "sgd")):
        with pytest.raises(ValueError, match="parameter 0 belongs to another network or optimiser"):
            train_classifier(network, *data(), Recipe(1, optimizer=kind), draw_of(0), state=state)
    few = OptimizerState({"99.momentum_buffer": torch.zeros(3)})
    with pytest.raises(ValueError, match="parameter 99"):
        train_classifier(networks_of(NAME, 1)[0], *data(), Recipe(1), draw_of(0), state=few)


@pytest.mark.parametrize("span", [range(-1, 2), range(3, 6), range(0, 4, 2)])
@pytest.mark.parametrize("recipe", [Recipe(5), Recipe(0, steps=5)])
def test_a_span_beyond_the_recipe_is_refused(span, recipe):
    with pytest.raises(ValueError, match="is not a span of the recipe's 5 epochs or steps"):
        train_classifier(networks_of(NAME, 1)[0], *data(), recipe, draw_of(0), span=span)


# --- steps and images -------------------------------------------------------------------------------------------------


def test_steps_pass_through_the_epochs_in_their_orders():
    by_epoch, by_step = [], []
    trained(Recipe(3, batch=4), batches=by_epoch)
    losses, *_ = trained(Recipe(0, batch=4, steps=8), batches=by_step)
    assert by_step == by_epoch[:8]  # epochs of 4, 4 and 1 images
    assert len(losses) == 3


@pytest.mark.parametrize(("images", "steps"), [(1, 1), (4, 1), (5, 2), (9, 3), (10, 4), (13, 4), (18, 6), (19, 7)])
def test_images_are_counted_up_to_the_step_that_reaches_them(images, steps):
    by_image, by_step = [], []
    trained(Recipe(0, batch=4, images=images), batches=by_image)
    trained(Recipe(0, batch=4, steps=steps), batches=by_step)
    assert by_image == by_step
    assert sum(map(len, by_image)) >= images > sum(map(len, by_image[:-1]))


def test_steps_of_whole_epochs_are_those_epochs():
    for schedule in ("constant", "milestones"):
        marks = {"milestones": (6,), "factor": 0.1} if schedule == "milestones" else {}
        by_step = trained(Recipe(0, 0.05, schedule=schedule, batch=4, steps=9, **marks))
        marks = {"milestones": (2,), "factor": 0.1} if schedule == "milestones" else {}
        by_epoch = trained(Recipe(3, 0.05, schedule=schedule, batch=4, **marks))
        assert by_step[0] == by_epoch[0]
        assert_equal(by_step[1], by_epoch[1])


def test_the_loss_of_a_part_of_an_epoch_is_the_mean_over_its_images():
    values = []

    def loss(batch):
        values.append((float(cross_entropy(batch).detach()), len(batch.index)))
        return cross_entropy(batch)

    network = networks_of(NAME, 1)[0]
    losses = train_classifier(network, *data(), Recipe(0, batch=4, steps=5), draw_of(0), loss=loss)
    for curve, part in zip(losses, (values[:3], values[3:]), strict=True):
        assert curve == pytest.approx(sum(v * n for v, n in part) / sum(n for _, n in part))


def test_networks_that_train_at_once_may_count_steps():
    recipe, draws = Recipe(0, 0.05, batch=4, steps=7), [draw_of(k) for k in range(3)]
    together, alone = networks_of(NAME), networks_of(NAME)
    curves = train_together(together, *data(), recipe, draws, [cross_entropy] * 3, AUGMENTS["cutmix"])
    for k in range(3):
        wanted = train_classifier(alone[k], *data(), recipe, draws[k], augment=AUGMENTS["cutmix"])
        assert curves[k] == pytest.approx(wanted, rel=1e-9)


# --- losses that draw -------------------------------------------------------------------------------------------------


class Smoothed(DrawingLoss):
    """Weights each image by a random number."""

    def draw(self, count, generator):
        return torch.rand(count, generator=generator, dtype=torch.float64)

    def __call__(self, batch):
        losses = torch.nn.functional.cross_entropy(batch.logits, batch.labels, reduction="none")
        return (losses * batch.numbers).mean()


@pytest.mark.parametrize("recipe", [Recipe(2, batch=4), Recipe(0, batch=4, steps=5)])
def test_a_loss_gets_the_numbers_that_it_draws_from_its_own_stream(recipe):
    seen = []

    class Watched(Smoothed):
        def __call__(self, batch):
            seen.append(batch.numbers)
            return super().__call__(batch)

    train_classifier(networks_of(NAME, 1)[0], *data(), recipe, draw_of(0), loss=Watched())
    if recipe.counts_epochs:
        wanted = [torch.rand(9, generator=draw_of(0)("loss", epoch), dtype=torch.float64) for epoch in range(2)]
        assert torch.equal(torch.cat(seen), torch.cat(wanted))
    else:
        for step, numbers in enumerate(seen):
            stream = draw_of(0)("loss", step)
            assert torch.equal(numbers, torch.rand(len(numbers), generator=stream, dtype=torch.float64))


def test_networks_that_train_at_once_draw_each_for_itself():
    draws, recipe = [draw_of(k) for k in range(3)], Recipe(2, 0.05, batch=4)
    together, alone = networks_of(NAME), networks_of(NAME)
    curves = train_together(together, *data(), recipe, draws, [Smoothed()] * 3)
    for k in range(3):
        assert curves[k] == pytest.approx(train_classifier(alone[k], *data(), recipe, draws[k], loss=Smoothed()))
    with pytest.raises(ValueError, match="all draw random numbers, or none"):
        train_together(networks_of(NAME), *data(), recipe, draws, [Smoothed(), cross_entropy, cross_entropy])


def test_a_loss_that_draws_nothing_has_no_stream():
    roles = []

    def draw(role, epoch):
        roles.append(role)
        return draw_of(0)(role, epoch)

    train_classifier(networks_of(NAME, 1)[0], *data(), Recipe(2), draw)
    assert roles == ["order", "order"]
