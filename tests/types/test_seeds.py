"""Every number is a function of what it is for."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.types.seeds import Streams, global_rng_from

# SHA-256 by coreutils: printf '[0,"pool",0]' | sha256sum | cut -c1-16, and so on; these numbers must never change.
GOLDEN = [
    ((0, 0, "pool"), 0xC3F003FF5DB00126),
    ((0, 0, "pool", 5, 1), 0x49AE9484ED4BDBAD),
    ((7, 2, "network", 0, 0), 0xAF8ED96CD555DDE4),
    ((-1, 0, "student", 3), 0xB5CAFFCF0EB64128),
]


@pytest.mark.parametrize(("what", "number"), GOLDEN)
def test_golden_numbers(what, number):
    seed, distillation, role, *index = what
    assert Streams(seed, distillation).number(role, *index) == number


def test_golden_draws():
    """Of torch's Mersenne Twister: they show a change of the generator or of its seeding."""
    generator = Streams(0).generator("pool", 5, 1)
    assert torch.randint(10**6, (3,), generator=generator).tolist() == [939764, 327152, 623417]


def test_streams_do_not_depend_on_order_or_on_the_global_generators():
    roles = [("pool", i) for i in range(5)] + [("real", i, c) for i in range(5) for c in range(3)]
    first = {role: torch.rand(2, generator=Streams(1, 2).generator(*role)) for role in roles}
    torch.manual_seed(99)
    random.seed(99)
    for role in reversed(roles):
        assert torch.equal(torch.rand(2, generator=Streams(1, 2).generator(*role)), first[role])
    assert len({tuple(draw.tolist()) for draw in first.values()}) == len(roles)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    torch.rand(5, generator=Streams(0).generator("pool"))
    assert torch.equal(torch.get_rng_state(), before)


@given(
    st.lists(
        st.tuples(st.integers(), st.integers(0), st.text(max_size=3), st.lists(st.integers(), max_size=3).map(tuple)),
        unique=True,
        min_size=2,
        max_size=5,
    )
)
def test_streams_of_different_things_differ(things):
    numbers = {Streams(seed, distillation).number(role, *index) for seed, distillation, role, index in things}
    assert len(numbers) == len(things)
    assert all(0 <= number < 2**64 for number in numbers)


def test_indices_cannot_be_confused():
    streams = Streams(0)
    assert streams.number("a", 1, 23) != streams.number("a", 12, 3) != streams.number("a1", 2, 3)
    assert Streams(1, 0).number("a") != Streams(0, 1).number("a")


def test_the_global_generator_is_seeded_and_given_back():
    def draws():
        with global_rng_from(Streams(0).generator("network")):
            return torch.rand(3)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = draws()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(draws(), first)


def test_the_global_generator_is_given_back_after_an_error():
    before = torch.get_rng_state()

    def fail():
        with global_rng_from(Streams(0).generator("network")):
            torch.rand(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)
