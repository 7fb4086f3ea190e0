"""Runs with labels of any kind and with schedules: what is refused before any work, and what records say."""

import pytest
import toy_labels
from studies import ddbench, records, small_run, write_arrays
from toys import toy_set

import harness
from harness import UsageError, save_distilled
from harness.planning.planner import Planner
from harness.planning.request import Request
from harness.plugins.discovery import plugins
from harness.plugins.registry import Entry

TEACHER = "teacher=convnet[width=4,depth=2]"


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    entries = [
        Entry(kind, name, f"toy_labels:{name.title()}", "a toy", "toys", "1")
        for name, kind in toy_labels.ENTRIES.items()
    ]
    monkeypatch.setattr(plugins().registry, "entries", [*plugins().registry.entries, *entries])


@pytest.fixture
def data(tmp_path):
    return write_arrays(tmp_path / "data.npz")


@pytest.mark.parametrize(
    ("method", "evaluator", "says"),
    [
        ("centred", f"kd[{TEACHER}]", r"trains on hard or soft labels, but those of centred are regression: choose"),
        ("centred", "hard", "trains on hard labels, but those of centred are regression"),
        ("centred", "plain,kd", "kd.* of ddbench trains on hard or soft"),
        ("centred", "plain[protocol=dd]", "trains by a set's schedule, but centred has none: choose another protocol"),
        ("dc[batch_real=4]", "plain[protocol=dd]", "trains by a set's schedule, but dc"),
        ("mtt[labels=expert]", "hard", "trains on hard labels, but those of mtt.* are soft"),
    ],
)
def test_an_evaluator_that_does_not_take_the_sets_is_refused_before_any_work(data, tmp_path, method, evaluator, says):
    evaluators = tuple(evaluator.split(",")) if "[" not in evaluator else evaluator
    with pytest.raises(UsageError, match=says) as caught:
        small_run(data, tmp_path / "store", method=method, evaluator=evaluators)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_an_evaluator_that_names_no_kind_is_refused(data, tmp_path):
    with pytest.raises(harness.PluginError, match=r"declares label_kinds = \('hrad',\): it has to be a tuple"):
        small_run(data, tmp_path / "store", evaluator="misspelt")


def test_plain_scores_regression_labels_and_the_record_names_them(data, tmp_path):
    store = tmp_path / "store"
    result = small_run(data, store, method="centred", evaluator="plain[epochs=2]")
    assert not result.failed
    assert any("sets of centred have regression labels" in note for note in result.notes)
    (record,) = (each for each in records(store).values() if each["kind"] == "distilled")
    assert record["result"]["label_kind"] == "regression"
    shown = ddbench("results", "show", record["key"], "--store", store).stdout
    assert "label_kind: regression" in shown
    assert "schedule_steps" not in shown


def test_a_schedule_is_played_and_trained_on_in_the_ordinary_way(data, tmp_path):
    evaluators = ("plain[protocol=dd]", "plain[epochs=2]", f"kd[epochs=2,{TEACHER}]")
    result = small_run(data, tmp_path / "store", method="stepwise", evaluator=evaluators)
    assert not result.failed
    assert any("sets of stepwise have a schedule of steps" in note for note in result.notes)
    (record,) = (each for each in records(tmp_path / "store").values() if each["kind"] == "distilled")
    assert (record["result"]["label_kind"], record["result"]["schedule_steps"]) == ("hard", 2)
    assert len(result.rows) == 3


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("secretive", "gives regression labels, but its method declares label_kind None"),
        ("sudden", "gives a schedule, but its method declares has_schedule = False"),
        ("wrong", "gives hard labels, but its method declares label_kind 'soft'"),
    ],
)
def test_a_method_that_declares_otherwise_fails_its_cell(data, tmp_path, method, says):
    result = small_run(data, tmp_path / "store", method=method, evaluator="plain[epochs=2]")
    assert any(says in reason for reason in result.failed.values())


def test_what_was_not_declared_is_refused_when_the_set_is_there(data, tmp_path):
    result = small_run(data, tmp_path / "store", method="late", evaluator="hard")
    (reason,) = set(result.failed.values())
    assert "trains on hard labels, but those of late on" in reason
    assert "are soft: choose another --evaluator" in reason


def test_a_file_is_known_by_reading_it(data, tmp_path):
    dataset = f"arrays[path={data}]"
    planner = Planner(Request(dataset=(dataset,)), plugins().registry)
    (resolved,) = planner.names("dataset", (dataset,), harness.RunDefaults())
    problem = planner.problem(resolved)
    keys = set()
    for number, how in enumerate(({"kind": "regression"}, {"scheduled": True}, {})):
        path = tmp_path / f"{number}.safetensors"
        save_distilled(toy_set(problem, **how), path)
        options = {"dataset": dataset, "store": tmp_path / "store", "architecture": "mlp[width=8]", "students": 1}
        result = harness.evaluate(path, evaluator="plain[epochs=2]", **options)
        assert not result.failed
        keys |= {cell["key"] for cell in result.cells}
        if "kind" in how:
            with pytest.raises(UsageError, match=r"kd.* trains on hard or soft labels, but those of file:0"):
                harness.evaluate(path, evaluator="kd", **options)
        if "scheduled" in how:
            assert not harness.evaluate(path, evaluator="plain[protocol=dd]", **options).failed
        else:
            with pytest.raises(UsageError, match="trains by a set's schedule, but file:"):
                harness.evaluate(path, evaluator="plain[protocol=dd]", **options)
    assert len(keys) == 3, "the schedule and the kind are part of what a file's set is"
