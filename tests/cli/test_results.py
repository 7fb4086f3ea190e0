"""`ddbench results` through its front door."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from studies import EVALUATOR, ddbench, numbers, records, small_run
from test_run import assert_refused

from harness.store.cells import canonical_json
from harness.store.record_files import read_raw_record
from harness.store.store import Store


@pytest.fixture(scope="module")
def pristine_store(data, tmp_path_factory):
    """A store with one set, two students and an older attempt at one of them."""
    path = tmp_path_factory.mktemp("made") / "store"
    small_run(data, path)
    store = Store(path)
    store.commit(next(record for record in store.records() if record.kind == "student"))
    return path


@pytest.fixture
def store(pristine_store, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(pristine_store, tmp_path / "store")


def run(*words):
    result = ddbench("results", *words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def read(*words):
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def keys(store, kind):
    return sorted({record["key"] for record in records(store).values() if record["kind"] == kind})


def folder_of(store, kind):
    return Store(store).folder(keys(store, kind)[0])


# --- list, show, path -------------------------------------------------------------------------------------------------


def test_the_cells_and_what_they_cost(store):
    lines = run("list", "--store", store).stdout.splitlines()
    assert lines[0].split() == ["key", "kind", "status", "label", "size"]
    assert [line.split()[1] for line in lines[1:4]].count("student") == 2
    listing = read("list", "--store", store)
    assert [cell["key"] for cell in listing["cells"]] == sorted(keys(store, "distilled") + keys(store, "student"))
    for cell in listing["cells"]:
        folder = Store(store).folder(cell["key"])
        assert cell["size"] == sum(path.stat().st_size for path in folder.iterdir())
    spent = {cost["kind"]: cost for cost in listing["costs"]}
    assert spent["distilled"]["count"] == 1
    assert spent["student"]["count"] == 2
    assert spent["superseded"]["count"] == 1
    assert "leases" not in spent  # each is removed where it was released
    whole = sum(path.stat().st_size for path in store.rglob("*") if path.is_file() and path.name != "store.json")
    assert sum(cost["size"] for cost in listing["costs"]) == whole
    assert "3 of 3 cells" in lines[-1]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--kind", "distilled"], 1),
        (["--kind", "student"], 2),
        (["--kind", "student", "--kind", "distilled"], 3),
        (["--method", "dc"], 3),
        (["--method", "dc[batch_real=4]"], 3),
        (["--method", "dm"], 0),
        (["--pool", "single", "--kind", "distilled"], 1),
        (["--evaluator", EVALUATOR], 2),
        (["--evaluator", "plain[epochs=3]"], 0),
        (["--architecture", "mlp"], 2),
        (["--architecture", "mlp[width=9]"], 0),
        (["--status", "done"], None),
    ],
)
def test_cells_are_chosen_by_what_they_are(store, words, count):
    cells = read("list", "--store", store, *words)["cells"]
    assert len(cells) == count or (count is None and all(cell["status"] == "done" for cell in cells))
    assert len(run("list", "--store", store, *words).stdout.splitlines()) > 3


def test_a_record_that_cannot_be_read_is_a_row(store):
    path = folder_of(store, "distilled") / "record.json"
    path.write_text("{")
    (row,) = [cell for cell in read("list", "--store", store)["cells"] if cell["kind"] == "unreadable"]
    assert "record.json cannot be read" in row["label"]
    assert "unreadable" in run("list", "--store", store).stdout


def test_everything_of_a_record_is_shown(store):
    key = keys(store, "distilled")[0]
    assert read("show", key[:9], "--store", store) == read_raw_record(Store(store).folder(key))
    text = run("show", key[:9], "--store", store).stdout
    record = Store(store).record(key)
    for word in (record.label, record.checksum, record.provenance.finished, str(Store(store).folder(key))):
        assert word in text
    assert "        batch_real: 4\n" in text


def test_the_folder_is_printed(store):
    key = keys(store, "student")[0]
    assert run("path", key[:10], "--store", store).stdout == f"{Store(store).folder(key)}\n"


def test_a_beginning_of_several_keys_lists_them(store):
    key = keys(store, "distilled")[0]
    shelf = store / "cells" / key[:2]
    for number in range(7):
        other = key[:5] + f"{number:x}" * 59
        (shelf / f"{other}-1").mkdir(exist_ok=True)
    result = run("show", key[:5], "--store", store)
    assert_refused(result, f"8 cells begin with {key[:5]}", key[:12], "and 3 more; write more of the key")
    assert len(result.stderr) < 400


@pytest.mark.parametrize("verb", ["show", "path"])
@pytest.mark.parametrize("key", ["", "xyz", "../../etc", "*", "?", "[0-9]", "A" * 5, "0" * 65, "a/b"])
def test_what_is_no_key_is_refused(store, verb, key):
    assert_refused(run(verb, key, "--store", store), "is not the beginning of a key", "ddbench results list")


@pytest.mark.parametrize("words", [["list"], ["verify"], ["clean"], ["show", "ab"], ["path", "ab"]])
def test_what_is_no_store_is_refused(tmp_path, words):
    assert_refused(run(*words, "--store", tmp_path / "none"), "none does not exist", "another --store")
    (tmp_path / "store.json").write_text('{"schema": 9}')
    assert_refused(run(*words, "--store", tmp_path), "schema 9", "newer")


def test_texts_of_records_cannot_steer_a_terminal(store):
    rewrite(folder_of(store, "distilled"), lambda record: record | {"label": "\x1b[2J\x07<b>\nx"})
    for words in (["list"], ["show", keys(store, "distilled")[0]]):
        text = run(*words, "--store", store).stdout
        assert "�[2J�<b> x" in text
        assert "\x1b" not in text


# --- verify -----------------------------------------------------------------------------------------------------------


def rewrite(folder, change):
    """Alter a record and give it a fitting checksum."""
    record = json.loads((folder / "record.json").read_text())
    record.pop("checksum")
    changed = change(record)
    changed["checksum"] = hashlib.sha256(canonical_json(changed).encode()).hexdigest()
    (folder / "record.json").write_text(json.dumps(changed))


def test_a_sound_store_is_sound(store):
    result = run("verify", "--store", store)
    assert result.exit_code == 0
    assert result.stdout == "4 records of 3 cells read, 0 things wrong, 0 left over\n"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a flipped bit in a file": (lambda folder: flip(folder / "set.safetensors"), "set.safetensors was altered"),
    "a missing file": (lambda folder: (folder / "images.png").unlink(), "images.png is missing"),
    "a file more": (lambda folder: (folder / "more.txt").write_text("x"), "more.txt is in no record"),
    "an altered record": (
        lambda folder: (folder / "record.json").write_text(
            (folder / "record.json").read_text().replace('"seed": 0', '"seed": 1')
        ),
        "record.json was altered (checksum)",
    ),
    "half a record": (lambda folder: os.truncate(folder / "record.json", 99), "record.json cannot be read"),
    "no record": (lambda folder: (folder / "record.json").unlink(), "record.json is missing"),
    "a record of another": (
        lambda folder: rewrite(folder, lambda record: record | {"key": "ab"}),
        "is of another cell ('ab')",
    ),
    "a file elsewhere": (
        lambda folder: rewrite(folder, lambda record: record | {"files": {"../../../../etc/passwd": "x"}}),
        "which is not a file beside it",
    ),
    "no files": (lambda folder: rewrite(folder, lambda record: record | {"files": 3}), "names no files"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_each_damage_is_a_line(store, name):
    spoil, says = DAMAGE[name]
    folder = folder_of(store, "distilled")
    spoil(folder)
    result = run("verify", "--store", store)
    assert result.exit_code == 1
    wrong = [line for line in result.stdout.splitlines() if says in line]
    assert len(wrong) == 1, result.stdout
    assert str(folder) in wrong[0]
    remedy = {"a file more": "move it away", "no record": "`ddbench results clean` removes it"}
    discard = f"`ddbench results discard {folder.name[:12]}` sets it aside, and then a run makes it again"
    assert wrong[0].endswith(remedy.get(name, discard))
    assert ", 0 things wrong" not in result.stdout


def test_an_older_attempt_is_verified_too(store):
    (older,) = [folders[0] for folders in Store(store).attempts().values() if len(folders) == 2]
    flip(older / "record.json")
    assert run("verify", "--store", store).exit_code == 1


# --- failures, discard ------------------------------------------------------------------------------------------------


@pytest.fixture
def failed(toys, data, tmp_path):
    """A store with a failed set, and its key."""
    small_run(data, tmp_path / "failed", method="boom")
    return tmp_path / "failed", next(Store(tmp_path / "failed").failures.all()).key


def test_a_failed_cell_is_listed_and_shown_with_reason_and_log(failed):
    store, key = failed
    (cell,) = read("list", "--store", store, "--status", "failed")["cells"]
    assert (cell["key"], cell["kind"], cell["attempts"]) == (key, "distilled", 0)
    assert cell["result"] == {"reason": "RuntimeError: out of luck"}
    assert "1 of 1 cell" in run("list", "--store", store).stdout
    shown = run("show", key[:9], "--store", store).stdout
    assert "reason: RuntimeError: out of luck" in shown
    assert "Traceback (most recent call last):" in shown.splitlines()
    failure = read("show", key[:9], "--store", store)
    assert failure["reason"] == "RuntimeError: out of luck"
    assert "Traceback" in failure["text"]
    assert run("path", key[:9], "--store", store).stdout == f"{store / 'failures' / key}.log\n"
    assert run("verify", "--store", store).stdout == "0 records of 0 cells read, 0 things wrong, 0 left over\n"
    assert_refused(run("discard", key, "--store", store), "no record to discard", "--retry-failed")


def test_a_damaged_cell_is_set_aside_and_made_again(data, store):
    folder, before = folder_of(store, "distilled"), numbers(store)
    for number in ("", ".1"):
        flip(folder / "set.safetensors")
        damaged = (folder / "set.safetensors").read_bytes()
        result = run("discard", folder.name[:12], "--store", store)
        aside = store / "discarded" / f"{folder.name}{number}"
        assert result.stdout == f"moved to {aside}: a run makes it again\n"
        assert (aside / "set.safetensors").read_bytes() == damaged
        assert not folder.exists()
        assert not small_run(data, store).failed
        assert numbers(store) == before
    assert run("verify", "--store", store).exit_code == 0
    (cost,) = [cost for cost in read("list", "--store", store)["costs"] if cost["kind"] == "discarded"]
    assert cost["count"] == 2


def test_where_the_newest_attempt_is_set_aside_the_one_before_counts(store):
    older, newest = next(folders for folders in Store(store).attempts().values() if len(folders) == 2)
    result = run("discard", newest.name[:12], "--store", store)
    assert result.stdout.endswith("the attempt before it counts again\n")
    assert Store(store).folder(older.name.partition("-")[0]) == older


# --- clean ------------------------------------------------------------------------------------------------------------


def litter(store):
    """What killed runs and failures leave, and what must stay."""
    done, absent = keys(store, "distilled")[0], "ef" * 32
    gone = [
        store / "cells" / ".writing-1-abcd" / "set.safetensors",
        store / "cells" / ".probe-abcd",
        store / ".store.json-abcd",
        store / "partial" / done / "epoch-1.safetensors",
        store / "partial" / absent / ".epoch-2.safetensors-abcd",
        store / "failures" / f"{done}.log",
        store / "failures" / f"{done}.json",
        store / "cells" / absent[:2] / f"{absent}-1" / "set.safetensors",
    ]
    remaining = [store / "partial" / absent / "epoch-1.safetensors", store / "failures" / f"{absent}.log"]
    for path in gone + remaining:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    return gone, remaining


def test_nothing_is_removed_unless_it_is_said(store):
    gone, remaining = litter(store)
    result = run("clean", "--store", store)
    assert result.exit_code == 0
    assert len([line for line in result.stdout.splitlines() if line.startswith("would remove ")]) == len(gone)
    assert result.stdout.splitlines()[-1] == "8 things, 32 B; --yes removes them"
    assert all(path.exists() for path in gone + remaining)
    assert "7 left over" in run("verify", "--store", store).stdout


def test_what_nothing_needs_is_removed(store):
    before = numbers(store)
    gone, remaining = litter(store)
    result = run("clean", "--store", store, "--yes")
    assert result.exit_code == 0
    assert "removed" in result.stdout
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in remaining)
    assert numbers(store) == before
    assert run("clean", "--store", store).stdout == "0 things, 0 B\n"


def test_older_attempts_go_when_it_is_said(store):
    before = numbers(store)
    assert "superseded" in run("clean", "--store", store, "--superseded").stdout
    assert run("clean", "--store", store, "--superseded", "--yes").exit_code == 0
    after = numbers(store)
    assert len(before) - len(after) == 1
    assert set(before) - set(after) == {name for name in before if name.replace("-1", "-2") in before and "-1" in name}


@pytest.mark.parametrize("name", ["a flipped bit", "no record"])
def test_an_older_attempt_stays_while_the_newest_is_damaged(store, name):
    (older, newest) = next(folders for folders in Store(store).attempts().values() if len(folders) == 2)
    if name == "no record":
        (newest / "record.json").unlink()
    else:
        flip(newest / "record.json")
    run("clean", "--store", store, "--superseded", "--yes")
    assert (older / "record.json").exists()


def test_links_are_removed_and_not_what_they_lead_to(store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (store / "cells" / ".writing-1-ab").symlink_to(tmp_path / "mine")
    run("clean", "--store", store, "--yes")
    assert not (store / "cells" / ".writing-1-ab").is_symlink()
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_store_at_work_is_not_cleaned(store):
    with Store(store).leases.hold("ab", "my cell"):
        assert_refused(run("clean", "--store", store, "--yes"), f"pid {os.getpid()} works on", "my cell", "wait")
    assert run("clean", "--store", store, "--yes").stdout == "0 things, 0 B\n"


def test_what_is_left_of_leases_and_of_older_locks_is_removed(store):
    (store / "locks").mkdir()
    (store / "locks" / "ab.lock").touch()
    dead = store / "leases" / "ab.1"
    dead.write_text('{"host": "here", "machine": "of another boot", "pid": 1}')
    os.utime(dead, (0, 0))
    assert "2 left over" in run("verify", "--store", store).stdout
    assert run("clean", "--store", store, "--yes").exit_code == 0
    assert not (store / "locks").exists()
    assert not dead.exists()


# --- ten thousand -----------------------------------------------------------------------------------------------------


def many(store, path, count):
    """A store of so many cells, like those of ``store``."""
    samples = [record.as_json() for record in Store(store).records() if record.kind == "student"]
    (path / "cells").mkdir(parents=True)
    (path / "store.json").write_text('{"schema":1}')
    for number in range(count):
        key = hashlib.sha256(str(number).encode()).hexdigest()
        record = {**samples[number % len(samples)], "key": key, "number": number}
        record.pop("checksum")
        record["checksum"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
        folder = path / "cells" / key[:2] / f"{key}-1"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(record, indent=1, sort_keys=True))
    return path


def test_many_cells_are_listed_fast_and_without_torch(pristine_store, tmp_path):
    store = many(pristine_store, tmp_path / "many", 2_000)
    code = (
        "import sys; from harness.cli.group import cli\n"
        f"try: cli(['results', 'list', '--store', {str(store)!r}])\n"
        "except SystemExit as end:\n"
        "    print(end.code, sorted({'torch', 'numpy', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    begun = time.process_time() + sum(os.times()[2:4])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spent = time.process_time() + sum(os.times()[2:4]) - begun
    assert done.stderr == "0 []\n"
    assert len(done.stdout.splitlines()) > 2_000
    assert spent < 3, "seconds of processor time, for a fifth of what three seconds must be enough for"
