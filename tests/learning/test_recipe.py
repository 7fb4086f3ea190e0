"""Recipes: lengths, schedules, keys and what is refused."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR

from harness import Recipe
from harness.learning.training import batch_sizes

LENGTHS = st.integers(1, 400)


def rates_of_torch(epochs, make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.3)
    schedule, rates = make(optimizer), []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@given(
    epochs=st.integers(1, 60),
    milestones=st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True).map(sorted).map(tuple),
    factor=st.floats(0.05, 2),
)
def test_milestones_are_those_of_torch(epochs, milestones, factor):
    recipe = Recipe(epochs, 0.3, schedule="milestones", milestones=milestones, factor=factor)
    wanted = rates_of_torch(epochs, lambda optimizer: MultiStepLR(optimizer, milestones, factor))
    assert [recipe.rate(epoch) for epoch in range(epochs)] == pytest.approx(wanted, rel=1e-9)
    assert not any(recipe.drops_after(epoch) for epoch in range(epochs)), "the momentum is kept"


@given(epochs=st.integers(2, 60), warmup=st.integers(2, 20))
def test_a_warm_up_rises_to_the_rate_and_a_cosine_anneals_over_the_rest(epochs, warmup):
    recipe = Recipe(epochs + warmup, 0.3, schedule="cosine", warmup=warmup)
    rising = rates_of_torch(warmup, lambda optimizer: LinearLR(optimizer, 1 / warmup, 1.0, warmup - 1))
    falling = rates_of_torch(epochs, lambda optimizer: CosineAnnealingLR(optimizer, epochs))
    rates = [recipe.rate(epoch) for epoch in range(epochs + warmup)]
    assert rates == pytest.approx(rising + falling, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("schedule", ["step", "constant"])
def test_any_schedule_may_begin_with_a_warm_up(schedule):
    plain = Recipe(21, 0.4, schedule=schedule)
    warm = replace(plain, warmup=4)
    assert [warm.rate(epoch) for epoch in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert [warm.rate(epoch) for epoch in range(4, 21)] == [plain.rate(epoch) for epoch in range(4, 21)]


def test_a_warm_up_may_be_longer_than_the_training():
    assert Recipe(3, 1.0, schedule="cosine", warmup=4).rate(2) == pytest.approx(0.75)


@given(images=LENGTHS, batch=LENGTHS, wanted=st.integers(1, 3000), join_last=st.booleans())
def test_a_recipe_that_counts_images_ends_with_the_step_that_reaches_them(images, batch, wanted, join_last):
    sizes = batch_sizes(images, batch, join_last=join_last)
    steps, seen = 0, 0
    while seen < wanted:
        seen += sizes[steps % len(sizes)]
        steps += 1
    assert Recipe(0, images=wanted, batch=batch).units(sizes) == steps


def test_units_are_epochs_or_else_steps():
    assert Recipe(7).units([4, 2]) == 7
    assert Recipe(7).counts_epochs
    assert Recipe(0, steps=7).units([4, 2]) == 7
    assert not Recipe(0, steps=7).counts_epochs
    assert not Recipe(0, images=7).counts_epochs


def test_schedules_run_over_steps_where_steps_are_counted():
    by_step, by_epoch = Recipe(0, steps=50, schedule="cosine"), Recipe(50, schedule="cosine")
    assert [by_step.rate(step) for step in range(50)] == [by_epoch.rate(epoch) for epoch in range(50)]
    assert Recipe(0, images=99, schedule="cosine").rate(10, 50) == by_epoch.rate(10)
    with pytest.raises(ValueError, match="name the total"):
        Recipe(0, images=99, schedule="cosine").rate(10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 5}, "not epochs=301 and steps=5: leave one of them, and set epochs=0"),
        ({"epochs": 3, "images": 5}, "not epochs=3 and images=5"),
        ({"epochs": 0, "images": 5, "steps": 2}, "not steps=2 and images=5"),
        ({"epochs": 0, "steps": 0}, "at least one step or image, not steps=0"),
        ({"epochs": 0, "images": -3}, "at least one step or image, not images=-3"),
        ({"schedule": "milestones"}, "set both"),
        ({"milestones": (3,)}, "set both"),
        ({"schedule": "milestones", "milestones": (5, 3)}, r"ascending and from 1 on, not \(5, 3\)"),
        ({"schedule": "milestones", "milestones": (5, 5)}, "ascending"),
        ({"schedule": "milestones", "milestones": (0, 5)}, "from 1 on"),
        ({"factor": 0.0}, "above 0, not 0"),
        ({"factor": -0.1}, "above 0"),
        ({"factor": math.nan}, "finite number above 0"),
        ({"factor": math.inf}, "finite number above 0"),
        ({"warmup": -1}, "warm-up"),
    ],
)
def test_what_is_no_recipe_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


def test_keys_of_artifacts_hold_later_fields_only_if_they_are_set():
    first = ["epochs", "lr", "optimizer", "schedule", "momentum", "weight_decay", "batch"]
    assert Recipe(5).identity() == {key: asdict(Recipe(5))[key] for key in first}
    recipe = Recipe(0, schedule="milestones", milestones=(3, 4), factor=0.2, steps=9, warmup=2)
    later = {"milestones": [3, 4], "factor": 0.2, "steps": 9, "warmup": 2}
    assert recipe.identity() == {key: asdict(recipe)[key] for key in first} | later
    assert Recipe(0, images=4).identity()["images"] == 4
