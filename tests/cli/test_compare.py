"""``ddbench compare`` as it is typed: names, filters, formats and errors."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import pytest
from studies import ddbench, small_run
from synthetic import ARCHITECTURES, set_record, student_record, study, write_store
from terminals import on_a_terminal

FORMATS = ("terminal", "markdown", "csv", "latex", "json")
EVIL = {
    "method": "m[bold]x[/bold]|y`z`<script>alert(1)</script>",
    "architecture": "mlp[red]*_~#$![a](javascript:b)",
    "pool": "p\x1b[31m\x07\nq :smile:",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two methods through three pools, two evaluators, three architectures; each command reads all of them again."""
    records = study(methods=("dc", "dm"), pools=("single", "main-similar", "main-model"), evaluators=("plain", "kd"),
                    iterations=(100, 1000), architectures=ARCHITECTURES[:3], distillations=2)  # fmt: skip
    return write_store(tmp_path_factory.mktemp("many") / "store", records)


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    records = []
    for pool in ("single", EVIL["pool"]):
        for distillation in (0, 1):
            of = set_record(method=EVIL["method"], pool=pool, distillation=distillation)
            scores = (0.3 + 0.1 * distillation * (pool != "single"), 0.35)
            records += [of, *(student_record(of, architecture=EVIL["architecture"], student=student, accuracy=accuracy)
                              for student, accuracy in enumerate(scores))]  # fmt: skip
    return write_store(tmp_path_factory.mktemp("evil") / "store", records)


def rows(*words):
    result = ddbench("compare", *words, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["rows"]


def values_of(axis, *words):
    return {row[axis] for row in rows(*words)}


# --- names and filters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "words", "values"),
    [
        ("method", ["--method", "dm"], {"dm"}),
        ("method", ["-m", "dc", "-m", "dm"], {"dc", "dm"}),
        ("evaluator", ["--evaluator", "kd"], {"kd"}),
        ("evaluator", ["-e", "plain[width=128]"], {"plain"}),
        ("evaluator", ["-e", "plain[width=128.0]"], {"plain"}),
        ("iterations", ["--iterations", "100"], {100}),
        ("iterations", ["--iterations", "100,1000"], {100, 1000}),
        ("ipc", ["--ipc", "1"], {1}),
        ("dataset", ["--dataset", "digits"], {"digits"}),
        ("pool", ["--pool", "main-model"], {"single", "main-model"}),
    ],
)
def test_filters(store, axis, words, values):
    assert values_of(axis, store, *words) == values


def test_architectures_are_filtered(store):
    assert values_of("architecture", store, "-a", "mlp") == {"mlp"}


def test_names_with_options(tmp_path):
    of = set_record(method="dc[lr_img=0.1,init=real]")
    other = set_record(method="dc[lr_img=1]", distillation=1)
    write_store(
        tmp_path, [of, other, *(student_record(record, student=index) for record in (of, other) for index in (0, 1))]
    )
    every = {"dc[lr_img=0.1,init=real]", "dc[lr_img=1]"}
    assert values_of("method", tmp_path) == values_of("method", tmp_path, "-m", "dc") == every
    assert values_of("method", tmp_path, "-m", "dc[lr_img=1]") == {"dc[lr_img=1]"}
    assert values_of("method", tmp_path, "-m", "dc[init=real]") == {"dc[lr_img=0.1,init=real]"}
    assert values_of("method", tmp_path, "-m", "dc[lr_img=[1,0.1]]") == every
    result = ddbench("compare", tmp_path, "--by", "method", "--baseline", "dc")
    assert result.exit_code == 2
    assert "is ambiguous: write one of dc[lr_img=0.1,init=real], dc[lr_img=1]" in result.stderr


def test_the_default_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "ddbench-store holds no store" in ddbench("compare").stderr
    write_store(tmp_path / "ddbench-store", study(architectures=("mlp",)))
    assert "store: ddbench-store" in ddbench("compare").stdout


def test_one_value_is_shown_without_a_comparison(tmp_path):
    result = ddbench("compare", write_store(tmp_path, study(pools=("single",))))
    assert result.exit_code == 0
    assert "there is nothing to compare single with" in result.stdout


def test_records_that_cannot_be_read_are_named(tmp_path):
    write_store(tmp_path, study(architectures=("mlp",)))
    path = next((tmp_path / "cells").glob("??/*/record.json"))
    path.write_text("{")
    result = ddbench("compare", tmp_path)
    assert result.exit_code == 0
    assert str(path.parent) in result.stdout
    assert "left out" in result.stdout
    result = ddbench("compare", tmp_path, "--format", "csv")
    assert str(path.parent) in result.stderr
    assert str(path.parent) not in result.stdout


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_is_what_stdout_gets(store, tmp_path, form):
    shown = ddbench("compare", store, "--iterations", "100", "--format", form)
    written = ddbench("compare", store, "--iterations", "100", "--format", form, "--output", tmp_path / "out")
    assert (shown.exit_code, written.exit_code, written.stdout) == (0, 0, "")
    assert (tmp_path / "out").read_text() == shown.stdout


def test_csv_and_json_hold_the_same_unrounded_numbers(store):
    text = ddbench("compare", store, "--format", "csv").stdout
    lines = list(csv.DictReader(io.StringIO(text)))
    json_rows = rows(store)
    assert len(lines) == len(json_rows) > 50
    for line, row in zip(lines, json_rows, strict=True):
        assert set(line) == set(row)
        for key, value in row.items():
            if isinstance(value, float):
                assert float(line[key]) == value, key
            else:
                assert line[key] == ("" if value is None else str(value)), key


def test_csv_has_no_formulas(tmp_path):
    records = [set_record(pool=pool, method="=1+1", distillation=d) for pool in ("single", "@SUM(A1)") for d in (0, 1)]
    write_store(tmp_path, [*records, *(student_record(record, accuracy=0.4) for record in records)])
    lines = list(csv.DictReader(io.StringIO(ddbench("compare", tmp_path, "--format", "csv").stdout)))
    assert {(line["method"], line["pool"]) for line in lines} == {("'=1+1", "single"), ("'=1+1", "'@SUM(A1)")}
    assert {row["pool"] for row in rows(tmp_path)} == {"single", "@SUM(A1)"}


def test_json_has_no_nan(store):
    def refuse(constant):
        raise AssertionError(constant)

    comparison = json.loads(ddbench("compare", store, "--format", "json").stdout, parse_constant=refuse)
    assert comparison["question"]["by"] == "pool"
    assert comparison["stores"] == [str(store)]


def test_a_pipe_gets_every_word_on_its_row(store):
    text = ddbench("compare", store, "--details").stdout
    lines = [line for line in text.splitlines() if line.startswith("│")]
    assert len(lines) == 2 * 2 * 2 * (3 + 3)
    assert all(line.count("│") == lines[0].count("│") for line in lines)
    assert "\x1b" not in text
    for word in ("main-similar − single", "main-model − single", "convnet minus others", "protocol: kd v1, plain v1"):
        assert word in text


def markdown_cells(line):
    """The cells of a Markdown row, with backslashes undone."""
    cells, escaped = [""], False
    for letter in line.strip()[1:-1]:
        if not escaped and letter == "|":
            cells.append("")
        elif not escaped and letter == "\\":
            escaped = True
            continue
        else:
            cells[-1] += letter
        escaped = False
    return [cell.strip() for cell in cells]


def test_markdown_is_a_table(store):
    text = ddbench("compare", store, "--iterations", "100", "-m", "dc", "--format", "markdown").stdout
    table = [markdown_cells(line) for line in text.splitlines() if line.startswith("|")]
    assert {len(cells) for cells in table} == {len(table[0])}
    assert table[0] == ["evaluator", "architecture", "single", "main-model", "main-model − single", "main-similar",
                        "main-similar − single"]  # fmt: skip
    assert set(table[1]) == {"---", "---:"}
    rows_by_value = {
        (row["evaluator"], row["architecture"], row["value"]): row
        for row in rows(store, "--iterations", "100", "-m", "dc")
    }
    for evaluator, architecture, single, *_ in table[2:]:
        row = rows_by_value[evaluator, architecture, "single"]
        wanted = f"{100 * row['mean']:.1f} ({100 * row['median']:.1f})".replace("-", "−").replace("−0.0 ", "0.0 ")
        assert single.startswith(wanted)


@pytest.mark.parametrize("form", FORMATS)
def test_names_are_never_markup(evil, form):
    result = ddbench("compare", evil, "--format", form)
    assert result.exit_code == 0, result.output
    if form in ("terminal", "markdown", "latex"):
        assert "\x1b" not in result.stdout
        assert "\x07" not in result.stdout
    if form == "terminal":
        for text in (EVIL["method"], EVIL["architecture"], "p [31m q :smile:"):
            assert text in result.stdout
    if form == "markdown":
        table = [line for line in result.stdout.splitlines() if line.startswith("|")]
        assert {len(markdown_cells(line)) for line in table} == {4}
        assert markdown_cells(table[2])[0] == EVIL["architecture"]
        assert "<script" not in result.stdout
        assert "[a](" not in result.stdout
    if form == "json":
        assert {row["pool"] for row in json.loads(result.stdout)["rows"]} == {"single", EVIL["pool"]}


@pytest.mark.parametrize("words", [(), ("--details",), ("--published",)])
def test_a_terminal_gets_its_width(store, words):
    for columns in (60, 100):
        text = on_a_terminal(columns, "compare", store, "-m", "dc", *words)
        assert max(len(line) for line in text.splitlines() if not line.startswith("store: ")) <= columns
        assert "…" not in text


def test_the_last_line_says_the_verdict(store):
    """Of three pools, main-similar and main-model are compared with single, each in words and numbers."""
    text = ddbench("compare", store, "-m", "dc", "-e", "plain", "--iterations", "100").stdout
    *_, first, second = text.splitlines()
    for line, pool in ((first, "main-model"), (second, "main-similar")):
        assert re.fullmatch(
            rf"{pool} against single: (helps|hurts|no difference above 1 point|undecided: [^(]+ each)"
            r" \([+−][\d.]+ \[[+−][\d.]+, [+−][\d.]+\] points over all but convnet\)",
            line,
        )


def test_details_are_of_a_text_only(store):
    result = ddbench("compare", store, "--details", "--format", "csv")
    assert result.exit_code == 2
    assert "--details is for --format terminal" in result.stderr


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_comparing_imports_no_torch(store):
    """In no format: what one of them imports, those after it would show as well."""
    code = f"""
import sys
from harness.cli.group import cli
for form in {[*FORMATS]!r}:
    try:
        cli(["compare", {str(store)!r}, "--format", form, "--output", {os.devnull!r}])
    except SystemExit as end:
        slow = sorted({{"torch", "torchvision", "kornia", "sklearn", "matplotlib"}} & set(sys.modules))
        print("END", form, end.code, slow)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    ends = [line for line in done.stdout.splitlines() if line.startswith("END")]
    assert ends == [f"END {form} 0 []" for form in FORMATS]


def test_a_real_store(data, tmp_path):
    small_run(data, tmp_path, pool=["single[main=mlp[width=8]]", "mix[of=mlp[width=8]:1+mlp[width=6]:1]"],
              architecture=["mlp[width=8]", "mlp[width=6]"], distillations=2)  # fmt: skip
    compared_rows = rows(tmp_path)
    assert {row["over"] for row in compared_rows} == {"architecture", "all", "gap"}
    assert {row["baseline"] for row in compared_rows} == {"single[main=mlp[width=8]]"}
    assert len(compared_rows) == 2 * 4
    text = ddbench("compare", tmp_path).stdout
    assert "2 students on each of 2 distillations, seed 0" in text
    assert "protocol: plain quick v1 + epochs=2; device: cpu" in text


def test_a_difference_over_a_part_of_its_means_says_so(tmp_path):
    """The mean over three architectures stands beside the mean over two, and their difference is over these two."""
    records = list(study(architectures=ARCHITECTURES[:3], pools=("single", "main-similar")))
    records += study(architectures=ARCHITECTURES[:2], pools=("total-random",), seed=2)
    text = ddbench("compare", write_store(tmp_path / "store", records)).stdout
    line = next(line for line in text.splitlines() if line.startswith("over what both arms have"))
    assert line.endswith("are the differences of total-random over all architectures")
    means = next(line for line in text.splitlines() if line.startswith("means over fewer architectures"))
    assert means.endswith(": total-random over 2 of 3 in all architectures")
    whole = ddbench("compare", write_store(tmp_path / "whole", study(architectures=ARCHITECTURES[:3]))).stdout
    assert "over what both arms have" not in whole


def test_sets_that_went_wrong_are_counted_below_the_table(tmp_path):
    records = []
    for pool, status in (("single", "done"), ("wild", "diverged")):
        for distillation in range(2):
            of = set_record(pool=pool, distillation=distillation, status=status)
            records += [of, *(student_record(of, student=student, collapsed=pool == "wild") for student in (0, 1))]
    text = ddbench("compare", write_store(tmp_path / "store", records)).stdout
    assert "wild: 2 of 2 sets diverged, 4 of 4 students collapsed" in text.splitlines()
