"""Rows against NumPy."""

import json

import numpy as np
import pytest
from studies import ddbench, records, small_run, small_words

ROW_KEYS = {
    "dataset", "ipc", "iterations", "method", "pool", "evaluator", "architecture", "mean", "median", "std_students",
    "std_distillations", "students", "distillations", "collapsed", "status", "protocol", "seed", "device",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("toys")


def scores(store):
    """Accuracies by distillation and student, from the records' files."""
    results = [record["result"] for record in records(store).values() if record["kind"] == "student"]
    shape = [1 + max(score[key] for score in results) for key in ("distillation", "student")]
    table = np.full(shape, np.nan)
    for score in results:
        table[score["distillation"], score["student"]] = score["accuracy"]
    return table


@pytest.mark.parametrize(("students", "distillations"), [(1, 1), (4, 1), (1, 3), (5, 3)])
def test_means_and_spreads(data, tmp_path, students, distillations):
    counts = {"students": students, "distillations": distillations}
    (row,) = small_run(data, tmp_path, evaluator="scripted", **counts).rows
    table = scores(tmp_path)
    assert table.shape == (distillations, students)
    assert len(np.unique(table)) > 0.8 * table.size
    assert row["mean"] == pytest.approx(table.mean(), rel=1e-12)
    assert row["median"] == pytest.approx(np.median(table), rel=1e-12)
    pooled = np.sqrt(table.var(axis=1, ddof=1).mean()) if students > 1 else None
    between = table.mean(axis=1).std(ddof=1) if distillations > 1 else None
    assert row["std_students"] == (pooled if pooled is None else pytest.approx(pooled, rel=1e-12))
    assert row["std_distillations"] == (between if between is None else pytest.approx(between, rel=1e-12))
    assert (row["students"], row["distillations"]) == (students, distillations)
    assert row["collapsed"] == sum(student % 3 == 2 for student in range(students)) * distillations
    assert row["status"] == "done"
    assert 0 <= row["mean"] <= 1


def test_unequal_groups_are_pooled_by_their_freedom(data, tmp_path):
    small_run(data, tmp_path, evaluator="scripted", students=4, distillations=2)
    table = scores(tmp_path)
    path = next(path for path in (tmp_path / "cells").glob("??/*") if _is(path, distillation=1, student=3))
    path.rename(tmp_path / "moved")
    (row,) = _rows(data, tmp_path, evaluator="scripted", students=4, distillations=2)
    groups = [table[0], table[1, :3]]
    pooled = np.sqrt((3 * groups[0].var(ddof=1) + 2 * groups[1].var(ddof=1)) / 5)
    assert row["std_students"] == pytest.approx(pooled, rel=1e-12)
    assert row["mean"] == pytest.approx(np.concatenate(groups).mean(), rel=1e-12)
    assert row["status"] == "incomplete"


def _is(path, **wanted):
    result = json.loads((path / "record.json").read_text())["result"]
    return "accuracy" in result and all(result[key] == value for key, value in wanted.items())


def _rows(data, store, **changes):
    """The rows of a study that is not carried out."""
    from studies import SMALL

    from harness.planning.planner import Planner
    from harness.planning.request import request_from
    from harness.plugins.discovery import plugins
    from harness.report.tables.run_rows import table_of
    from harness.store.store import Store

    options = {**SMALL, "dataset": f"arrays[path={data}]", "store": store, **changes}
    return table_of(Planner(request_from(options), plugins().registry).plan(), Store(store)).rows


def test_json_is_all_that_stdout_holds(data, tmp_path):
    result = ddbench("run", *small_words(data, tmp_path, distillations=2), "--json")
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert set(printed) == {"store", "cells", "rows", "warnings"}
    assert printed["warnings"] == []
    assert printed["store"] == str(tmp_path)
    (row,) = printed["rows"]
    assert set(row) >= ROW_KEYS
    assert row["mean"] == pytest.approx(scores(tmp_path).mean())
    assert {cell["kind"] for cell in printed["cells"]} == {"distilled", "student"}
    assert all({"key", "kind", "state", "label"} <= set(cell) for cell in printed["cells"])
    assert result.stderr  # the progress


def test_a_method_that_prints_does_not_spoil_the_json(data, tmp_path, monkeypatch):
    import toy_plugins

    def step(self, iteration, networks):
        print("hello from the method")
        return {}

    monkeypatch.setattr(toy_plugins.Still, "step", step)
    result = ddbench("run", *small_words(data, tmp_path, method="still"), "--json")
    assert json.loads(result.stdout)["rows"]


def test_rows_follow_the_order_of_the_request(data, tmp_path):
    names = ["mlp[width=8]", "mlp[width=6]", "mlp[width=7]"]
    result = small_run(data, tmp_path, architecture=names, evaluator=["scripted[which=b]", "scripted[which=a]"])
    assert [row["architecture"] for row in result.rows] == names * 2
    assert [row["mean"] for row in result.rows] == [0.8] * 3 + [0.1] * 3
