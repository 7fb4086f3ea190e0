"""A store under stress: what is wrong is named, nothing good is lost, and what is bad is redone only on request."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from studies import ARCHITECTURE, POOL, Heard, ddbench, leftovers, numbers, records, small_run, small_words

from harness.store.cells import canonical_json
from harness.store.store import Store

OTHER = "mlp[width=4]"


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A store with one set and two students, and its numbers."""
    path = tmp_path_factory.mktemp("whole") / "store"
    small_run(data, path)
    return path


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


def folder_of(store, kind):
    """Of the first cell of a kind."""
    key = min(record["key"] for record in records(store).values() if record["kind"] == kind)
    return Store(store).folder(key)


def key_of(folder):
    return folder.name.partition("-")[0]


def newer(folder):
    """The record as a later ddbench would write it."""
    record = json.loads((folder / "record.json").read_text())
    record = {"schema": 2, "key": record["key"], "what": ["is", "to", "come"]}
    digest = hashlib.sha3_256(canonical_json(record).encode()).hexdigest()
    (folder / "record.json").write_text(json.dumps(record | {"checksum": digest}))


def truncated(folder):
    os.truncate(folder / "record.json", 300)


def altered(folder):
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(text.replace('"seed": 0', '"seed": 1'))


BAD = {
    "newer": (newer, "has schema 2, and this ddbench knows up to 1: use a newer one"),
    "truncated": (truncated, "record.json cannot be read"),
    "altered": (altered, "record.json was altered (checksum)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_student_is_named_and_the_others_go_on(data, store, name):
    spoil, says = BAD[name]
    folder = folder_of(store, "student")
    spoil(folder)
    bad = (folder / "record.json").read_bytes()
    heard = Heard()
    result = small_run(data, store, students=4, architecture=[ARCHITECTURE, OTHER], reporter=heard)
    (notice,) = [notice for notice in heard.notices if str(folder) in notice]
    assert says in notice
    assert result.failed == {key_of(folder): notice}
    assert [cell["state"] for cell in result.cells if cell["key"] == key_of(folder)] == ["damaged"]
    assert {cell["state"] for cell in result.cells} == {"damaged", "done"}
    assert [row["students"] for row in result.rows] == [3, 4]
    assert len(heard.done) == 6
    assert (folder / "record.json").read_bytes() == bad
    done = ddbench("results", "verify", "--store", store)
    assert done.exit_code == 1
    assert [line for line in done.stdout.splitlines() if says in line] == [notice]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_set_blocks_what_needs_it_and_nothing_else(data, store, name):
    spoil, says = BAD[name]
    folder = folder_of(store, "distilled")
    spoil(folder)
    result = small_run(data, store, students=3, iterations=[2, 3], pool=["single[main=mlp[width=4]]", POOL])
    states = [(cell["kind"], cell["state"]) for cell in result.cells]
    assert ("distilled", "damaged") in states
    assert says in result.failed[key_of(folder)]
    blocked = [cell for cell in result.cells if cell["state"] == "blocked"]
    assert [cell["kind"] for cell in blocked] == ["student", "distilled", "student", "student", "student"]
    assert all("is damaged: " in cell["reason"] and says in cell["reason"] for cell in blocked)
    assert [row["students"] for row in result.rows] == [3, 3, 2, 0]


def test_a_newer_record_is_neither_shown_nor_lost_nor_compared(store, tmp_path):
    folder = folder_of(store, "student")
    newer(folder)
    listed = json.loads(ddbench("results", "list", "--store", store, "--json").stdout)
    assert [cell["label"] for cell in listed["cells"] if "schema 2" in cell["label"]]
    shown = ddbench("results", "show", key_of(folder)[:12], "--store", store)
    assert shown.exit_code == 2
    assert "schema 2" in shown.stderr
    compared = ddbench("compare", store, "--by", "architecture", "--baseline", ARCHITECTURE)
    assert "schema 2" in compared.output
    ddbench("results", "clean", "--superseded", "--yes", "--store", store)
    assert (folder / "record.json").exists()
    assert ddbench("report", store, "--output", tmp_path / "page.html").exit_code == 0


def test_data_without_a_marker_are_no_cell_and_stay_until_they_are_cleaned(data, store):
    """What a crash between the two would leave, if files were not renamed in one go."""
    before, folder = numbers(store), folder_of(store, "student")
    (folder / "record.json").unlink()
    (folder / "more.bin").write_text("x")
    heard = Heard()
    assert not small_run(data, store, reporter=heard).failed
    assert [cell.key for cell in heard.done] == [key_of(folder)]
    assert (folder / "more.bin").exists()
    after = numbers(store)
    assert after[f"{key_of(folder)}-2"] == before[f"{key_of(folder)}-1"]
    done = ddbench("results", "verify", "--store", store)
    assert (
        f"{folder}/record.json is missing, so that its folder is ignored: `ddbench results clean` removes"
        in done.stdout
    )
    ddbench("results", "clean", "--yes", "--store", store)
    assert not folder.exists()
    assert numbers(store) == after


def test_where_the_newer_of_two_attempts_is_bad_the_older_counts_on_request(data, store):
    folder = folder_of(store, "student")
    record = Store(store).record(key_of(folder))
    Store(store).commit(record)
    altered(Store(store).folder(record.key))
    result = small_run(data, store)
    assert list(result.failed) == [record.key]
    assert f"`ddbench results discard {record.key[:12]}`" in result.failed[record.key]
    assert ddbench("results", "discard", record.key, "--store", store).exit_code == 0
    heard = Heard()
    assert not small_run(data, store, reporter=heard).failed
    assert heard.done == []
    assert Store(store).record(record.key) == record


# --- what the operating system refuses -------------------------------------------------------------------------------


@pytest.fixture
def refuse(monkeypatch, store):
    """From now on nothing can be written in the store, for a reason."""

    def refuse(number):
        def refused(call):
            def refusing(*arguments, **options):
                if any(str(argument).startswith(str(store)) for argument in arguments):
                    raise OSError(number, os.strerror(number))
                return call(*arguments, **options)

            return refusing

        for owner, names in (
            (Path, ("mkdir", "touch", "write_bytes", "write_text", "unlink")),
            (os, ("link", "replace")),
        ):
            for name in names:
                monkeypatch.setattr(owner, name, refused(getattr(owner, name)))

    return refuse


def contents(store):
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_store_that_cannot_be_written_can_be_read(store, refuse, tmp_path, number):
    key = key_of(folder_of(store, "distilled"))
    before = contents(store)
    refuse(number)
    for words in (
        ["results", "list", "--store", store],
        ["results", "show", key, "--store", store],
        ["results", "verify", "--store", store],
        ["compare", store, "--by", "architecture", "--baseline", ARCHITECTURE],
        ["report", store, "--output", tmp_path / "page.html"],
        ["convert", key, tmp_path / "set.npz", "--store", store],
    ):
        result = ddbench(*words)
        assert result.exit_code == 0, result.output
    assert contents(store) == before


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_store_that_cannot_be_written_is_one_line_for_all_that_write(data, store, refuse, number):
    key = key_of(folder_of(store, "distilled"))
    (store / "cells" / ".probe-abcd").write_text("left")
    before = contents(store)
    refuse(number)
    for words in (
        ["run", *small_words(data, store)],
        ["results", "clean", "--yes", "--store", store],
        ["results", "discard", key, "--store", store],
    ):
        result = ddbench(*words)
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        assert os.strerror(number) in line
        assert str(store) in line
    assert contents(store) == before


def test_a_disk_that_is_full_after_the_first_cells_keeps_these(data, tmp_path, monkeypatch):
    store, rename = tmp_path / "store", Path.rename

    def full(path, target):
        if "cells" in target.parts and len(records(store)) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    result = ddbench("run", *small_words(data, store))
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("No space left on device; free it or choose another with --store")
    assert (len(records(store)), leftovers(store)) == (2, [])
    assert ddbench("results", "verify", "--store", store).exit_code == 0
    monkeypatch.undo()
    heard = Heard()
    assert not small_run(data, store, reporter=heard).failed
    assert len(heard.done) == 1


@pytest.mark.usefixtures("toys")
def test_a_disk_that_is_full_when_a_failure_is_noted(data, tmp_path, monkeypatch):
    store, write = tmp_path / "store", Path.write_bytes

    def full(path, content):
        if "failures" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    result = ddbench("run", *small_words(data, store, method="boom"))
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr.splitlines()[-1]
    assert list((store / "failures").iterdir()) == []
    assert (records(store), leftovers(store)) == ({}, [])
