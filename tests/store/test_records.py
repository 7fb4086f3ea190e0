"""Records are typed and frozen, keep what no model names, and are written as they were read."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from studies import KD, a_record, ddbench, records, small_run

from harness.learning.trajectory import History
from harness.store.cells import Cell, key_of
from harness.store.files.reading import CHECKSUM, checksum_of
from harness.store.inventory import inventory_cells
from harness.store.records import (
    KINDS,
    SCHEMA,
    SetHistory,
    StoredArtifact,
    StoredChoice,
    StoredSet,
    StoredStudent,
    StudentResult,
    parse_record,
)
from harness.store.store import RecordError, Store
from harness.types.evaluator import StudentRecord

KEY = "ab" * 32
OLD = Path(__file__).parent.parent / "data" / "store-v1"


@pytest.fixture(scope="module")
def study(data, tmp_path_factory):
    """A store with records of all kinds, made by runs."""
    path = tmp_path_factory.mktemp("records") / "store"
    small_run(data, path, evaluator=f"{KD[:-1]},temperature=[1,2]]", choose="kd.temperature")
    return path


def by_kind(path):
    """A record of each kind as JSON, with its folder."""
    return {
        content["kind"]: (folder, content)
        for folder in Store(path).folders()
        for content in [json.loads((folder / "record.json").read_text())]
    }


def rewrite(folder, change):
    """Change a record on disk, with a checksum that is right."""
    content = json.loads((folder / "record.json").read_text())
    del content[CHECKSUM]
    change(content)
    content[CHECKSUM] = checksum_of(content)
    (folder / "record.json").write_text(json.dumps(content, indent=1, sort_keys=True))
    return content


def test_each_kind_is_read_as_its_model(study):
    models = {kind: type(Store(study).read(folder)) for kind, (folder, _) in by_kind(study).items()}
    assert models == KINDS
    assert {
        "student": StoredStudent, "distilled": StoredSet, "artifact": StoredArtifact, "choice": StoredChoice,
    } == KINDS  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_written_as_it_was_read(study, tmp_path, kind):
    folder, content = by_kind(study)[kind]
    record = Store(study).read(folder)
    assert record.as_json() == content
    files = {name: lambda path: shutil.copy(folder / path.name, path) for name in record.files}
    store = Store(tmp_path / "other").open()
    assert store.commit(record, files) == record
    assert (store.folder(record.key) / "record.json").read_bytes() == (folder / "record.json").read_bytes()
    assert store.record(record.key) == record


@pytest.mark.parametrize("path", sorted(OLD.glob("cells/??/*/record.json")), ids=lambda path: path.parent.name[:8])
def test_old_records_survive_the_round_trip(path):
    record = Store(OLD).read(path.parent)
    assert record.as_json() == json.loads(path.read_text())
    assert record.key == path.parent.name.partition("-")[0] == key_of(record.as_json()["identity"])


def test_a_record_cannot_be_changed(study):
    folder, content = by_kind(study)["student"]
    record = Store(study).read(folder)
    with pytest.raises(ValidationError, match="frozen"):
        record.label = "another"
    with pytest.raises(ValidationError, match="frozen"):
        record.result.accuracy = 1.0
    with pytest.raises(ValidationError, match="frozen"):
        record.provenance.compute.device = "cuda"
    assert record.as_json() == content


def test_fields_that_no_model_names_are_kept_and_shown(study, tmp_path):
    store = shutil.copytree(study, tmp_path / "store")
    (folder, _), new = by_kind(store)["student"], {"a": [1, None]}

    def add(content):
        content["novel"] = new
        for part in ("result", "provenance"):
            content[part]["novel"] = new
        content["provenance"]["compute"]["novel"] = new

    content = rewrite(folder, add)
    record = Store(store).read(folder)
    assert record.as_json() == content
    shown = ddbench("results", "show", record.key, "--store", store, "--json")
    assert json.loads(shown.stdout) == content
    (row,) = [row for row in inventory_cells(Store(store)) if row.key == record.key]
    assert row.result["novel"] == new
    assert json.loads(ddbench("results", "list", "--store", store, "--json").stdout)["cells"]
    assert "0 things wrong" in ddbench("results", "verify", "--store", store).stdout
    again = Store(store).commit(record)
    assert {**again.as_json(), "files": {}, CHECKSUM: ""} == {**content, "files": {}, CHECKSUM: ""}


def test_numbers_are_shown_as_they_lie_on_disk(study, tmp_path):
    store = shutil.copytree(study, tmp_path / "store")
    folder, _ = by_kind(store)["student"]
    content = rewrite(folder, lambda content: content["result"].update(seconds=3))
    assert Store(store).read(folder).result.seconds == 3.0
    shown = ddbench("results", "show", content["key"], "--store", store, "--json").stdout
    assert '"seconds": 3,' in shown


def test_fields_of_later_versions_have_defaults():
    record = a_record(KEY)
    assert (record.provenance.sources, record.provenance.set, record.provenance.versions) == ({}, [], None)
    assert (record.finished, record.set, record.files, record.checksum) == ("", None, {}, "")
    assert record.as_json()["provenance"] == {"compute": {"device": "cpu"}}, "no default is written"


def test_the_schema_files_and_checksum_are_set_by_the_store(tmp_path):
    record = a_record(KEY, schema=7, files={"gone": "ab"}, checksum="old")
    written = Store(tmp_path).open().commit(record, {"a.txt": lambda path: path.write_text("a")})
    content = written.as_json()
    assert (content["schema"], list(written.files)) == (SCHEMA, ["a.txt"])
    assert checksum_of({name: content[name] for name in content if name != CHECKSUM}) == written.checksum


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "teacher"}, "its kind is 'teacher', and not one of student, distilled"),
        ({"kind": None}, "its kind is None"),
        ({"key": "zz"}, "key is 'zz'"),
        ({"label": 3}, "label is 3"),
        ({"result": []}, "result is []"),
        ({"provenance": {"compute": {}}}, "provenance.compute.device: Field required"),
        ({"provenance": {"compute": {"device": "cpu"}, "sources": {"dc": 3}}}, "provenance.sources.dc is 3"),
    ],
    ids=str,
)
def test_what_no_record_can_hold_is_refused(change, says):
    content = {**a_record(KEY).as_json(), **change}
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_record(content)


def test_no_part_of_a_record_that_is_refused_is_used(study, tmp_path):
    store = shutil.copytree(study, tmp_path / "store")
    folder, content = by_kind(store)["choice"]
    rewrite(folder, lambda content: content["condition"].pop("dataset"))
    with pytest.raises(RecordError, match=r"condition\.dataset: Field required.*results discard"):
        Store(store).record(content["key"])
    assert Store(store).sound(content["key"]) is None


def test_what_became_of_a_cell_is_said_in_one_word(study):
    contents = {kind: content for kind, (_, content) in by_kind(study).items()}
    student, distilled = contents["student"], contents["distilled"]
    sound, collapsed = ({**student, "result": {**student["result"], "collapsed": value}} for value in (False, True))
    diverged = {**distilled, "result": {**distilled["result"], "status": "diverged"}}
    words = [parse_record(content).outcome for content in (sound, collapsed, distilled, diverged)]
    assert words == ["done", "collapsed", "done", "diverged"]
    assert [a_record(KEY, result).outcome for result in ({}, {"collapsed": True}, {"status": "cut"})] == [
        "done", "collapsed", "cut",
    ]  # fmt: skip
    assert parse_record(contents["choice"]).outcome == "done"
    assert parse_record(contents["choice"]).finished == ""


def test_a_record_by_a_different_version_of_the_code_is_stale():
    cell = Cell("artifact", {}, "a cell", {"dc": "new"})
    written = ({}, {"dc": "new"}, {"dc": "old"}, {"other": "old"})
    provenances = [{"compute": {"device": "cpu"}, "code_digests": digests} for digests in written]
    stale = [cell.is_stale(a_record(KEY, provenance=provenance)) for provenance in provenances]
    assert stale == [False, False, True, False]


def test_the_models_and_the_states_of_cells_need_no_torch():
    modules = ("records", "cell_states", "run_status", "inventory")
    code = (
        f"import sys, {', '.join(f'harness.store.{name}' for name in modules)}\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_records_of_a_store_are_those_on_its_disk(study):
    store = Store(study)
    on_disk = {content["key"]: content for content in records(study).values()}
    assert {record.key: record.as_json() for record in store.records()} == on_disk


def test_a_result_has_the_fields_of_what_evaluators_return():
    assert {field.name for field in dataclasses.fields(StudentRecord)} <= StudentResult.model_fields.keys()
    assert {field.name for field in dataclasses.fields(History)} == SetHistory.model_fields.keys()
