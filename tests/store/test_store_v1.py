"""A store of schema 1, as ddbench 0.1.0 wrote it before there were leases: it stays readable for ever.

It holds a set of the digits by DC after two iterations, two students by `plain`, one by `kd` with its teacher, a second
attempt at these two (the source of `kd` was pretended to have changed), and the log of an expert that diverged.
"""

import json
import shutil
from pathlib import Path

import pytest
from studies import Heard, ddbench, numbers, records

import harness
from harness.store.store import Store

pytestmark = pytest.mark.usefixtures("blank_pictures")

OLD = Path(__file__).parent.parent / "data" / "store-v1"
STUDY = {
    "dataset": "digits",
    "method": "dc[batch_real=8]",
    "pool": "single[main=mlp[width=4]]",
    "architecture": "mlp[width=4]",
    "evaluator": ["plain[epochs=2]", "kd[epochs=2,teacher=mlp[width=4]]"],
    "ipc": 1,
    "compile": "never",
    "device": "cpu",
}


@pytest.fixture
def store(tmp_path):
    return shutil.copytree(OLD, tmp_path / "store")


def done(*words):
    result = ddbench(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_it_is_listed_shown_and_sound(store):
    listed = json.loads(done("results", "list", "--store", store, "--json"))
    kinds = [cell["kind"] for cell in listed["cells"]]
    assert sorted(kinds) == ["artifact", "distilled", "student", "student", "student"]
    assert {cell["status"] for cell in listed["cells"]} <= {"done", "collapsed"}
    assert {cost["kind"]: cost["count"] for cost in listed["costs"]}["superseded"] == 2
    for cell in listed["cells"]:
        assert cell["label"] in done("results", "show", cell["key"][:12], "--store", store)
    assert "7 records of 5 cells read, 0 things wrong" in done("results", "verify", "--store", store)


def test_it_is_cleaned_of_locks(store):
    before = numbers(store)
    assert "locks: of an older ddbench" in done("results", "clean", "--store", store, "--yes")
    assert numbers(store) == before
    assert not (store / "locks").exists()


def test_its_scores_are_compared_and_reported(store, tmp_path):
    answer = json.loads(done("compare", store, "--by", "evaluator", "--baseline", "plain", "--format", "json"))
    assert {row["evaluator"].partition("[")[0] for row in answer["rows"]} == {"plain", "kd"}
    assert answer["notes"] == []
    done("report", store, "--output", tmp_path / "page.html")
    assert "kd[protocol=quick,epochs=2" in (tmp_path / "page.html").read_text()


def test_its_set_is_converted_and_loaded(store, tmp_path):
    (folder,) = {path.parent for path in store.rglob("set.safetensors")}
    done("convert", folder.name[:12], tmp_path / "set.npz", "--store", store)
    images, labels = harness.load_distilled(tmp_path / "set.npz").training_data()
    mine = harness.load_distilled(folder / "set.safetensors").training_data()
    assert images.equal(mine[0])
    assert labels.equal(mine[1])


def test_its_trajectory_is_extended_and_nothing_of_it_is_done_again(store):
    before, heard = numbers(store), Heard()
    result = harness.run(**STUDY, iterations=[2, 3], students=2, store=store, reporter=heard)
    assert not result.failed
    assert heard.steps == [3]
    after = numbers(store)
    assert {key: after[key] for key in before} == before
    assert not [name for name in after.keys() - before.keys() if not name.endswith("-1")]
    kinds = sorted(cell.kind for cell in heard.done)
    assert kinds == ["artifact"] * 3 + ["distilled"] + ["student"] * 5
    old, new = sorted((record for record in records(store).values() if record["kind"] == "distilled"), key=points)
    assert new["history"]["architectures"] == old["history"]["architectures"]
    assert [row["students"] for row in result.rows] == [2, 2, 2, 2]


def test_it_is_done_and_not_stale(store):
    """Its records hold digests of another kind, of the code's bytes: whether that computed the same is not known."""
    before, heard = numbers(store), Heard()
    result = harness.run(**STUDY, iterations=2, students=1, store=store, reporter=heard, rerun_stale=True)
    assert {cell["state"] for cell in result.cells} == {"done"}
    assert (heard.done, heard.steps) == ([], [])
    assert not any("different version" in notice for notice in heard.notices)
    assert numbers(store) == before


def points(record):
    return record["result"]["iterations"]


def test_a_log_alone_is_no_failure_that_keeps_a_cell_from_being_made(store):
    (log,) = (store / "failures").iterdir()
    assert Store(store).failures.get(log.stem) is None
    assert list(Store(store).failures.all()) == []
