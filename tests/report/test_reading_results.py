"""What reports are given, and how they are asked for, made and written."""

import hashlib
import json
import os
import shutil

import pytest
from fake_distributions import distribution
from studies import ddbench, records, small_run

import harness
from harness.errors import StoreError, UsageError
from harness.plugins.discovery import plugins
from harness.report.results import read_results
from harness.store.cells import canonical_json

pytestmark = pytest.mark.usefixtures("blank_pictures")

__all__ = ["distribution"]

REPORT = """
from harness import Options, Report, UsageError, option

class MineOptions(Options):
    word: str = option("there", "what it says")

class Mine(Report):
    '''Counts scores and sets by public names alone.'''

    Options = MineOptions
    suffix = ".txt"

    def render(self, results):
        shapes = {tuple(distilled.load().images.shape) for distilled in results.sets}
        best = max(results.scores, key=lambda score: score.accuracy)
        command = results.origin(best).command
        return f"{self.options.word}: {len(results.scores)} {len(results.sets)} {shapes} {command}"

class Broken(Report):
    def render(self, results):
        raise ValueError("no luck")

class Wrong(Report):
    def render(self, results):
        return 3

class Lacking(Report):
    def render(self, results):
        raise UsageError("nothing of the kind is here")
"""


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "store"
    small_run(data, path, distillations=2, iterations=[0, 2], method=["dc[batch_real=4]", "random"])
    return path


@pytest.fixture
def mine(distribution, tmp_path, monkeypatch):
    lines = "".join(f"    register({n!r}, 'mine:{n.title()}', 's')\n" for n in ("mine", "broken", "wrong", "lacking"))
    distribution("mine", f"@hookimpl\ndef register_reports(register):\n{lines}{REPORT}")
    monkeypatch.chdir(tmp_path)


def test_results_are_those_of_the_records(store):
    results = read_results([store], plugins().registry)
    by_key = {record["key"]: record for record in records(store).values()}
    assert {score.key for score in results.scores} == {key for key, r in by_key.items() if r["kind"] == "student"}
    assert {distilled.key for distilled in results.sets} == {
        key for key, r in by_key.items() if r["kind"] == "distilled"
    }
    for distilled in results.sets:
        record = by_key[distilled.key]
        assert distilled.scalars == record["history"]["scalars"]
        assert distilled.draws == record["history"]["draws"]
        assert distilled.checksum == record["checksum"]
        assert distilled.load().images.shape == (3, 1, 16, 16)
    for score in results.scores:
        origin = results.origin(score)
        provenance = by_key[score.key]["provenance"]
        assert origin.checksum == by_key[score.key]["checksum"]
        assert origin.versions == provenance["versions"]
        assert origin.compute["device"] == "cpu"
        assert f"ddbench {harness.__version__}" in origin.components.values()


def test_options_set_by_name_are_kept_in_the_records(data, tmp_path):
    small_run(data, tmp_path / "store", set=["convnet.width=6"], pool="single")
    set_options = [record["provenance"]["set"] for record in records(tmp_path / "store").values()]
    assert set_options == [["convnet.width=6"]] * len(set_options)


def test_a_cell_of_several_stores_counts_once(store, data, tmp_path):
    small_run(data, tmp_path / "other", distillations=3, iterations=2)
    both = read_results([store, tmp_path / "other"], plugins().registry)
    assert len({score.key for score in both.scores}) == len(both.scores)
    assert any("in several stores" in note for note in both.notes)
    assert all(distilled.load() for distilled in both.sets)


def test_scores_can_be_restricted(store):
    only = read_results([store], plugins().registry, {"method": ["dc"], "pool": []})
    assert (
        {score.method for score in only.scores} == {distilled.method for distilled in only.sets} == {"dc[batch_real=4]"}
    )
    beside = read_results([store], plugins().registry, {"pool": ["single"]})
    assert {score.method for score in beside.scores} == {"dc[batch_real=4]", "random"}
    with pytest.raises(UsageError, match="--method dcx: no score has this value"):
        read_results([store], plugins().registry, {"method": ["dcx"]})


def test_what_is_no_store(tmp_path):
    with pytest.raises(StoreError):
        read_results([tmp_path / "nothing"], plugins().registry)


def test_an_altered_set_is_said_on_the_page_and_the_rest_stands(data, tmp_path):
    small_run(data, tmp_path / "store", iterations=[0, 2])
    file = next((tmp_path / "store").rglob("set.safetensors"))
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    result = ddbench("report", tmp_path / "store", "--output", tmp_path / "page.html")
    assert result.exit_code == 0
    assert "was altered" in (tmp_path / "page.html").read_text()


def test_a_damaged_record_is_left_out_and_said(data, tmp_path):
    small_run(data, tmp_path / "store", students=3)
    student = next(name for name, record in records(tmp_path / "store").items() if record["kind"] == "student")
    (path,) = (tmp_path / "store" / "cells").glob(f"??/{student}/record.json")
    path.write_text(path.read_text()[:-40])
    result = ddbench("report", tmp_path / "store", "--output", tmp_path / "page.html")
    assert result.exit_code == 0
    assert "cannot be read" in (tmp_path / "page.html").read_text()


def test_records_that_do_not_tell_where_they_come_from_are_left_out_and_counted(store, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    students = [name for name, record in records(copy).items() if record["kind"] == "student"]
    sets = [name for name, record in records(copy).items() if record["kind"] == "distilled"]
    for name, part, key in ((students[0], "provenance", "components"), (sets[0], "history", "draws")):
        (path,) = (copy / "cells").glob(f"??/{name}/record.json")
        record = json.loads(path.read_text())
        del record[part][key], record["checksum"]
        record["checksum"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
        path.write_text(json.dumps(record))
    results = read_results([copy], plugins().registry)
    assert len(results.scores) == len(students) - 1
    assert len(results.sets) == len(sets) - 1
    assert any(note.startswith("1 score left out") for note in results.notes)
    assert any(note.startswith("1 set left out") for note in results.notes)


# --- reports of plugins -----------------------------------------------------------------------------------------------


def test_a_report_of_a_plugin_stands_beside_the_built_in_ones(mine, store, tmp_path):
    listed = ddbench("reports", "--json")
    names = {row["name"]: row["provider"] for row in json.loads(listed.stdout)}
    assert names == {"page": "ddbench", "robust-scores": "ddbench"} | dict.fromkeys(
        ("mine", "broken", "wrong", "lacking"), "mine"
    )
    assert "what it says" in ddbench("reports", "show", "mine").stdout
    result = ddbench("report", store, "--report", "mine[word=here]")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "ddbench-mine.txt").read_text()
    assert text.startswith("here: 12 6 {(3, 1, 16, 16)} ddbench run --dataset")
    assert result.stdout == "mine[word=here]: ddbench-mine.txt (0.0 MB)\n"


def test_what_was_written_is_opened(mine, store, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("click.launch", opened.append)
    assert ddbench("report", store, "--report", "mine", "--report", "broken", "--open").exit_code == 1
    assert opened == ["ddbench-mine.txt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "report broken of mine cannot be made: ValueError: no luck"),
        ("wrong", "Wrong.render() returned int, but promises a bytes"),
        ("lacking", "report lacking of mine: nothing of the kind is here"),
    ],
)
def test_a_report_that_raises_is_one_line_and_the_others_go_on(mine, store, tmp_path, name, message):
    result = ddbench("report", store, "--report", name, "--report", "mine")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert message in line
    assert (tmp_path / "ddbench-mine.txt").exists()
    assert sorted(os.listdir(tmp_path)) == ["ddbench-mine.txt", "site"]
