"""Plans are counted before they are made, and nothing absurd is made at all: one line, at once."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import SMALL, ddbench, small_words

import harness
from harness.api.runs import plan_request
from harness.errors import LONGEST_MESSAGE, UsageError, shortened
from harness.planning.plan_size import check_size
from harness.planning.planner import Planner
from harness.planning.request import LARGEST_CONFIG, MOST_ITERATIONS, MOST_POINTS, request_from
from harness.plugins.discovery import plugins
from harness.types.names import count_variants, expand

DIGITS = ",".join(map(str, range(1, 20_000)))
TEN = "[1,2,3,4,5,6,7,8,9,10]"
NINE_SWEEPS = ",".join(f"{name}={TEN}" for name in ("lr_img", "lr_net", "batch_real", "batch_train", "outer", "inner",
                                                     "batch_statistics")) + ",distance=[mse,cosine]"  # fmt: skip


def refused(data, tmp_path, **changes):
    """The one line by which a dry run refuses a request."""
    result = ddbench("run", *small_words(data, tmp_path / "store", **changes), "--dry-run")
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("ddbench: error: ")
    assert len(line) < LONGEST_MESSAGE + 100
    assert os.listdir(tmp_path) == []
    return line


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"students": 10**9}, "1,000,000,001 sets and students"),
        ({"distillations": 10**9}, "3,000,000,000"),
        ({"method": f"dc[{NINE_SWEEPS}]"}, "60,000,000"),
        ({"method": f"dc[lr_img=[{DIGITS}]]", "students": 10}, "219,989"),
        ({"method": f"dc[lr_img=[[{DIGITS}],[0.5]]]", "students": 10}, "220,000"),
        ({"pool": f"main-similar[others={'+'.join(['convnet[width=[4,8]]'] * 20)}]"}, "3,145,728"),
        ({"evaluator": f"plain[epochs={TEN},lr={TEN}]", "architecture": f"mlp[width=[{DIGITS}]]"}, "3,999,801"),
        ({"ipc": ",".join(map(str, range(1, 40_000)))}, "119,997"),
        ({"dataset": f"arrays[path=[{DIGITS}]]", "students": 10}, "219,989"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_counts_are_multiplied_before_anything_is_made(data, tmp_path, changes, number):
    line = refused(data, tmp_path, **changes)
    assert number in line
    assert "--max-cells" in line


def test_the_limit_is_an_option_a_key_and_an_argument(data, tmp_path):
    assert "3 sets and students, more than --max-cells 2:" in refused(data, tmp_path, max_cells=2)
    assert ddbench("run", *small_words(data, tmp_path / "s", max_cells=3), "--dry-run").exit_code == 0
    config = tmp_path / "a.toml"
    config.write_text("max-cells = 2")
    result = ddbench("run", *small_words(data, tmp_path / "s"), "--config", config, "--dry-run")
    assert "more than --max-cells 2" in result.stderr
    with pytest.raises(UsageError, match="more than --max-cells 2"):
        harness.run(**SMALL, dataset=f"arrays[path={data}]", store=tmp_path / "s", max_cells=2)
    with pytest.raises(UsageError, match="max_cells is 0"):
        request_from({"max_cells": 0})


def test_a_file_is_counted_too(data, tmp_path):
    result = ddbench("eval", tmp_path / "none.pt", "--dataset", f"arrays[path={data}]", "--students", 10**9)
    assert result.exit_code == 2
    assert "sets and students" in result.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "random", "pool": "single,main-similar", "iterations": (1, 2, 3)},
        {
            "method": "dc[lr_img=[1,2]],random,whole",
            "ipc": (1, 2),
            "pool": ["single", "main-similar"],
        },
        {"evaluator": ("plain", "kd"), "architecture": "mlp,lenet", "distillations": 2, "iterations": (1, 2)},
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_count_is_that_of_the_plan(data, tmp_path, changes):
    values = {**SMALL, "dataset": f"arrays[path={data}]", "store": str(tmp_path / "s"), "evaluator": "plain", **changes}
    cells = plan_request(request_from(values)).cells
    count = sum(cell["kind"] != "artifact" for cell in cells)
    check_size(Planner(request_from({**values, "max_cells": count}), plugins().registry))
    with pytest.raises(UsageError, match=f"has {count:,} sets and students"):
        check_size(Planner(request_from({**values, "max_cells": count - 1}), plugins().registry))


@settings(deadline=None)
@given(st.recursive(st.sampled_from(["1", "ab", "x"]), lambda part: st.builds(
    lambda parts, form: form.format(*parts), st.lists(part, min_size=2, max_size=2),
    st.sampled_from(["[{},{}]", "n[a={},b={}]", "n[a={}]+m[b={}]"])), max_leaves=5))  # fmt: skip
def test_as_many_names_are_made_as_were_counted(value):
    text = f"dc[k={value}]"
    assert count_variants(text) == ("dc", len(expand(text)))


def test_a_text_that_stands_for_too_many_names_is_refused():
    with pytest.raises(UsageError, match="stands for 1,000,000 names, more than 10,000"):
        expand(f"a[{','.join(f'k{index}={TEN}' for index in range(6))}]")
    assert count_variants(f"a[{','.join(f'k{index}={TEN}' for index in range(60))}]")[1] == 10**60


# --- absurd values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"iterations": 10**9}, f"at most {MOST_ITERATIONS:,}"),
        ({"iterations": ",".join(map(str, range(MOST_POINTS + 1)))}, f"at most {MOST_POINTS:,}"),
        ({"architecture": "convnet[depth=100000]"}, "make it less deep"),
        ({"pool": "single[main=convnet[depth=100000]]"}, "make it less deep"),
        ({"evaluator": "kd[teacher=convnet[depth=100000]]"}, "make it less deep"),
        ({"architecture": "mlp[width=1000000]"}, "less wide"),
        ({"architecture": "convnet[width=99999999999999999999]"}, "cannot be built"),
        ({"architecture": f"convnet[width={'9' * 10**5}]"}, "integer"),
        ({"method": f"dc[lr_img={'1' * 10**6}]"}, "lr_img"),
        ({"method": "dc" + "[" * 100_000 + "]" * 100_000}, "nest more than"),
        ({"method": "dc[a=" * 1000 + "1" + "]" * 1000}, "nest more than"),
        ({"method": "x" * 10**6}, "there is no method"),
        ({"method": "dc[" + "x" * 10**6 + "=1]"}, "has no option"),
        ({"method": "dc[lr_img=\x1b[31m\x07]"}, "lr_img"),
        ({"ipc": "1" * 5000}, "whole numbers"),
        ({"set": "dc.lr_img=" + f"[{DIGITS}]"}, "a sweep belongs to a name"),
        ({"set": "dc.lr_img=1,dc.lr_nt=2"}, "'lr_net'"),
        ({"dataset": f"arrays[path={'z' * 10**5}]"}, "File name too long"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_absurd_values_are_one_line_no_longer_than_a_screen(data, tmp_path, changes, says):
    line = refused(data, tmp_path, **changes)
    assert says in line
    assert "\x1b" not in line


def test_an_architecture_that_is_shown_is_not_built_without_end():
    result = ddbench("architectures", "show", "convnet[depth=100000]")
    assert result.exit_code == 0
    assert "make it less deep" in result.stdout


@given(st.text(max_size=3000))
def test_a_message_keeps_its_beginning_and_its_end(text):
    message = f"the thing: {text}: the remedy"
    short = shortened(message)
    assert len(short) <= LONGEST_MESSAGE
    assert short.startswith("the thing: ")
    assert short.endswith("the remedy")
    assert short == message or len(message) > LONGEST_MESSAGE


# --- the config file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbfstudents = 3\n", b"students = 3\r\n", b"# " + b"." * 500 + b"\nstudents = 3", b"students = 3"],
    ids=["byte order mark", "line ends of Windows", "a comment of dots", "plain"],
)
def test_a_config_file_that_can_be_read(data, tmp_path, content):
    (tmp_path / "a.toml").write_bytes(content)
    words = small_words(data, tmp_path / "store", students=None)
    result = ddbench("run", *words, "--config", tmp_path / "a.toml", "--dry-run")
    assert "4 of 4 cells are missing" in result.stdout, result.output


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("students = 3".encode("utf-16"), "encoded in UTF-16: save it as UTF-8"),
        (b"\xfe\xff" + "students = 3".encode("utf-16-be"), "encoded in UTF-16"),
        ("method = 'é'".encode("latin-1"), "not encoded in UTF-8 (byte 11)"),
        (b"method = " + b"[" * 100_000, "nest too deep"),
        (b"method = " + b"{a=" * 100_000, "nest too deep"),
        (b"method" + b".a" * 400_000 + b" = 1", "more than 50 parts"),
        (b"x = {a" + b' . "a"' * 100_000 + b" = 1}", "more than 50 parts"),
        (b"method" + b".a" * 40 + b" = 1", "method"),
        (b"students = " + b"1" * 10**6, "too many digits"),
        (
            b"method = 'random'\nstudents = " + b"1" * 30,
            "222,222,222,222,222,222,222,222,222,223 sets",
        ),
        (b"method = 'random'\nstudents = " + b"9" * 4299, "more than 10^40 sets and students"),
        (b"#" * (LARGEST_CONFIG + 1), "larger than 1 MB"),
        (b"students = \x00", "Invalid value"),
        (b'method = "random"\nevaluator = "a\\u0000b"', "null character"),
        (b"", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_config_file_that_cannot_be_read_is_one_line(data, tmp_path, content, says):
    (tmp_path / "a.toml").write_bytes(content)
    words = small_words(data, tmp_path / "store", students=None, method=None, evaluator=None)
    result = ddbench("run", *words, "--config", tmp_path / "a.toml", "--dry-run")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert (says or "no method was given") in result.stderr
    assert len(result.stderr) < LONGEST_MESSAGE + 100


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_a_config_that_is_no_plain_file(tmp_path, make):
    make(tmp_path / "a.toml")
    result = ddbench("run", "--config", tmp_path / "a.toml", "--dry-run")
    assert result.exit_code == 2
    assert "a.toml" in result.stderr


# --- several names in one word ----------------------------------------------------------------------------------------


def test_names_are_separated_by_commas(data, tmp_path):
    evaluators = "plain[epochs=1], kd[epochs=1,teacher=mlp[width=8]]"
    words = small_words(data, tmp_path / "s", architecture="mlp[width=8],convnet[width=4,depth=2]", students=1,
                        evaluator=evaluators, method="random,whole")  # fmt: skip
    again = small_words(data, tmp_path / "s", architecture=None, students=1, evaluator=None, method=None)
    for option, name in (("-a", "mlp[width=8]"), ("-a", "convnet[width=4,depth=2]"), ("-e", "plain[epochs=1]"),
                         ("-e", "kd[epochs=1,teacher=mlp[width=8]]"), ("-m", "random"), ("-m", "whole")):  # fmt: skip
        again += [option, name]
    result = ddbench("run", *words, "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout == ddbench("run", *again, "--dry-run").stdout
    assert request_from({"dataset": 'folder[path="a,b"],digits'}).dataset == ('folder[path="a,b"]', "digits")
    for text in ("mlp,", ",mlp", "mlp,,lenet", "mlp[width=8,lenet"):
        result = ddbench("run", *small_words(data, tmp_path / "s", architecture=text), "--dry-run")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), text


def test_a_plan_near_the_limit_needs_no_network_for_each_of_its_cells(data, tmp_path, monkeypatch):
    from harness.architectures.mlp import MLP

    built = []
    whole = MLP.network
    monkeypatch.setattr(MLP, "network", lambda self, *a: built.append(1) or whole(self, *a))
    method = f"dc[lr_img=[{','.join(map(str, range(1, 60)))}]]"
    words = small_words(data, tmp_path / "s", method=method, pool="single[main=mlp[width=8]]", students=1)
    assert ddbench("run", *words, "--dry-run").exit_code == 0
    assert len(built) < 10
