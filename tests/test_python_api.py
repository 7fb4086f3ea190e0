"""The commands as functions of Python: the same keys, numbers and defaults, and results that show themselves."""

import importlib.machinery
import inspect
import json
import re
import sys
import types
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from studies import SMALL, ddbench, numbers, small_words, write_arrays

import harness
from harness.cli.commands.compare import compare as compare_command
from harness.cli.commands.eval import evaluate as eval_command
from harness.cli.commands.run import run as run_command
from harness.planning.request import Request

README = (Path(__file__).parent.parent / "README.md").read_text()
STUDY = {**SMALL, "method": ["random", "dm[batch_real=4]"], "distillations": 2}
OF_THE_SHELL = {"config", "as_json", "form", "output", "details", "published"}
"""Options of commands that say where options come from, or how a result is printed."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return f"arrays[path={write_arrays(tmp_path_factory.mktemp('data') / 'toy.npz')}]"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("python") / "store"


@pytest.fixture(scope="module")
def result(data, store):
    return harness.run(**STUDY, dataset=data, store=store)


@pytest.fixture
def frames(monkeypatch):
    """Stands for pandas, whose frame is the list of its rows."""
    pandas = types.ModuleType("pandas")
    pandas.__spec__ = importlib.machinery.ModuleSpec("pandas", None)
    pandas.DataFrame = list
    monkeypatch.setitem(sys.modules, "pandas", pandas)


# --- options ---


@pytest.mark.parametrize(
    ("function", "command", "own"),
    [
        (harness.run, run_command, {"reporter"}),
        (harness.evaluate, eval_command, {"reporter"}),
        (harness.compare, compare_command, set()),
    ],
)
def test_functions_have_the_options_of_their_commands_and_document_each(function, command, own):
    names = set(inspect.signature(function).parameters)
    assert names - own == {parameter.name for parameter in command.params} - OF_THE_SHELL
    arguments = inspect.getdoc(function).partition("Args:")[2].partition("Raises:")[0]
    documented = re.findall(r"^    (\w+): ", arguments, re.MULTILINE)
    assert sorted(documented) == sorted(names)
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_defaults_are_those_of_a_request_and_of_the_command():
    declared = {field.name: field.default for field in fields(Request)}
    for function in (harness.run, harness.evaluate):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in declared and name != "method":
                default = parameter.default
                default = (default,) if name in ("pool", "dataset") else Path(default) if name == "store" else default
                assert default == declared[name], name
    options = {parameter.name: parameter.default for parameter in compare_command.params}
    for name, parameter in inspect.signature(harness.compare).parameters.items():
        if name not in ("stores", "seed") and parameter.default:
            assert options[name] == parameter.default, name


# --- one engine ---


def test_a_run_makes_the_cells_of_the_command(data, store, result, tmp_path):
    words = small_words("", tmp_path, dataset=data, method="random,dm[batch_real=4]", distillations=2)
    printed = ddbench("run", *words, "--json")
    assert printed.exit_code == 0, printed.stderr
    assert numbers(store) == numbers(tmp_path)
    shown = json.loads(printed.stdout)
    assert shown["rows"] == result.as_json()["rows"]
    assert shown["cells"] == result.cells
    assert tuple(cell["key"] for cell in shown["cells"]) == result.keys
    assert all(cell["state"] == "done" for cell in harness.run(**STUDY, dataset=data, store=tmp_path).cells)


def test_an_evaluation_is_that_of_the_command(data, result, tmp_path):
    file, options = result.sets[0].path, {name: SMALL[name] for name in ("evaluator", "architecture", "students")}
    scored = harness.evaluate(file, **options, dataset=data, store=tmp_path / "python")
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    shown = json.loads(ddbench("eval", file, *words, "-d", data, "--store", tmp_path / "shell", "--json").stdout)
    assert shown["rows"] == scored.rows
    assert numbers(tmp_path / "python") == numbers(tmp_path / "shell")
    assert [student.key for student in scored.students] == sorted(scored.keys)
    assert scored.sets == ()


@pytest.mark.parametrize(
    "options", [{}, {"interval": "bootstrap", "seed": 3, "over": "architecture", "architecture": "mlp"}]
)
def test_a_comparison_is_that_of_the_command(store, result, options):
    comparison = harness.compare(store, by="method", baseline="random", ipc=1, **options)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words += ["--by", "method", "--baseline", "random", "--ipc", "1", "--format", "json"]
    shown = json.loads(ddbench("compare", store, *words).stdout)
    assert shown["rows"] == comparison.rows
    assert (shown["baseline"], tuple(shown["notes"])) == (comparison.baseline, comparison.notes)


def test_a_dry_run_makes_nothing(data, tmp_path):
    planned = harness.run(**STUDY, dataset=data, store=tmp_path / "none", dry_run=True)
    assert {cell["state"] for cell in planned.cells} == {"missing"}
    assert planned.planned_only
    assert (planned.students, planned.sets) == ((), ())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda store: harness.run(method="dx"), "there is no method 'dx': did you mean"),
        (lambda store: harness.run(method="dm", seed="1"), "run(): seed = '1' is not a whole number"),
        (lambda store: harness.evaluate("none.pt", students=1.5), "evaluate(): students = 1.5 is not a whole number"),
        (lambda store: harness.compare(store, interval="boot"), "interval boot: did you mean 'bootstrap'?"),
        (lambda store: harness.compare(store, over=["al"]), "over al: did you mean 'all'?"),
        (lambda store: harness.compare(store, score_on="tests"), "score_on tests: did you mean 'test'?"),
        (lambda store: harness.load_results("no-store"), "no-store holds no store"),
        (
            lambda store: harness.load_results(store).to_pandas(),
            "needs the package pandas, which is not installed: pip",
        ),
    ],
)
def test_mistakes_are_one_line(store, result, call, complaint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(harness.DDBenchError, match=re.escape(complaint)) as error:
        call(store)
    assert "\n" not in str(error.value)


def test_an_unknown_option_is_an_error_of_python():
    with pytest.raises(TypeError, match="pol"):
        harness.run(method="dm", pol="single")


# --- results ---


def test_a_result_knows_its_students_and_sets(store, result):
    assert len(result.students) == 2 * 2 * 2
    assert {student.key for student in result.students} | {stored.key for stored in result.sets} == set(result.keys)
    assert {student.set_key for student in result.students} == {stored.key for stored in result.sets}
    for stored in result.sets:
        assert stored.path.is_relative_to(store)
        assert torch.equal(stored.load().images, harness.load_distilled(stored.path).images)
    for row in result.rows:
        of_row = [student.accuracy for student in result.students if student.method == row["method"]]
        assert sum(of_row) / len(of_row) == pytest.approx(row["mean"])


def test_a_result_has_only_its_own_cells_and_a_store_has_all(data, store, result):
    part = harness.run(**{**STUDY, "method": "random", "students": 1, "distillations": 1}, dataset=data, store=store)
    assert (len(part.students), len(part.sets), len(part.keys)) == (1, 1, 2)
    everything = harness.load_results(store)
    assert set(everything.keys) == set(result.keys)
    assert repr(everything) == f"<StoredResults: 8 students, 4 distilled sets in {store}>"


def test_sets_of_a_packed_store_are_loaded_without_a_path(store, result, tmp_path):
    assert ddbench("results", "pack", store, tmp_path / "store.tar.xz").exit_code == 0
    packed = harness.load_results(tmp_path / "store.tar.xz")
    assert {stored.path for stored in packed.sets} == {None}
    by_key = {stored.key: stored.load().images for stored in result.sets}
    assert all(torch.equal(stored.load().images, by_key[stored.key]) for stored in packed.sets)


@pytest.mark.usefixtures("frames")
def test_frames_have_a_row_for_each(store, result):
    comparison = harness.compare(store, by="method", baseline="random")
    assert [row["mean"] for row in result.to_pandas()] == [row["mean"] for row in result.rows]
    assert not any(isinstance(value, dict) for row in result.to_pandas() for value in row.values())
    students = result.stored.to_pandas()
    assert [row["accuracy"] for row in students] == [student.accuracy for student in result.students]
    assert comparison.to_pandas() == comparison.rows


def test_a_frame_is_one_of_pandas(result):
    pandas = pytest.importorskip("pandas")
    frame = result.stored.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    means = frame.groupby("method").accuracy.mean()
    assert {row["method"]: row["mean"] for row in result.rows} == pytest.approx(means.to_dict())


def test_results_show_themselves_in_a_notebook(store, result):
    comparison = harness.compare(store, by="method", baseline="random")
    for shown in (result, result.stored, comparison):
        page = shown._repr_html_()
        assert page.count("<tr>") == 1 + len(getattr(shown, "students" if shown is result.stored else "rows"))
        assert "dm[batch_real=4]" in page
        assert "None" not in page
        assert len(repr(shown)) < 200 + len(str(store))
    assert f"<td>{100 * result.rows[0]['mean']:.1f}±" in result._repr_html_()


def test_names_are_never_markup(result, store):
    from harness.api.notebook import html

    page = html("<b>", ["<i>"], [{"<i>": "<script>alert(1)</script>"}] * 70, ["<u>"])
    assert re.findall(r"<(?:b|i|u|script)>", page.replace("<p><b>&lt;b&gt;", "")) == []
    assert page.count("<td>") == 60
    assert "and 10 more rows" in page


# --- the README ---


@pytest.mark.usefixtures("frames")
def test_the_script_that_the_readme_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (script,) = [
        block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "import harness\n" in block
    ]
    shown = {}
    exec(script, shown)
    result = shown["result"]
    assert not result.failed
    assert len(capsys.readouterr().out.splitlines()) == len(result.sets) + 1
    assert len(shown["frame"]) == len(result.students)
    assert shown["comparison"].baseline == "random"
    assert shown["scored"].rows[0]["mean"] is not None
