"""The table as it is read in a pipe: every word of it."""

import io

import pytest
from studies import ddbench, small_words

from harness.report.published import published_for
from harness.report.tables.run_table import print_table

ROW = {
    "dataset": "folder[path=x,like=cifar10]",
    "ipc": 1,
    "iterations": 1000,
    "method": "dc",
    "pool": "single",
    "evaluator": "plain",
    "architecture": "convnet",
    "mean": 0.28364,
    "median": 0.28,
    "std_students": 0.0071,
    "std_distillations": None,
    "students": 10,
    "distillations": 1,
    "collapsed": 0,
    "status": "done",
    "protocol": "plain v1",
    "seed": 0,
    "device": "cpu",
    "score_on": "test",
    "like": "cifar10",
    "preprocessing": "cifar10",
}


def printed(*rows, notes=()):
    file = io.StringIO()
    print_table([{**ROW, **row} for row in rows], notes, file)
    return file.getvalue()


def test_mean_and_spread_in_percent():
    text = printed({}, {"architecture": "mlp", "mean": 0.2, "std_students": None})
    assert "28.4±0.7" in text
    assert " 20.0 " in text
    assert "folder[path=x,like=cifar10] is a copy of cifar10" in text
    assert "10 students on each of 1 distillation, seed 0" in text
    assert "protocol: plain v1; device: cpu" in text


def test_both_levels_of_spread():
    text = printed({"std_distillations": 0.0123, "distillations": 3})
    assert "28.4±0.7 ±1.2" in text
    assert "between distillations" in text


@pytest.mark.parametrize(
    ("status", "mark", "word"),
    [("diverged", "†", "diverged"), ("blown up", "‡", "8 times"), ("incomplete", "…", "not all students")],
)
def test_marks_and_their_meaning(status, mark, word):
    text = printed({"status": status}, {"architecture": "mlp"})
    assert f"28.4±0.7{mark}" in text
    assert text.count(mark) == 2
    assert word in text
    assert mark not in printed({})


def test_what_failed_has_no_number():
    nothing = {"mean": None, "median": None, "std_students": None, "status": "failed", "students": 0, "device": None}
    text = printed({**nothing, "architecture": "mlp"}, {})
    assert "–✗" in text
    assert "✗ nothing could be scored" in text


def test_collapsed_students_are_counted():
    text = printed({"collapsed": 3})
    assert "(3 collapsed)" in text
    assert "99 %" in text


def test_a_pipe_gets_every_word_however_wide_the_table():
    names = [f"torchvision[model=a_network_with_a_long_name_{k},weights_of_what=none]" for k in range(14)]
    rows = [
        {"architecture": name, "method": method, "pool": f"mix[of={'+'.join(['convnet[width=64]:1'] * 9)}]"}
        for name in names
        for method in ("dc", "dc[batch_real=64,distance=mse,init=real,lr_img=0.123456789,momentum_img=0.987654321]")
    ]
    text = printed(*rows)
    for row in rows:
        for key in ("architecture", "method", "pool"):
            assert row[key] in text
    assert "…" not in text
    assert "..." not in text
    assert "\x1b" not in text


def test_names_with_markup_are_text():
    names = {"dataset": "arrays[path=/[bold]/[/red]/:smile:.npz]", "architecture": "mlp[bold]", "method": "dc[red]"}
    text = printed({**names, "like": "cifar10"}, {**names, "method": "dc[/red]"}, notes=["a [bold]note[/bold] :cat:"])
    for name in (*names.values(), "dc[/red]", "a [bold]note[/bold] :cat:"):
        assert name in text


def test_no_rows_are_an_empty_table():
    file = io.StringIO()
    print_table([], file=file)
    assert "0 students on each of 0 distillations" in file.getvalue()


def test_lines_differ_by_what_varies():
    text = printed({"pool": "single"}, {"pool": "main-similar"})
    header = next(line for line in text.splitlines() if "convnet" in line)
    assert "pool" in header
    assert "method" not in header
    assert "ipc 1" in text
    assert "1000 iterations" in text


# --- published numbers ------------------------------------------------------------------------------------------------

PUBLISHED = {"pool": "total-random", "architecture": "mlp"}


def test_a_published_number_stands_beside_ours():
    text = printed(PUBLISHED)
    assert "published" in text
    assert "10.3" in text
    assert "model pool" in text
    reference = published_for({**ROW, **PUBLISHED})
    assert reference.accuracy == 10.29


@pytest.mark.parametrize(
    "departure",
    [
        {"like": None},
        {"like": "mnist"},
        {"preprocessing": "auto"},
        {"ipc": 2},
        {"iterations": 999},
        {"method": "dc[lr_img=1]"},
        {"pool": "total-random[x=1]"},
        {"protocol": "plain quick v1"},
        {"protocol": "plain v1 + lr=0.02"},
        {"architecture": "mlp[width=64]"},
        {"score_on": "validation"},
    ],
)
def test_published_numbers_are_for_their_own_protocol_only(departure):
    assert published_for({**ROW, **PUBLISHED, **departure}) is None
    assert "published" not in printed({**PUBLISHED, **departure})


def test_a_run_in_a_pipe(data, tmp_path):
    result = ddbench("run", *small_words(data, tmp_path, iterations="0,2"), "--architecture", "mlp[width=6]")
    assert result.exit_code == 0
    for word in ("mlp[width=8]", "mlp[width=6]", "iterations", str(data), "protocol", "distillation"):
        assert word in result.stdout
    assert "…" not in result.stdout
    assert "published" not in result.stdout


# --- beneath the table ------------------------------------------------------------------------------------------------


def test_footers_have_no_empty_fields():
    nothing = {"mean": None, "median": None, "std_students": None, "status": "failed", "students": 0, "device": None}
    text = printed(nothing)
    assert "protocol: plain v1\n" in text
    assert "device" not in text
    for line in printed().splitlines():
        assert not line.rstrip().endswith((":", ";", ",", "seed"))


def test_one_of_anything_is_no_plural():
    text = printed({"students": 1, "std_students": None, "iterations": 1})
    assert "1 student on each of 1 distillation," in text
    assert "1 iteration  " in text
