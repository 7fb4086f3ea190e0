"""Tables on terminals of any width, in pipes and in any encoding: no digit and no name is ever cut."""

import io
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from synthetic import set_record, student_record, write_store
from terminals import Terminal, at_width, on_a_terminal

from harness.report.tables.drawing import Column, Grid, Line, Words, draw, fold, legible, terminal_width
from harness.report.tables.run_table import print_table
from harness.report.tables.run_view import print_run
from tests.report.test_table import ROW

README = (Path(__file__).parents[2] / "README.md").read_text()
LETTERS = st.characters(codec="utf-8", categories=("L", "N", "P", "S"))
WIDTHS = st.integers(20, 300)


def drawn(parts, columns, encoding="utf-8"):
    return at_width(columns, lambda file: file.write(draw(parts, file)), encoding)


@settings(deadline=None, max_examples=60)
@given(st.data(), WIDTHS)
def test_every_name_and_number_is_there_at_any_width(data, columns):
    names = data.draw(st.lists(st.text(LETTERS, min_size=1, max_size=60), min_size=1, max_size=7, unique=True))
    arms = data.draw(st.lists(st.text(LETTERS, min_size=1, max_size=60), min_size=1, max_size=3, unique=True))
    rows = [
        {**ROW, "architecture": name, "pool": arm, "method": f"m{arm}", "mean": data.draw(st.floats(0, 1)),
         "std_distillations": data.draw(st.none() | st.floats(0, 0.5)), "distillations": 2,
         "collapsed": data.draw(st.integers(0, 3))}
        for name in names for arm in arms
    ]  # fmt: skip
    text = at_width(columns, lambda file: print_table(rows, ["a note"], file))
    for row in rows:
        assert row["architecture"] in text
        assert row["pool"] in text
        assert f"{100 * row['mean']:.1f}±0.7" in text
        if row["std_distillations"] is not None:
            assert f"±{100 * row['std_distillations']:.1f}" in text
        if row["collapsed"]:
            assert f"({row['collapsed']} collapsed)" in re.sub(r"\s+", " ", text)


@settings(deadline=None, max_examples=60)
@given(st.data(), WIDTHS)
def test_prose_folds_between_words_and_no_word_is_broken(data, columns):
    cells = st.text(LETTERS | st.just(" "), max_size=80)
    count = data.draw(st.integers(1, 5))
    lines = [Line(tuple(data.draw(cells) for _ in range(count))) for _ in range(data.draw(st.integers(1, 4)))]
    text = drawn([Grid(tuple(Column(f"c{i}", folds=True) for i in range(count)), tuple(lines), "simple")], columns)
    for line in lines:
        for word in " ".join(line.cells).split():
            assert word in text


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 200])
def test_nothing_is_wider_than_the_terminal_but_names_that_are(columns):
    rows = [
        {**ROW, "ipc": ipc, "architecture": name} for ipc in (1, 2) for name in ("mlp", "convnet[width=8]", "vgg11")
    ]
    text = at_width(columns, lambda file: print_table(rows, (), file))
    for line in text.splitlines():
        assert cell_len(line) <= columns or " " not in line.strip()


def test_the_readme_shows_the_table_of_a_terminal_of_100_columns():
    """Bit for bit: the rows are read out of it, and drawn again; any terminal of 80 columns shows the same table."""
    block = re.search(r"```text\n(digits .*?)```", README, re.DOTALL).group(1)
    title, heading, _, *table = block.partition("\n\n")[0].splitlines()
    dataset, ipc, iterations, method, pool = re.split("  +", title)
    of_all = re.search(r"every evaluator: (.*)", block).group(1)
    evaluators = [f"{name}[{of_all}]" for name in heading.split()[1:]]
    rows = [
        {**ROW, "dataset": dataset, "ipc": int(ipc.split()[1]), "iterations": int(iterations.split()[0]),
         "method": method, "pool": pool, "evaluator": evaluator, "architecture": name, "like": None,
         "protocol": f"{evaluator.partition('[')[0]} quick v1", "students": 2,
         "mean": float(cell.split("±")[0]) / 100, "std_students": float(cell.split("±")[1]) / 100}
        for name, *cells in map(str.split, table) for evaluator, cell in zip(evaluators, cells, strict=True)
    ]  # fmt: skip
    assert len(rows) == 2 * 6
    rows.sort(key=lambda row: evaluators.index(row["evaluator"]))
    for columns, whole in ((100, True), (80, False)):
        text = at_width(columns, lambda file: print_run(rows, notes=["store: .../ddbench-store"], file=file))
        lines = [line.rstrip() for line in text.splitlines()]
        wanted = block.splitlines()
        assert lines == wanted if whole else lines[: len(table) + 3] == wanted[: len(table) + 3]


@given(st.text(LETTERS | st.just(" "), min_size=1), st.integers(12, 60))
def test_paragraphs_fold_as_rich_folds_them(text, columns):
    """Where no word is too long for the line."""
    text = " ".join(word[:5] for word in text.split())
    console = Console(file=io.StringIO(), width=columns, color_system=None)
    console.print(Text(text), highlight=False)
    assert "\n".join(fold(text, columns)) == "\n".join(map(str.rstrip, console.file.getvalue()[:-1].split("\n")))


# --- what a terminal is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variable", ["FORCE_COLOR=1", "TTY_COMPATIBLE=1", "COLUMNS=40", "TERM=dumb", "JPY_PARENT_PID=1"]
)
def test_a_pipe_is_a_pipe(monkeypatch, variable):
    rows = [{**ROW, "architecture": f"convnet[width={width}]"} for width in range(20)]
    plain = io.StringIO()
    print_table(rows, (), plain)
    monkeypatch.setenv(*variable.split("="))
    file = io.StringIO()
    print_table(rows, (), file)
    assert file.getvalue() == plain.getvalue()
    assert "\x1b" not in file.getvalue()
    assert max(map(len, file.getvalue().splitlines())) > 300


@pytest.mark.parametrize(
    ("columns", "width"), [("60", 60), ("0", 80), ("", 80), ("x", 80), ("-5", 80), ("9" * 5000, 80), ("1", 1)]
)
def test_the_width_of_a_terminal(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_width(Terminal()) == width
    closed = Terminal()
    closed.close()
    assert terminal_width(closed) == width


def test_a_real_terminal_reports_its_width(monkeypatch):
    import fcntl
    import struct
    import termios

    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as file:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 47, 0, 0))
        assert terminal_width(file) == 47
    os.close(ours)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "koi8-r"])
def test_every_encoding_takes_the_table(encoding):
    parts = [Words("28.4 ± −5.3 × 2"), Grid((Column("a"),), (Line(("mlp[é−✓]",)),))]
    for columns in (20, 60, 100):
        text = drawn(parts, columns, encoding)
        assert text.encode(encoding)
        assert "28.4" in text
        assert "-5.3" in text or "−5.3" in text
    assert legible("±−é", "ascii") == "+--\\xe9"
    assert legible("±−é", "latin-1") == "±-é"


# --- the commands -----------------------------------------------------------------------------------------------------

LONG = "mix[of=convnet[norm=group,act=sigmoid,pool=max]:0.5+resnet18[downsample=avgpool]:0.5]"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    records = []
    for pool in ("single", LONG):
        for distillation in (0, 1):
            of = set_record(pool=pool, distillation=distillation)
            scores = (0.31, 0.34567)
            records += [
                of,
                *(student_record(of, student=n, accuracy=a + distillation / 50) for n, a in enumerate(scores)),
            ]
    return write_store(tmp_path_factory.mktemp("long") / "store", records)


@pytest.mark.parametrize("columns", [20, 40, 80, 120, 300])
def test_commands_cut_nothing(store, columns):
    for words in (
        ("compare", store),
        ("compare", store, "--details"),
        ("results", "list", "--store", store),
        ("methods",),
        ("datasets", "show", "cifar10"),
        ("plugins",),
        ("status", "--store", store),
    ):
        whole, narrow = (on_a_terminal(width, *words) for width in (10_000, columns))
        wanted = {word for word in whole.split() if not set(word) & set("┏┃┡│└├─━")} - {"reason"}  # of none here
        assert wanted <= set(narrow.split()), words
        assert "…" not in narrow
