"""The state of a cell: one enum, and one rule for what is blocked."""

import json
from dataclasses import dataclass, field

import pytest
from studies import a_record

from harness.store.cell_states import (
    LOST,
    CellState,
    CellStates,
    CellStatus,
    blocked_or,
    state_in_store,
    states_to_make,
)
from harness.store.cells import Cell
from harness.store.failures import Failure
from harness.store.store import Store

NEW, OLD = {"dc": "new"}, {"dc": "old"}
TEACHER = Cell("artifact", {"name": "teacher"}, "the teacher", NEW)
SET = Cell("distilled", {"name": "set"}, "the set", NEW)
FURTHER = Cell("distilled", {"name": "further"}, "the set further on", NEW)
STUDENT = Cell("student", {"name": "student"}, "the student", NEW)
CELLS = (TEACHER, SET, FURTHER, STUDENT)


@dataclass
class Planned:
    """Cells that need one another: the student the further set, and that what the trajectory passes before."""

    cells: tuple = CELLS
    rerun_stale: bool = False
    needs: dict = field(default_factory=lambda: {
        SET.key: [TEACHER], FURTHER.key: [TEACHER, SET], STUDENT.key: [FURTHER],
    })  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store").open()


def commit(store, cell, code_digests=NEW):
    provenance = {"compute": {"device": "cpu"}, "code_digests": code_digests}
    return store.commit(a_record(cell.key, label=cell.label, identity={"architecture": None}, provenance=provenance))


def fail(store, cell, reason="RuntimeError: no luck"):
    store.failures.note(Failure(cell.key, cell.kind, cell.label, reason, "a traceback"))


def states(store, **how):
    return [str(status.state) for status in CellStates(Planned(**how), store).statuses().values()]


def test_states_are_the_words_that_are_printed():
    words = ["missing", "running", "done", "stale", "failed", "blocked", "damaged", "unneeded"]
    assert [str(state) for state in CellState] == words
    assert json.dumps(list(CellState)) == json.dumps(words)
    assert CellState("stale") is CellState.STALE == "stale"
    assert {state for state in CellState if CellStatus(state).is_lost} == set(LOST) == {"failed", "blocked", "damaged"}


def test_each_state_of_a_cell_in_a_store(store):
    assert state_in_store(SET, store) == CellStatus(CellState.MISSING)
    fail(store, SET)
    assert state_in_store(SET, store) == CellStatus(CellState.FAILED, "RuntimeError: no luck")
    commit(store, SET)
    assert state_in_store(SET, store) == CellStatus(CellState.DONE)
    commit(store, SET, OLD)
    assert state_in_store(SET, store) == CellStatus(CellState.STALE)
    (store.folder(SET.key) / "record.json").write_text("{")
    damaged = state_in_store(SET, store)
    assert damaged.state is CellState.DAMAGED
    assert "record.json cannot be read" in damaged.reason


def test_a_note_that_cannot_be_read_is_a_failure_that_says_so(store):
    fail(store, SET)
    (store.path / "failures" / f"{SET.key}.json").write_text("{")
    status = state_in_store(SET, store)
    assert (status.state, status.note_is_damaged) == (CellState.FAILED, True)


def test_what_needs_a_lost_cell_is_blocked_for_its_reason(store):
    fail(store, TEACHER)
    assert states(store) == ["failed", "blocked", "blocked", "blocked"]
    reasons = {status.reason for status in CellStates(Planned(), store).statuses().values()}
    assert reasons == {"RuntimeError: no luck", "needs the teacher, which failed: RuntimeError: no luck"}


def test_what_needs_a_damaged_cell_is_blocked(store):
    commit(store, TEACHER)
    commit(store, SET)
    (store.folder(SET.key) / "record.json").write_text("{")
    assert states(store) == ["done", "damaged", "blocked", "blocked"]
    assert "needs the set, which is damaged: " in CellStates(Planned(), store).status(STUDENT).reason


def test_what_is_done_is_not_blocked(store):
    fail(store, TEACHER)
    commit(store, STUDENT)
    assert states(store) == ["failed", "blocked", "blocked", "done"]


def test_what_is_missing_alone_blocks_nothing(store):
    assert states(store) == ["missing"] * 4
    commit(store, TEACHER)
    assert states(store) == ["done", "missing", "missing", "missing"]


def test_stale_cells_are_made_again_only_on_request(store):
    fail(store, TEACHER)
    commit(store, SET, OLD)
    assert states(store) == ["failed", "stale", "blocked", "blocked"]
    assert states(store, rerun_stale=True) == ["failed", "blocked", "blocked", "blocked"]
    assert states_to_make(False) == ("missing",)
    assert states_to_make(True) == ("missing", "stale")
    commit(store, TEACHER, OLD)
    asked = CellStates(Planned(rerun_stale=True), store)
    assert [asked.is_missing(cell) for cell in CELLS] == [True] * 4
    assert [CellStates(Planned(), store).is_missing(cell) for cell in CELLS] == [False, False, True, True]


def test_a_store_that_changes_is_seen(store):
    cells = CellStates(Planned(), store)
    assert cells.is_missing(STUDENT)
    fail(store, FURTHER)
    assert not cells.is_missing(STUDENT)
    store.failures.forget(FURTHER.key)
    for cell in CELLS:
        commit(store, cell)
    assert {status.state for status in cells.statuses().values()} == {CellState.DONE}


def test_an_artifact_that_only_finished_cells_need_is_not_made(store):
    """As in a store that was packed without its artifacts."""
    for cell in (SET, FURTHER, STUDENT):
        commit(store, cell)
    assert states(store) == ["unneeded", "done", "done", "done"]
    commit(store, SET, OLD)
    assert states(store) == ["unneeded", "stale", "done", "done"]
    assert states(store, rerun_stale=True) == ["missing", "stale", "done", "done"]
    fail(store, TEACHER)
    assert states(store) == ["failed", "stale", "done", "done"], "what happened is still said"
    alone = Planned(cells=(TEACHER,), needs={})
    store.failures.forget(TEACHER.key)
    assert [status.state for status in CellStates(alone, store).statuses().values()] == ["missing"]


def test_the_first_lost_cell_that_is_needed_is_the_reason():
    missing, failed = CellStatus(CellState.MISSING), CellStatus(CellState.FAILED, "first")
    damaged, running = CellStatus(CellState.DAMAGED, "second"), CellStatus(CellState.RUNNING)
    assert blocked_or(missing, []) is missing
    assert blocked_or(missing, [("a", running), ("b", CellStatus(CellState.DONE))]) is missing
    blocked = blocked_or(missing, [("a", running), ("b", failed), ("c", damaged)])
    assert blocked == CellStatus(CellState.BLOCKED, "needs b, which failed: first")
    assert blocked_or(missing, [("d", blocked)]) == blocked, "and not that a blocked cell blocks it"
