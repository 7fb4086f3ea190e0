"""The table of a paper: what is bold, what a rule divides, and that it compiles."""

import csv
import io
import re
import shutil
import subprocess

import pytest
from studies import ddbench
from synthetic import write_store

from tests.report.test_latex import text_of
from tests.report.test_views import records

POOLS = {"single[main=convnet]": 0.0, "main-similar[main=convnet]": 0.02}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("paper") / "private-folder", list(records(POOLS, methods=("dc", "d_m"))))


def table(store, *words):
    result = ddbench("table", store, *words)
    assert result.exit_code == 0, result.output
    return result.stdout


def rows_of(source):
    """The lines of the tabular between its rules, cell by cell."""
    body = source.partition("\\toprule\n")[2].partition("\\bottomrule")[0]
    lines = [line for line in body.splitlines() if line != "\\midrule"]
    assert all(line.endswith(r" \\") for line in lines)
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line[:-3])] for line in lines]


def test_the_best_is_bold_only_where_it_is_decided(store):
    """On the ConvNet both pools score the same; elsewhere main-similar is better in every distillation."""
    heading, title, similar, single, *_ = rows_of(table(store))
    assert heading == ["pool", "convnet", "lenet", "mlp"]
    assert title == [r"\multicolumn{4}{l}{\emph{d\_m}}"]
    assert similar[0] == "main-similar"
    assert similar[1:] == [r"30.1$\pm$0.9", r"\textbf{42.1}$\pm$1.3", r"\textbf{37.1}$\pm$1.3"]
    assert single == ["single", r"30.1$\pm$0.9", r"40.1$\pm$0.9", r"35.1$\pm$0.9"]


def test_nothing_is_bold_without_distillations(tmp_path):
    write_store(tmp_path, list(records(POOLS, distillations=1)))
    text = table(tmp_path)
    assert "textbf" not in text
    assert "No mean is above that of every other row" in text
    assert "standard deviation between students" in text


def test_a_rule_divides_what_is_not_comparable(store):
    text = table(store)
    assert text.count("\\midrule") == 2
    assert "Rows that a rule divides are not comparable." in text
    alone = table(store, "--method", "dc")
    assert alone.count("\\midrule") == 1
    assert "not comparable" not in alone


def test_methods_may_stand_in_rows(store):
    heading, title, *lines = rows_of(table(store, "--rows", "method"))
    assert heading[0] == "method"
    assert title == [r"\multicolumn{4}{l}{\emph{main-similar}}"]
    assert [cells[0] for cells in lines[:2]] == [r"d\_m", "dc"]


def test_latex_has_all_its_parts_and_closes_them(store):
    text = table(store, "--caption", "50 % of_it", "--reference", "tab:mine", "--label", "ours=main-similar")
    begun, ended = (re.findall(rf"\\{word}\{{(\w+)\}}", text) for word in ("begin", "end"))
    assert begun == ["table", "tabular", "minipage"]
    assert ended == ["tabular", "minipage", "table"]
    depth = 0
    code = re.sub(r"\\\\|^%.*$", "", text, flags=re.MULTILINE)
    for brace in re.findall(r"(?<!\\)[{}]", code):
        depth += {"{": 1, "}": -1}[brace]
        assert depth >= 0
    assert depth == 0
    assert "\\caption{50 \\% of\\_it}" in text
    assert "\\label{tab:mine}" in text
    assert "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%" in text
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert {len(cells) for cells in rows_of(text) if not cells[0].startswith("\\multicolumn")} == {len(columns)}
    notes = text.partition("\\footnotesize\n")[2].partition("\\end{minipage}")[0]
    for line in notes.splitlines():
        text_of(line.removesuffix("\\par"))
    assert "ours: main-similar{[}main=convnet{]}" in notes


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no pdflatex")
@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
def test_latex_compiles_and_is_no_wider_than_the_text(store, tmp_path, columns):
    long = "a_pool & its #1 option"
    (tmp_path / "table.tex").write_text(table(store, "--label", f"{long}=main-similar", "--rows", "pool"))
    (tmp_path / "paper.tex").write_text(
        f"\\documentclass[{columns}]{{article}}\\usepackage{{booktabs,graphicx}}"
        "\\begin{document}\\input{table}See \\ref{tab:ddbench-pool}.\\end{document}"
    )
    for _ in range(2):  # the second run knows the reference
        words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    assert not re.findall(r"Overfull.*|LaTeX Warning.*", done.stdout)


@pytest.mark.parametrize("form", ["latex", "markdown", "csv"])
def test_no_table_names_a_store(store, form):
    assert "private-folder" not in table(store, "--format", form)


def test_markdown_and_csv_have_the_same_numbers(store):
    lines = [line for line in table(store, "--format", "markdown").splitlines() if line.startswith("| ")]
    assert lines[0] == "| pool | convnet | lenet | mlp |"
    assert lines[3] == "| main-similar | 30.1±0.9 | **42.1**±1.3 | **37.1**±1.3 |"
    assert lines[2] == r"| *d\_m* |  |  |  |"
    first = next(csv.DictReader(io.StringIO(table(store, "--format", "csv"))))
    assert (first["condition"], first["pool"], first["lenet best"]) == ("d_m", "main-similar", "True")
    assert float(first["lenet mean"]) == pytest.approx(42.1)


def test_a_missing_number_is_a_dash(tmp_path):
    every = list(records(POOLS))
    lacking = [record for record in every if record["result"].get("architecture") != "mlp"
               or record["result"]["pool"] != "single[main=convnet]"]  # fmt: skip
    write_store(tmp_path, lacking)
    *_, single = rows_of(table(tmp_path))
    assert single[3] == "--"
    assert "textbf{37" not in table(tmp_path), "there is nothing that it is better than"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--pool", "nothing"), "no score has this value"),
        (("--score-on", "validation"), "there are no scores on validation"),
        (("--reference", "a}b"), "--reference"),
        (("--reference", "x", "--format", "csv"), "--reference"),
    ],
)
def test_what_cannot_be_shown_is_refused(store, words, says):
    result = ddbench("table", store, *words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert says in line
