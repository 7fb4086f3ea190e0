"""A file of a store that is damaged is named, with what to do about it; the rest of the store is used as ever."""

import hashlib
import json
import os
import shutil

import pytest
from studies import Heard, a_record, ddbench, small_run, small_words

from harness.errors import StoreError
from harness.running.event_log import EventLog
from harness.store import verification
from harness.store.cells import canonical_json
from harness.store.event_files import ENDED, CellName, EventReader
from harness.store.failures import Failure, Failures
from harness.store.locking.leases import Leases
from harness.store.store import Store
from harness.types.evaluator import StudentRecord
from harness.types.plurals import counted
from mpdd_plugins.evaluators import plain

KEY = "ab" * 32
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def sound_store(data, tmp_path_factory):
    """A store with one set and two students."""
    path = tmp_path_factory.mktemp("made") / "store"
    small_run(data, path)
    return path


@pytest.fixture
def store(sound_store, tmp_path, monkeypatch):
    """A copy to spoil, at which nobody looks twice."""
    monkeypatch.setattr(verification, "SECOND_LOOK", 0.0)
    return shutil.copytree(sound_store, tmp_path / "store")


def paths(store, kind):
    """The sound records of a kind."""
    opened = Store(store)
    sound = [record for key in opened.attempts() if (record := opened.sound(key)) and record.kind == kind]
    return [opened.folder(record.key) / "record.json" for record in sound]


def count(store):
    """How many attempts there are, damaged ones too."""
    return sum(map(len, Store(store).attempts().values()))


def listings(store):
    """Commands that read the whole store."""
    return ["results", "list", "--store", store], ["status", "--store", store], ["compare", store, "--by", "ipc"]


def verified(store):
    """The lines of what is wrong."""
    result = ddbench("results", "verify", "--store", store)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    lines = [line for line in result.stdout.splitlines() if not line.startswith("note: ")]
    assert result.exit_code == int(len(lines) > 1)
    assert f", {counted(len(lines) - 1, 'thing')} wrong" in lines[-1]
    return lines[:-1]


def goes_on(*words, exit_code=0):
    result = ddbench(*words)
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    return result


def rewrite(path, change):
    """Alter a record, and give it a fitting checksum."""
    record = json.loads(path.read_text())
    record.pop("checksum")
    change(record)
    checksum = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    path.write_text(json.dumps({**record, "checksum": checksum}))


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["null", "5", '"abc"', DEEP, "pipe"])
def test_a_record_that_is_none_is_named_and_the_rest_is_made(data, store, text):
    path, _ = paths(store, "student")
    path.unlink()
    if text == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(text)
    (line,) = verified(store)
    assert line.startswith(f"{path} cannot be read (")
    assert "`ddbench results discard" in line
    done = goes_on("run", *small_words(data, store, students=3), exit_code=1)
    assert line in done.stderr
    assert count(store) == 4
    for words in (
        ["results", "list", "--store", store],
        ["status", "--store", store],
        ["compare", store, "--by", "ipc"],
    ):
        assert str(path) in goes_on(*words).output


VALUES = {
    "accuracy": (None, "0.5", 1.5, -0.1, True, [0.5], 2**70),
    "collapsed": (None, 1, "no"),
    "seconds": (None, -1, "long"),
    "loss": ("nan", [1]),
    "student": (-1, 1.5, "0"),
    "seed": (None, "0"),
    "architecture": (None, 3),
    "score_on": ("tests", None),
    "losses": ([None, "x"], {}),
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in VALUES for value in VALUES[field]])
def test_a_result_of_another_type_or_out_of_range_is_a_damaged_record(store, field, value):
    path, other = paths(store, "student")
    rewrite(path, lambda record: record["result"].update({field: value}))
    (line,) = verified(store)
    assert line.startswith(f"{path} cannot be used (result.{field}")
    answer = json.loads(goes_on("compare", store, "--by", "ipc", "--format", "json").stdout)
    assert any(line in note for note in answer["notes"])
    (row, *_) = answer["rows"]
    assert (row["scores"], row["mean"]) == (1, json.loads(other.read_text())["result"]["accuracy"])


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("distilled", lambda record: record["result"].update(status="gone"), "result.status is 'gone'"),
        ("distilled", lambda record: record["history"].update(draws=[[7]]), "an index in draws is beyond"),
        ("distilled", lambda record: record["history"]["scalars"].update(loss=["x"]), "history.scalars.loss.0"),
        (
            "distilled",
            lambda record: record["identity"]["trajectory"].pop("precision"),
            "identity.trajectory.precision",
        ),
        ("student", lambda record: record.update(kind="teacher"), "its kind is 'teacher'"),
        ("student", lambda record: record.pop("provenance"), "provenance: Field required"),
        ("student", lambda record: record.update(schema=0), "its schema is 0"),
        ("student", lambda record: record["identity"].update(seed=3), "is of another cell (by its identity)"),
    ],
)
def test_what_a_record_says_of_its_cell_is_checked(store, kind, change, says):
    path = paths(store, kind)[0]
    rewrite(path, change)
    assert any(line.startswith(str(path)) and says in line for line in verified(store))
    goes_on("results", "list", "--store", store)


def test_the_record_of_another_cell_is_not_used_in_its_place(data, store):
    path, other = paths(store, "student")
    shutil.copyfile(other, path)
    (line,) = verified(store)
    assert "is of another cell" in line
    assert line in goes_on("run", *small_words(data, store), exit_code=1).stderr


def test_a_score_that_no_record_can_hold_is_a_failed_cell(data, tmp_path, monkeypatch):
    def evaluate(self, distilled, problem, architecture, students, artifacts, streams):
        for student in students:
            yield StudentRecord(student, 7.0, 0.5, 1, 0.1, 1, False)

    monkeypatch.setattr(plain.Plain, "evaluate", evaluate)
    result = small_run(data, tmp_path)
    assert [cell["state"] for cell in result.cells if cell["kind"] == "student"] == ["failed", "failed"]
    assert all("accuracy" in reason for reason in result.failed.values())
    assert paths(tmp_path, "student") == []


def test_status_names_damaged_cells_and_what_they_block(store):
    (path,) = paths(store, "distilled")
    student = paths(store, "student")[0]
    shutil.rmtree(student.parent)
    path.write_text("null")
    (run,) = json.loads(goes_on("status", "--json", "--store", store).stdout)["runs"]
    assert run["counts"] == {
        "done": 1,
        "running": 0,
        "failed": 0,
        "damaged": 1,
        "blocked": 1,
        "waiting": 0,
        "unneeded": 0,
    }
    text = goes_on("status", "--store", store).stdout
    assert f"{path} cannot be read (it holds no object): `ddbench results discard" in text


def test_a_damaged_set_on_the_way_is_passed_over(data, store):
    (path,) = paths(store, "distilled")
    path.write_text("null")
    heard = Heard()
    assert not small_run(data, store, iterations=3, reporter=heard).failed
    assert heard.steps == [1, 2, 3]
    assert any(str(path) in notice and "passed over" in notice for notice in heard.notices)


def test_a_damaged_attempt_hides_no_older_one_that_counts(store):
    """An attempt whose record is missing counts for nothing, in tables too."""
    path = paths(store, "student")[0]
    key = path.parent.name.partition("-")[0]
    shutil.copytree(path.parent, path.parent.with_name(f"{key}-2"))
    (path.parent.with_name(f"{key}-2") / "record.json").unlink()
    assert len(verified(store)) == 1
    assert Store(store).folder(key) == path.parent
    assert path.parent in Store(store).folders()


# --- store.json -------------------------------------------------------------------------------------------------------

MARKERS = {
    "missing": lambda path: path.unlink(),
    "flipped": lambda path: path.write_text('{"sbhema":1}'),
    "flipped to a newer schema": lambda path: path.write_text('{"schema":3}'),
    "flipped to none": lambda path: path.write_text('{"schema":0}'),
    "deep": lambda path: path.write_text(DEEP),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link": lambda path: (path.unlink(), path.symlink_to(path)),
}


@pytest.mark.parametrize("name", MARKERS)
def test_a_lost_marker_is_made_again_beside_sound_records(data, store, name):
    MARKERS[name](store / "store.json")
    (line,) = verified(store)
    assert line.startswith(f"{store / 'store.json'} ")
    assert 'write {"schema":1} into its store.json' in line
    for words in (
        ["results", "list", "--store", store],
        ["status", "--store", store],
        ["compare", store, "--by", "ipc"],
    ):
        assert str(store / "store.json") in goes_on(*words).output
    heard = Heard()
    assert not small_run(data, store, students=3, reporter=heard).failed
    assert any("store.json" in notice and "it was made again" in notice for notice in heard.notices)
    assert (store / "store.json").read_text() == '{"schema":1}'
    assert verified(store) == []


def test_a_newer_store_is_not_taken_for_a_damaged_one(store):
    (store / "store.json").write_text('{"schema":2}')
    rewrite(paths(store, "student")[0], lambda record: record.update(schema=2))
    refused = goes_on("results", "list", "--store", store, exit_code=2)
    assert "has schema 2, and this ddbench knows up to 1" in refused.stderr


def test_without_a_sound_record_a_lost_marker_is_refused_with_the_remedy(store):
    (store / "store.json").unlink()
    for path in store.glob("cells/??/*/record.json"):
        path.write_text("null")
    refused = goes_on("results", "list", "--store", store, exit_code=2)
    assert "store.json is missing" in refused.stderr
    assert 'write {"schema":1} into its store.json' in refused.stderr


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def failed(store):
    """A store with a failed student, and its note."""
    path = paths(store, "student")[0]
    record = json.loads(path.read_text())
    shutil.rmtree(path.parent)
    failure = Failure(record["key"], "student", record["label"], "RuntimeError: no \udcff", "a\ntext \udcff")
    Store(store).failures.note(failure)
    return store, store / "failures" / f"{record['key']}.json"


def test_what_cannot_be_encoded_is_noted_with_escapes(failed):
    store, path = failed
    assert verified(store) == []
    assert "no \\udcff" in goes_on("results", "show", path.stem, "--store", store).stdout


@pytest.mark.parametrize("how", ["high bit", "low bit", "deep", "folder", "pipe", "empty"])
def test_a_note_that_cannot_be_read_is_a_failure_that_stops_nothing(data, failed, how):
    store, path = failed
    content = bytearray(path.read_bytes())
    content[100] ^= 0x80 if how == "high bit" else 1
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes({"deep": DEEP.encode(), "empty": b""}.get(how, bytes(content)))
    (line,) = verified(store)
    assert line.startswith(f"{path} cannot be read (")
    assert "`ddbench run --retry-failed` makes the cell again" in line
    assert str(path) in goes_on("results", "show", path.stem, "--store", store).stdout
    goes_on("results", "list", "--store", store)
    before = count(store)
    done = goes_on("run", *small_words(data, store, students=3), exit_code=1)
    assert str(path) in done.stderr + done.stdout
    assert count(store) == before + 1
    goes_on("run", *small_words(data, store, students=3), "--retry-failed")
    assert verified(store) == []


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_the_text_of_a_failure_is_sealed_by_its_note(failed, how):
    store, path = failed
    log = path.with_suffix(".log")
    if how == "altered":
        log.write_text(log.read_text().replace("a", "b"))
    else:
        log.unlink()
    (line,) = verified(store)
    assert line.startswith(f"{log} {'was altered' if how == 'altered' else 'is missing'}")


def test_a_note_without_a_checksum_is_of_an_older_version_and_read(store):
    (store / "failures").mkdir(exist_ok=True)
    note = {"key": KEY, "kind": "student", "label": "a cell", "reason": "no luck", "at": "2026-01-01", "host": "here"}
    (store / "failures" / f"{KEY}.json").write_text(json.dumps(note))
    assert Failures(store).get(KEY).reason == "no luck"
    assert verified(store) == []


# --- leases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["folder", "pipe", "link", "loop"])
def test_what_no_holder_made_holds_nobody_up(tmp_path, what):
    path = tmp_path / "leases" / f"{KEY}.1"
    path.parent.mkdir()
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path),
    }[what]()
    with Leases(tmp_path).hold(KEY, "mine") as lease:
        assert lease.path.name == f"{KEY}.2"
        assert [holder.pid for holder in Leases(tmp_path).all()] == [os.getpid()]
    with Leases(tmp_path).hold(KEY, "mine"):
        pass


@pytest.mark.parametrize("name", [f"{KEY}.01", f"{KEY}.٣", f"{KEY}.{'9' * 60}", f"{KEY}.0", f"{KEY}.-1", "strange"])
def test_names_that_no_lease_has_hold_nobody_up(tmp_path, name):
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / name).write_text("{}")
    with Leases(tmp_path).hold(KEY, "mine") as lease:
        assert lease.path.name == f"{KEY}.1"


@pytest.mark.parametrize("change", [{"cell": ["x"]}, {"pid": 10**30}, {"iteration": "x"}, {"start": 1.5}])
def test_what_a_lease_says_is_checked_before_it_is_used(store, change):
    with Store(store).leases.hold(KEY, "theirs") as lease:
        content = json.loads(lease.path.read_text())
    content.pop("checksum")
    lease.path.write_text(json.dumps(content | change))
    (line,) = verified(store)
    assert line.startswith(f"{lease.path} cannot be read (its {next(iter(change))} is")
    goes_on("status", "--store", store)


# --- runs and events --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "plan.json"])
@pytest.mark.parametrize("how", ["flipped", "missing", "pipe", "deep"])
def test_the_files_of_a_run_are_named_and_made_again(data, store, name, how):
    (path,) = store.glob(f"runs/*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how != "missing":
        path.write_bytes(DEEP.encode() if how == "deep" else bytes(content))
    (line,) = verified(store)
    assert line.startswith(str(path))
    assert "give the command of that run again" in line
    goes_on("status", "--store", store)
    small_run(data, store)
    assert verified(store) == []


def test_a_cell_that_needs_itself_keeps_nobody_busy(store):
    cells = [[KEY, "student", "a", [1]], ["cd" * 32, "student", "b", [0]]]
    plan = {"schema": 1, "run": "x", "label": "y", "created": "z", "executor": "local", "jobs": [{"cells": cells}]}
    (store / "runs" / "x").mkdir()
    (store / "runs" / "x" / "plan.json").write_text(json.dumps(plan))
    assert "2 waiting" in goes_on("status", "--store", store).stdout


@pytest.mark.parametrize("what", ["pipe", "folder", "link"])
def test_what_lies_in_the_place_of_a_file_of_events_is_set_aside(store, what):
    path = next((store / "runs").iterdir()) / "ab.events"
    {"pipe": lambda: os.mkfifo(path), "folder": path.mkdir, "link": lambda: path.symlink_to("/dev/null")}[what]()
    (line,) = verified(store)
    assert line.startswith(f"{path} cannot be read (it is a {what}")
    assert list(EventReader(path).new()) == []
    heard = []
    log = EventLog(Store(store, heard.append), path)
    log.notice("hello \udcff")
    log.end(ENDED)
    assert [event["text"] for event in EventReader(path).new()] == ["hello ?", ""]
    assert heard == [f"{path} is a {what}, and was moved to {store / 'discarded' / 'ab.events'}"]
    assert verified(store) == []


@pytest.mark.parametrize(
    "line",
    [
        "null",
        DEEP,
        '{"event": "started"}',
        '{"event": "step", "cell": ["a"], "iteration": 1}',
        '{"event": "notice"}',
        "é",
    ],
)
def test_a_line_that_is_no_event_is_passed_over_and_named(store, line):
    path = next((store / "runs").iterdir()) / "ab.events"
    log = EventLog(Store(store), path)
    log.started(CellName(KEY, "student", "a cell"))
    log.end(ENDED)
    with path.open("a", encoding="latin-1") as file:
        file.write(line)
    assert verified(store) == []  # somebody may be writing it
    with path.open("a") as file:
        file.write("\n")
    assert [event["event"] for event in EventReader(path).new()] == ["started", ENDED]
    (said,) = verified(store)
    assert said.startswith(f"{path} cannot be read (line 3 is not an event)")


def test_a_store_at_work_is_sound(data, store):
    path = next((store / "runs").iterdir()) / "ab.events"
    with Store(store).leases.hold(KEY, "a trajectory " + "é" * 400) as lease:
        lease.report(cell=KEY, iteration=1, total=9)
        lease.beat()
        log = EventLog(Store(store), path)
        log.step(CellName(KEY, "student", "a cell"), 1, 2, {"loss": float("nan")})
        (store / "cells" / ".writing-1-abcd").mkdir()
        assert verified(store) == []
        log.end(ENDED)


def test_what_changes_between_two_looks_is_not_wrong(store, monkeypatch):
    """A file that is replaced while it is read is sound when it is looked at again."""
    path = paths(store, "student")[0]
    content = path.read_text()
    path.write_text("")
    monkeypatch.setattr(verification.time, "sleep", lambda _: path.write_text(content))
    assert verified(store) == []


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["failures", "leases", "runs", "partial"])
@pytest.mark.parametrize("what", ["file", "loop"])
def test_what_lies_in_the_place_of_a_folder_is_set_aside(data, store, name, what):
    shutil.rmtree(store / name, ignore_errors=True)
    (store / name).write_text("mine") if what == "file" else (store / name).symlink_to(name)
    (line,) = verified(store)
    assert line == f"{store / name} is not a folder: move it away"
    goes_on("status", "--store", store)
    heard = Heard()
    assert not small_run(data, store, students=3, reporter=heard).failed
    assert f"{store / name} is not a folder, and was moved to {store / 'discarded' / name}" in heard.notices
    assert os.path.lexists(store / "discarded" / name)
    assert verified(store) == []


def test_a_file_in_the_place_of_a_shelf_is_set_aside(store):
    (store / "cells" / KEY[:2]).write_text("mine")
    heard = []
    opened = Store(store, heard.append)
    assert opened.folder(KEY) is None
    assert opened.commit(a_record(KEY))
    assert heard == [f"{store / 'cells' / KEY[:2]} is not a folder, and was moved to {store / 'discarded' / KEY[:2]}"]


def test_a_shelf_that_cannot_be_read_hides_no_other(data, store, monkeypatch):
    path = paths(store, "student")[0]
    scandir = os.scandir

    def refuse(place):
        if str(place) == str(path.parent.parent):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    shelf = path.parent.parent
    assert any(line.startswith(f"{shelf} cannot be read (Permission denied)") for line in verified(store))
    assert str(shelf) in goes_on("results", "list", "--store", store).stderr
    done = goes_on("run", *small_words(data, store), "--architecture", "lenet", exit_code=1)
    assert str(shelf) in done.stderr
    assert count(store) > 2


@pytest.mark.parametrize("name", ["strange", "x" * 64 + "-1", KEY + "-0", KEY + "-01", KEY + "-²", KEY.upper() + "-1"])
def test_what_has_no_business_on_a_shelf_is_named(store, name):
    shelf = store / "cells" / KEY[:2]
    (shelf / name).mkdir(parents=True)
    (line,) = verified(store)
    assert line == f"{shelf / name} does not belong in a store: move it away"
    assert Store(store).next_attempt(KEY) == 1


@pytest.mark.parametrize("name", ["x" * 200, "a \n\tb", "strange", KEY.upper(), f"{KEY}-1"])
def test_what_is_no_cell_in_the_making_is_named(store, name):
    (store / "partial" / name).mkdir(parents=True)
    (store / "partial" / KEY).mkdir()
    (line,) = verified(store)
    assert "does not belong in a store: move it away" in line


def test_folders_that_are_nested_deep_are_measured(store):
    here = os.getcwd()
    os.makedirs(store / "partial" / KEY)
    os.chdir(store / "partial" / KEY)
    for _ in range(600):
        os.mkdir("a")
        os.chdir("a")
    with open("file", "w") as file:
        file.write("x")
    os.chdir(here)
    goes_on("results", "list", "--store", store)
    assert any("does not belong in a store" in line for line in verified(store))
    with pytest.raises(StoreError):
        Store(store / "nothing").check_schema()
    os.system(f"rm -rf {store / 'partial'}")
