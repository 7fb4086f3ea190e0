"""LaTeX of a comparison, read by a small parser that knows what pdflatex would choke on."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import ddbench
from synthetic import set_record, student_record, study, write_store

from harness.report.tables.formats import escape_latex

ODD = r"a_b%c#d&e{f}g\h~i^j$k<l>m|n\"o'p`q--r*s"
SPECIAL = set("\\{}$&#%_~^")


def text_of(source):
    """What a piece of LaTeX prints; it must use nothing but what this knows."""
    printed, rest = "", source
    commands = {
        r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
        r"\textgreater{}": ">", r"\textbar{}": "|", "{''}": '"', r"\textquotesingle{}": "'",
        r"\textasciigrave{}": "`", r"\{": "{", r"\}": "}", r"\$": "$", r"\&": "&", r"\#": "#", r"\%": "%", r"\_": "_",
        r"\textendash{}": "–", "$-$": "−", r"$\pm$": "±", r"$\times$": "×", "{[}": "[", "{]}": "]", "{*}": "*",
        "-{}": "-",
    }  # fmt: skip
    while rest:
        command = next(
            (candidate for candidate in sorted(commands, key=len, reverse=True) if rest.startswith(candidate)), None
        )
        if command:
            printed, rest = printed + commands[command], rest[len(command) :]
        else:
            assert rest[0] not in SPECIAL | set("[]*"), f"{rest[:20]!r} in {source!r}"
            printed, rest = printed + rest[0], rest[1:]
    return printed


def rows_of(source):
    """The cells of every line of the table, its heading first."""
    body = source.partition("\\toprule\n")[2].partition("\\bottomrule")[0].replace("\\midrule\n", "")
    lines = body.splitlines()
    assert all(line.endswith(r" \\") for line in lines)
    return [re.split(r"(?<!\\)&", line[:-3]) for line in lines]


def plain(cell):
    """A cell without the commands around it: grey ones and marks."""
    cell = re.sub(r"\\textsuperscript\{([a-z,]+)\}", "", cell.strip())
    grey = re.fullmatch(r"\\textcolor\{gray\}\{(.*)\}", cell)
    return text_of(grey.group(1) if grey else cell)


@given(st.text(max_size=40))
def test_any_text_is_printed_as_it_stands(text):
    shown = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    printed = text_of(escape_latex(text))
    assert re.sub(r"\[U\+([0-9A-F]{4,6})\]", lambda code: chr(int(code[1], 16)), printed) == shown


def test_special_letters():
    assert text_of(escape_latex(ODD)) == ODD
    assert "--" not in escape_latex("a--b---c")
    assert escape_latex("größe → 中") == "größe {[}U+2192{]} {[}U+4E2D{]}"
    assert escape_latex("two\nlines\x1b[31m") == "two lines {[}31m"


@pytest.fixture
def source(tmp_path):
    records = list(study(architectures=(f"mlp[x={ODD}]", "convnet"), methods=(ODD,), pools=("single", "others_[a&b]")))
    lonely = set_record(method=ODD, pool="single", iterations=2000)
    write_store(tmp_path, [*records, lonely, student_record(lonely, architecture="only_one")])
    result = ddbench("compare", tmp_path, "--format", "latex")
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_table_has_its_cells(source):
    heading, *lines = rows_of(source)
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", source)
    assert {len(columns)} == {len(line) for line in (heading, *lines)}
    assert [plain(cell) for cell in heading] == [
        "iterations", "architecture", "single", "others_[a&b]", "others_[a&b] − single",
    ]  # fmt: skip
    by_name = {plain(line[1]): [plain(cell) for cell in line] for line in lines}
    assert set(by_name) >= {f"mlp[x={ODD}]", "convnet", "all architectures", "only_one"}
    assert by_name["only_one"][3:] == ["–", "–"], "missing cells are dashes"
    assert re.fullmatch(r"[+−]\d+\.\d \[[+−]\d+\.\d, [+−]\d+\.\d\] p[=<][\d.]+\*?", by_name["convnet"][4])


def test_environments_and_braces_close(source):
    begun, ended = (re.findall(rf"\\{word}\{{(\w+)\}}", source) for word in ("begin", "end"))
    assert begun == ended[::-1] == ["table", "tabular"]
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", re.sub(r"\\\\", "", source)):
        depth += {"{": 1, "}": -1}[brace]
        assert depth >= 0
    assert depth == 0
    assert set(re.findall(r"\\(\w+rule)", source)) == {"toprule", "midrule", "bottomrule"}
    assert source.startswith("% \\usepackage{booktabs,xcolor,textcomp}\n")


def test_what_stands_beneath_is_text(source):
    (title,) = re.findall(r"\\caption\{(.*)\}", source)
    assert ODD in text_of(title)
    for line in source.partition("\\footnotesize\n")[2].partition("\\end{table}")[0].splitlines():
        text_of(re.sub(r"\\textsuperscript\{[a-z]+\}", "", line).removesuffix("\\par"))
