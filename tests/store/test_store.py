"""Records are whole or not there, never changed, and what is wrong with a store is said in one line."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from studies import Heard, a_record, ddbench, leftovers, numbers, records, small_run, small_words

from harness.errors import StoreError
from harness.store.store import Store

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store").open()


def write(text):
    return lambda path: path.write_text(text)


def assert_one_line(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("ddbench: error:")]
    assert result.stderr.splitlines()[-1] == line
    assert "Traceback" not in result.stderr
    for word in words:
        assert str(word) in line


def test_what_is_committed_is_read_again(store):
    written = store.commit(a_record(KEY, {"x": 0.1}), {"a.txt": write("a")})
    assert store.record(KEY) == written
    assert written.result == {"x": 0.1}
    assert (store.folder(KEY) / "a.txt").read_text() == "a"
    assert list(store.records()) == [written]
    assert store.record("cd" * 32) is None


def test_records_are_read_without_torch(store):
    store.commit(a_record(KEY))
    code = (
        "import sys, pathlib; from harness.store.store import Store; "
        "assert list(Store(pathlib.Path(sys.argv[1])).records()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(store.path)], check=True)


def test_attempts_lie_beside_each_other(store):
    first = store.commit(a_record(KEY, {"x": 1}))
    before = (store.folder(KEY) / "record.json").read_bytes()
    folder = store.folder(KEY)
    store.commit(a_record(KEY, {"x": 2}))
    assert store.record(KEY).result == {"x": 2}
    assert (folder / "record.json").read_bytes() == before
    assert [record.result for record in store.records()] == [{"x": 2}]
    for number in range(3, 12):
        store.commit(a_record(KEY, {"x": number}))
    assert store.record(KEY).result == {"x": 11}  # and not 9, which comes last by name
    assert first.key == KEY


def test_numbers_that_are_not_finite_are_refused(store):
    with pytest.raises(ValueError, match="JSON"):
        store.commit(a_record(KEY, {"x": float("nan")}))
    assert store.record(KEY) is None
    assert not leftovers(store.path)


@pytest.mark.parametrize("damage", ["altered", "truncated", "empty", "no checksum", "a list"])
def test_a_damaged_record_is_named(data, tmp_path, damage):
    small_run(data, tmp_path)
    path = sorted((tmp_path / "cells").glob("??/*/record.json"))[0]
    text = path.read_text()
    record = json.loads(text)
    path.write_text(
        {
            "altered": text.replace('"seed": 0', '"seed": 1').replace('"iterations": 2', '"iterations": 7'),
            "truncated": text[: len(text) // 2],
            "empty": "",
            "no checksum": json.dumps({key: value for key, value in record.items() if key != "checksum"}),
            "a list": "[]",
        }[damage]
    )
    key = path.parent.name.partition("-")[0]
    heard = Heard()
    result = small_run(data, tmp_path, reporter=heard)
    (notice,) = [notice for notice in heard.notices if str(path) in notice]
    assert f"`ddbench results discard {key[:12]}`" in notice
    assert result.failed[key] == notice
    assert heard.begun == []
    done = ddbench("run", *small_words(data, tmp_path))
    assert done.exit_code == 1
    assert notice in done.stderr.splitlines()


def test_a_store_of_a_newer_schema_is_refused(data, tmp_path):
    (tmp_path / "store.json").write_text('{"schema": 2}')
    (tmp_path / "cells").mkdir()
    for more in ([], ["--dry-run"]):
        assert_one_line(ddbench("run", *small_words(data, tmp_path), *more), tmp_path, "schema 2", "newer")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema": "one"}'])
def test_a_store_whose_marker_cannot_be_read_is_refused(data, tmp_path, text):
    (tmp_path / "store.json").write_text(text)
    (tmp_path / "cells").mkdir()
    for more in ([], ["--dry-run"]):
        assert_one_line(ddbench("run", *small_words(data, tmp_path), *more), tmp_path, "--store")


def test_a_folder_of_other_things_is_no_store(data, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for more in ([], ["--dry-run"]):
        assert_one_line(ddbench("run", *small_words(data, tmp_path), *more), tmp_path, "not a store", "--store")
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_store(data, tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    for more in ([], ["--dry-run"]):
        assert_one_line(ddbench("run", *small_words(data, path), *more), path, "--store")
    assert path.read_text() == "x"


def test_an_empty_folder_becomes_a_store(data, tmp_path):
    assert ddbench("run", *small_words(data, tmp_path), "--dry-run").exit_code == 0
    assert os.listdir(tmp_path) == []
    assert not small_run(data, tmp_path).failed


def refuse(number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    return refused


def test_a_store_that_cannot_be_made(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", refuse(errno.EACCES))
    assert_one_line(ddbench("run", *small_words(data, tmp_path / "s")), tmp_path / "s", "Permission denied", "--store")


def test_a_store_that_cannot_be_written(data, tmp_path, monkeypatch):
    Store(tmp_path).open()
    monkeypatch.setattr(Path, "write_text", refuse(errno.EROFS))
    assert_one_line(ddbench("run", *small_words(data, tmp_path)), tmp_path, "Read-only file system", "--store")


def test_leases_that_cannot_be_made(data, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse(errno.ENOSPC))
    assert_one_line(ddbench("run", *small_words(data, tmp_path)), tmp_path, "No space left")
    monkeypatch.undo()
    assert not records(tmp_path)
    assert not small_run(data, tmp_path).failed


FULL = {
    "the marker": "store.json",
    "a file": "state.safetensors",
    "the first file": "set.safetensors",
    "a record": "record.json",
}


@pytest.mark.parametrize("where", FULL)
def test_a_full_disk_leaves_nothing_half_written(data, tmp_path, monkeypatch, where):
    store, whole = tmp_path / "store", Path.write_bytes

    def full(path, content):
        if FULL[where] in path.name:
            whole(path, content[: len(content) // 2])
            refuse(errno.ENOSPC)()
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert_one_line(ddbench("run", *small_words(data, store)), store, "No space left on device", "--store")
    assert not leftovers(store)
    assert not records(store)
    monkeypatch.undo()
    assert not small_run(data, store).failed
    assert len(records(store)) == 3


def test_a_disk_that_fills_up_at_sync(data, tmp_path, monkeypatch):
    store = tmp_path / "store"
    calls = []

    def sync(descriptor):
        calls.append(descriptor)
        if len(calls) > 7:
            refuse(errno.ENOSPC)()

    monkeypatch.setattr(os, "fsync", sync)
    assert_one_line(ddbench("run", *small_words(data, store)), "No space left on device")
    assert not leftovers(store)
    done = records(store)
    monkeypatch.undo()
    heard = Heard()
    assert not small_run(data, store, reporter=heard).failed
    assert len(heard.done) == 3 - len(done)


def test_what_a_killed_run_left_is_ignored(data, tmp_path):
    small_run(data, tmp_path)
    before = numbers(tmp_path)
    scratch = tmp_path / "cells" / ".writing-1-abcd"
    shutil.copytree(next((tmp_path / "cells").glob("??/*")), scratch)
    heard = Heard()
    small_run(data, tmp_path, reporter=heard)
    assert heard.plans == [(0, 3)]
    assert list(Store(tmp_path).records())
    shutil.rmtree(scratch)
    assert numbers(tmp_path) == before


def test_a_killed_opening_can_be_repeated(data, tmp_path):
    (tmp_path / ".store.json-abcd1234").write_text("{")
    assert not small_run(data, tmp_path).failed


# --- records of a different version of the code -----------------------------------------------------------------------


def states(result):
    return {cell["kind"]: cell["state"] for cell in result.cells}


def test_stale_records_are_shown_and_kept(data, tmp_path, other_code):
    small_run(data, tmp_path)
    before = numbers(tmp_path)
    other_code("plain")
    heard = Heard()
    result = small_run(data, tmp_path, reporter=heard)
    assert states(result) == {"distilled": "done", "student": "stale"}
    assert heard.done == []
    assert any("--rerun-stale" in notice for notice in heard.notices)
    assert numbers(tmp_path) == before
    dry = ddbench("run", *small_words(data, tmp_path), "--dry-run")
    assert dry.stdout.count("stale") >= 2
    assert result.rows[0]["mean"] is not None


@pytest.mark.parametrize(("name", "redone"), [("plain", 2), ("mlp", 2), ("dc", 3), ("single", 3), ("convnet", 3)])
def test_stale_records_are_redone_beside_the_old_on_demand(data, tmp_path, other_code, name, redone):
    small_run(data, tmp_path)
    before = numbers(tmp_path)
    other_code(name)
    heard = Heard()
    result = small_run(data, tmp_path, rerun_stale=True, reporter=heard)
    assert len(heard.done) == redone
    assert set(states(result).values()) == {"done"}
    after = numbers(tmp_path)
    assert len(after) == len(before) + redone
    assert {key: after[key] for key in before} == before
    for attempt in [key for key in after if key.endswith("-2")]:
        assert after[attempt] == before[attempt.replace("-2", "-1")]  # the code did not really change
    again = Heard()
    small_run(data, tmp_path, rerun_stale=True, reporter=again)
    assert again.done == []


def test_a_file_is_checked_against_its_digest_before_it_is_used(store):
    store.commit(a_record(KEY), {"a.txt": write("a")})
    path = store.file(KEY, "a.txt")
    assert path.read_text() == "a"
    path.write_text("b")
    with pytest.raises(StoreError, match=r"a\.txt is missing or was altered: `ddbench results discard abababababab`"):
        store.file(KEY, "a.txt")
    path.unlink()
    with pytest.raises(StoreError, match="missing or was altered"):
        store.file(KEY, "a.txt")


def test_a_damaged_set_is_reported_with_its_place(data, tmp_path):
    store = tmp_path / "store"
    small_run(data, store)
    (path,) = store.glob("cells/*/*/set.safetensors")
    path.write_bytes(b"damaged")
    result = ddbench("run", *small_words(data, store, students=3), "--json")
    assert result.exit_code == 1
    key = path.parent.name.partition("-")[0]
    notice = f"{path} is missing or was altered: `ddbench results discard {key[:12]}` sets it aside, and then"
    assert notice in result.stderr
    states = {cell["label"]: cell["state"] for cell in json.loads(result.stdout)["cells"]}
    assert sorted(states.values()) == ["blocked", "damaged", "done", "done"]
