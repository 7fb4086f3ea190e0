"""Options arrive as text, are checked, and are written as text that is read back."""

from typing import Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.types.names import Name, parse_name
from harness.types.options import NameList, Options, option


class Sample(Options):
    rate: float = option(0.1, "a rate", source="someone", gt=0, le=10)
    count: int = option(3, "a count", ge=1)
    depth: int | None = option(None, "blocks; auto: by size", ge=1)
    height: int | None = option(2, "auto: none")
    mode: Literal["one", "two"] = option("one", "a mode")
    way: Literal["one", "two"] | None = option(None, "a way; auto: by size")
    fast: bool = option(False, "whether fast")
    of: NameList = option(("a", "b[c=1]"), "names")
    text: str = option("plain", "any text")

    @pydantic.field_validator("text")
    @classmethod
    def _not_bad(cls, text):
        if text == "bad":
            raise ValueError("should be good")
        return text


class Needy(Options):
    path: str = option(..., "where it is")


def read(text):
    return Sample.from_name(parse_name(text))


def test_defaults():
    assert read("s") == Sample()
    assert read("s").changed() == {}


def test_text_is_converted():
    options = read("s[rate=1e-3,count=4,depth=2,mode=two,fast=true,of=x+y[k=1],text=7]")
    assert (options.rate, options.count, options.depth) == (0.001, 4, 2)
    assert (options.mode, options.fast, options.of, options.text) == ("two", True, ("x", "y[k=1]"), "7")


def test_auto_is_unset_where_an_option_may_be_unset():
    assert read("s[depth=auto]").depth is None
    assert read("s[height=auto]").height is None
    assert read("s[text=auto]").text == "auto"


@given(
    st.builds(
        Sample,
        rate=st.floats(1e-300, 10),
        count=st.integers(1),
        depth=st.none() | st.integers(1, 9),
        height=st.none() | st.integers(),
        mode=st.sampled_from(["one", "two"]),
        fast=st.booleans(),
        of=st.lists(st.sampled_from(["a", "b", "c[d=1]", "c[d=e[f=2],g=3]"])).map(tuple),
        text=st.text('ab ,[]"=+').filter(lambda text: text != "bad"),
    )
)
def test_what_changed_is_read_back(options):
    name = Name("s", tuple(options.changed().items()))
    assert Sample.from_name(parse_name(str(name))) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s[cuont=1]", "'s' has no option 'cuont': did you mean 'count'?"),
        ("s[rate=0]", "s[rate=0]: should be greater than 0"),
        ("s[rate=11]", "s[rate=11]: should be less than or equal to 10"),
        ("s[rate=x]", "s[rate=x]: should be a valid number, unable to parse string as a number"),
        ("s[count=1.5]", "s[count=1.5]: should be a valid integer, unable to parse string as an integer"),
        ("s[mode=three]", "s[mode=three]: should be 'one' or 'two'"),
        ("s[count=auto]", "s[count=auto]: should be a valid integer, unable to parse string as an integer"),
        ("s[text=bad]", "s[text=bad]: should be good"),
    ],
)
def test_errors_are_one_line_that_names_the_option(text, message):
    with pytest.raises(UsageError) as caught:
        read(text)
    assert str(caught.value) == message


def test_an_option_that_must_be_given():
    with pytest.raises(UsageError, match=r"'n' needs its option 'path': write n\[path=...\]"):
        Needy.from_name(Name("n"))
    with pytest.raises(UsageError, match="'n' has no option 'x': it takes no options"):
        Options.from_name(parse_name("n[x=1]"))


def test_an_error_of_several_options_together_names_the_component():
    class Pair(Sample):
        @pydantic.model_validator(mode="after")
        def _fit(self):
            raise ValueError("rate and count do not fit")

    with pytest.raises(UsageError, match=r"^s: rate and count do not fit$"):
        Pair.from_name(parse_name("s"))


def test_options_are_frozen():
    with pytest.raises(pydantic.ValidationError):
        Sample().rate = 2


def test_description_of_every_option():
    described = {row.pop("name"): row for row in Sample.describe()}
    assert described["rate"] == {"type": "float", "default": "0.1", "meaning": "a rate", "source": "someone"}
    assert {key: (row["type"], row["default"]) for key, row in described.items()} == {
        "rate": ("float", "0.1"),
        "count": ("int", "3"),
        "depth": ("int | auto", "auto"),
        "height": ("int | auto", "2"),
        "mode": ("one|two", "one"),
        "way": ("one|two|auto", "auto"),
        "fast": ("bool", "false"),
        "of": ("names joined by +", "a+b[c=1]"),
        "text": ("str", "plain"),
    }
    assert [row["default"] for row in Needy.describe()] == ["required"]


def test_every_option_goes_into_the_key():
    assert set(Sample().as_json()) == set(Sample.model_fields)
    assert Sample().as_json()["of"] == ["a", "b[c=1]"]


class Keyword(Options):
    as_: str = option("plain", "an option that is a keyword of Python", source="")


def test_an_option_may_be_a_keyword_of_python():
    typed = Keyword.from_name(parse_name("k[as=other]"))
    assert typed.as_ == "other"
    assert typed.changed() == {"as": "other"}
    assert typed.as_json() == {"as": "other"}
    assert [row["name"] for row in Keyword.describe()] == ["as"]
    assert Keyword(as_="other") == typed
    with pytest.raises(UsageError, match="no option 'has': did you mean 'as'"):
        Keyword.from_name(parse_name("k[has=1]"))
