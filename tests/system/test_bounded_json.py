"""JSON of unknown origin is read within limits, or refused with a reason."""

import json

import pytest

from harness.system.bounded_json import JsonLimits, check_depth, parse_object


def nested(depth):
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


@pytest.mark.parametrize("depth", [1, 8, 64, 100])
def test_depth_is_counted_to_the_level(depth):
    limits = JsonLimits(depth=depth)
    assert parse_object(nested(depth), limits) == json.loads(nested(depth))
    with pytest.raises(ValueError, match=f"nested more than {depth} deep"):
        parse_object(nested(depth + 1), limits)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, nested(100_000)])
def test_no_depth_reaches_the_parser(content):
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        parse_object(content)


def test_brackets_in_text_are_no_levels():
    check_depth(json.dumps({"a": '[[[["\\[[[[' * 100}).encode(), 1)


def test_limits_are_the_callers():
    wide = JsonLimits(digits=200, allows_infinity=True)
    content = b'{"a": ' + b"9" * 150 + b', "b": -Infinity, "c": 1e999}'
    assert parse_object(content, wide) == {"a": int("9" * 150), "b": float("-inf"), "c": float("inf")}
    for part in (b'{"a": ' + b"9" * 150 + b"}", b'{"b": -Infinity}', b'{"c": 1e999}'):
        with pytest.raises(ValueError, match=r"it has (the number|a whole number)"):
            parse_object(part)


@pytest.mark.parametrize("limits", [JsonLimits(), JsonLimits(depth=100, digits=4300, allows_infinity=True)])
def test_a_name_that_comes_twice_is_refused(limits):
    with pytest.raises(ValueError, match="the name 'a' twice"):
        parse_object(b'{"b": {"a": 1, "a": 2}}', limits)
