"""Names are read and written the same way, whatever stands in their options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.types.names import Name, expand, parse_name, split

WORDS = st.text("abcxyz019_.-", min_size=1, max_size=6)
VALUES = st.recursive(
    st.text('ab1 ,+=:[]"\n/', max_size=8),
    lambda inner: st.builds(lambda name, value: str(Name(name, (("k", value),))), WORDS, inner),
    max_leaves=3,
)
NAMES = st.builds(
    lambda name, options: Name(name, tuple(options.items())), WORDS, st.dictionaries(WORDS, VALUES, max_size=3)
)


@given(NAMES)
def test_a_name_is_read_as_it_was_written(name):
    assert parse_name(str(name)) == name


@given(st.text('ab1 ,+=:[]"', max_size=14))
def test_any_text_is_read_or_refused_and_what_is_read_is_stable(text):
    try:
        names = expand(text)
    except UsageError:
        return
    for name in names:
        assert parse_name(str(name)) == name


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("dc", {}),
        ("dc[]", {}),
        (" dc[ a = 1 , b=two ] ", {"a": "1", "b": "two"}),
        ("dist:dc[a=1,]", {"a": "1"}),
        ("p[main=vgg11[norm=batch]:0.9]", {"main": "vgg11[norm=batch]:0.9"}),
        ("p[of=a+b[x=1,y=2]+c]", {"of": "a+b[x=1,y=2]+c"}),
        ("p[main=a[b=c[d=1]]]", {"main": "a[b=c[d=1]]"}),
        ('f[path="/data/a,b [1]"]', {"path": "/data/a,b [1]"}),
        ('f[path="say ""hi"""]', {"path": 'say "hi"'}),
        ('f[path=""]', {"path": ""}),
        ("f[path=/a=b]", {"path": "/a=b"}),
        ('p[main=f[path="a,b"]]', {"main": 'f[path="a,b"]'}),
    ],
)
def test_reading(text, options):
    assert dict(parse_name(text).options) == options


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a[x=[1,2]]", ["a[x=1]", "a[x=2]"]),
        ("a[x=[1,2],y=[3,4]]", ["a[x=1,y=3]", "a[x=1,y=4]", "a[x=2,y=3]", "a[x=2,y=4]"]),
        ("a[x=[1]]", ["a[x=1]"]),
        ("a[x=b[y=[1,2]]]", ["a[x=b[y=1]]", "a[x=b[y=2]]"]),
        ("a[x=[b[y=1],c]]", ["a[x=b[y=1]]", "a[x=c]"]),
        ("a[x=b[y=[1,2]]+c]", ["a[x=b[y=1]+c]", "a[x=b[y=2]+c]"]),
        ('a[x=["1,2",3]]', ['a[x="1,2"]', "a[x=3]"]),
        ('a[x="[1,2]"]', ['a[x="[1,2]"]']),
    ],
)
def test_sweeps_multiply_out_with_the_last_option_fastest(text, names):
    assert [str(name) for name in expand(text)] == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a name"),
        ("[a=1]", "is not a name"),
        ("a b", "cannot be read after 'a'"),
        ("a[x=1", "cannot be read after 'a'"),
        ("a[x=1]b", "cannot be read after 'a'"),
        ("a[x=1][y=2]", "do not close"),
        ("a[x=[1]", "do not close"),
        ('a[x="1]', "do not close"),
        ("a[x]", "'x' in 'a\\[x\\]' is not option=value"),
        ("a[x=]", "is not option=value"),
        ("a[=1]", "is not option=value"),
        ("a[x y=1]", "is not option=value"),
        ("a[x=1,x=2]", r"given twice.*to sweep, write x=\[a,b\]"),
        ("a[x=b[y]]", "is not option=value"),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(UsageError, match=message):
        expand(text)


def test_a_sweep_is_no_single_name():
    with pytest.raises(UsageError, match="sweeps, which is only possible"):
        parse_name("a[x=[1,2]]")


def test_defaults_fill_in_what_was_not_given():
    assert parse_name("a[x=1]").with_defaults({"x": "2", "y": "3"}) == parse_name("a[x=1,y=3]")


def test_splitting_respects_brackets_and_quotes():
    assert split('a,b[c,d],"e,f",', ",") == ["a", "b[c,d]", '"e,f"', ""]
