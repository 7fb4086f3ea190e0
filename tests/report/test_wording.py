"""The wording that all tables share."""

import pytest

from harness.report.tables.wording import (
    comma_list,
    copy_lines,
    describe_value,
    mark_lines,
    percent,
    protocol_lines,
    published_lines,
    spread_caption,
    spreads,
)


@pytest.mark.parametrize(
    ("fraction", "plain", "signed"),
    [(0.1234, "12.3", "+12.3"), (-0.1234, "−12.3", "−12.3"), (-0.0001, "0.0", "−0.0"), (0, "0.0", "+0.0")],
)
def test_percentages_have_a_true_minus_and_no_negative_zero(fraction, plain, signed):
    assert (percent(fraction), percent(fraction, signed=True)) == (plain, signed)


def test_spreads_that_are_unknown_are_left_out():
    assert [spreads(0.01, 0.02), spreads(0.01, None), spreads(None, None)] == ["±1.0 ±2.0", "±1.0", ""]
    assert "between distillations" in spread_caption(1, 2)
    assert "between distillations" not in spread_caption(2, 1)
    assert spread_caption(1, 1) == ""


def test_values_are_understood_without_a_heading():
    described = [describe_value("iterations", 1), describe_value("iterations", 20), describe_value("ipc", 10)]
    assert described == ["1 iteration", "20 iterations", "ipc 10"]
    assert describe_value("method", "dc") == "dc"


def test_captions_name_each_thing_once_and_only_what_is_there():
    assert comma_list(["b", None, "a", "b"]) == "b, a"
    assert protocol_lines(["plain v1", "plain v1"], [None]) == ["protocol: plain v1"]
    assert protocol_lines([None], []) == []
    assert mark_lines({"done", "failed", "diverged"}) == [
        "† the distillation diverged; its last set in range was scored", "✗ nothing could be scored"
    ]  # fmt: skip
    own = [("tiny-imagenet", "tinyimagenet"), ("fashion-mnist", "fashion-mnist"), ("cifar10[zca=true]", "cifar10")]
    assert not copy_lines(own)
    assert copy_lines([("mine", "cifar10"), ("cifar10", "cifar10"), ("other", None)]) == ["mine is a copy of cifar10"]
    assert published_lines(["B", "A", "B"]) == ["published: A", "published: B"]
