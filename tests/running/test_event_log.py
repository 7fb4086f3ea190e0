"""Files of events: what is no event in them is left out, whoever wrote it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import Heard

from harness.running.event_log import EventLog, pass_on
from harness.running.processes.supervisor import WorkerState
from harness.store.cell_states import CellState, CellStatus
from harness.store.event_files import CellName, EventReader
from harness.store.store import Store

CELL = CellName("a" * 64, "distilled", "a cell")
NAMES = ("cells", "started", "step", "finished", "failed", "notice", "lost", "ended", "stopped", "refused")
FIELDS = ("cell", "cells", "iteration", "total", "scalars", "reason", "log", "text", "key", "state")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(NAMES),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=2), part),
    max_leaves=6,
)
EVENTS = st.fixed_dictionaries({"event": st.sampled_from(NAMES) | JSON}, optional=dict.fromkeys(FIELDS, JSON))


def read(path, tmp_path):
    """Every event of a file, and what is heard when all are passed on."""
    heard, state, store = Heard(), WorkerState(), Store(tmp_path / "store")
    events = list(EventReader(path).new())
    state.update(events)
    for event in events:
        pass_on(event, heard, store)
    return events, heard


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(EVENTS.map(lambda event: json.dumps(event).encode()) | st.binary(max_size=20), max_size=6))
def test_nothing_in_a_file_stops_whoever_reads_it(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("events")
    (folder / "events").write_bytes(b"\n".join([*lines, b""]))
    read(folder / "events", folder)


def test_what_was_written_is_read_between_what_was_not(tmp_path):
    path, store = tmp_path / "events", Store(tmp_path / "store").open()
    log = EventLog(store, path)

    def noise():
        with path.open("ab") as file:
            file.write(b'printed by a plugin\n7\n[]\n{"event": "started"}\n' + b"[" * 100000 + b"\n\xff\xfe\n")

    log.cells([CELL])
    noise()
    log.started(CELL)
    log.step(CELL, 1, 1, {"loss": 0.5, "lost": float("nan")})
    noise()
    log.finished(CELL, None)
    log.failed(CELL, "a reason", path)
    log.lost({CELL.key: CellStatus(CellState.FAILED, "a reason")})
    log.notice("a notice")
    log.end("ended")
    noise()
    events, heard = read(path, tmp_path)
    assert [event["event"] for event in events] == [
        "cells", "started", "step", "finished", "failed", "lost", "notice", "ended"
    ]  # fmt: skip
    assert (heard.begun, heard.steps, heard.notices) == ([CELL], [1], ["a notice"])
    assert heard.broken == [(CELL, "a reason", path)]


@pytest.mark.parametrize(
    "line", [b'{"event": "notice"}', b'{"event": "step", "cell": ["a", "b", "c"]}', b'{"event": []}']
)
def test_an_event_without_its_fields_is_none(tmp_path, line):
    (tmp_path / "events").write_bytes(line + b"\n")
    assert read(tmp_path / "events", tmp_path)[0] == []
