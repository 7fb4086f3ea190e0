"""A packed store of ddbench 0.1.0, the version before records held code digests: it stays readable, and counts as done.

It holds two sets of the digits by DM through `main-similar` after two iterations, and of each a student by `plain`, and
one by `kd` with its teacher.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from studies import ddbench

from harness.store.packing import open_store, unpack
from harness.store.store import Store

PACKED = Path(__file__).parent.parent / "data" / "store-0.1.0.tar.xz"
COMMAND = [
    *("run", "--dataset", "digits", "--method", "dm[batch_real=8]", "--iterations", "2", "--distillations", "2"),
    *("--pool", "main-similar[main=convnet[width=4,depth=2]]", "--architecture", "mlp[width=8]", "--students", "1"),
    *("--evaluator", "plain[protocol=quick,epochs=3]"),
    *("--evaluator", "kd[protocol=quick,epochs=3,teacher=mlp[width=8]]"),
    *("--device", "cpu", "--compile", "never", "--executor", "inline"),
]


@pytest.fixture
def store(tmp_path):
    unpack(PACKED, tmp_path / "store")
    return tmp_path / "store"


def stdout_of(*words):
    result = ddbench(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_it_is_sound():
    assert "8 records of 8 cells read, 0 things wrong" in stdout_of("results", "verify", "--store", PACKED)


def test_its_records_name_no_code_digest():
    records = list(open_store(PACKED).records())
    assert {record.kind for record in records} == {"artifact", "distilled", "student"}
    assert not any(record.provenance.code_digests for record in records)
    assert all(record.provenance.sources for record in records)


def test_the_same_command_has_nothing_left_to_make(store):
    before = {path: path.read_bytes() for path in store.rglob("record.json")}
    planned = json.loads(stdout_of(*COMMAND, "--store", store, "--dry-run", "--json"))
    assert {cell["state"] for cell in planned["cells"]} == {"done"}
    result = ddbench(*COMMAND, "--store", store, "--json")
    assert result.exit_code == 0, result.output
    assert "0 cells to make, 8 in the store" in result.stderr
    assert {path: path.read_bytes() for path in store.rglob("record.json")} == before
    rows = json.loads(result.stdout)["rows"]
    assert [row["distillations"] for row in rows] == [2, 2]
    assert json.loads(result.stdout)["warnings"] == []


def test_its_scores_are_compared():
    content = json.loads(stdout_of("compare", PACKED, "--by", "evaluator", "--baseline", "plain", "--format", "json"))
    assert content["rows"]


def test_todays_code_gives_its_numbers(tmp_path):
    """The golden run: keys are equal, and numbers up to the rounding of another processor or version of torch."""
    result = ddbench(*COMMAND, "--store", tmp_path / "new")
    assert result.exit_code == 0, result.output
    old, new = open_store(PACKED), Store(tmp_path / "new")
    before = {record.key: record for record in old.records()}
    after = {record.key: record for record in new.records()}
    assert before.keys() == after.keys()
    for key, record in before.items():
        for name in (name for name in record.files if name.endswith(".safetensors")):
            expected, tensors = load_file(old.file(key, name)), load_file(new.file(key, name))
            assert expected.keys() == tensors.keys()
            for part, tensor in expected.items():
                torch.testing.assert_close(tensors[part], tensor, rtol=1e-3, atol=1e-4)
        if record.kind == "student":
            assert after[key].result.losses == pytest.approx(record.result.losses, rel=1e-3)
            assert after[key].result.accuracy == pytest.approx(record.result.accuracy, abs=0.01)
