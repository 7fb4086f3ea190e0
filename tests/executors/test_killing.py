"""Runs that are killed at any moment: the same command goes on, and ends as if nothing had happened."""

import os
import random
import time
from collections import Counter

import pytest
from executors.orders import wait_until
from studies import records

ROUNDS = int(os.environ.get("DDBENCH_KILL_ROUNDS", "8"))
GRID = ("-m", "walk[seconds=0.02]", "-m", "dm[batch_real=4]", "-p", "single[main=convnet[width=4,depth=1]]",
        "--ipc", "1,2", "--iterations", "5,10", "--students", "2", "--set", "guess.seconds=0.02",
        "--checkpoint-every", "0")  # fmt: skip
VARY = ("seconds", "peak_memory", "finished", "checksum")


def comparable(store):
    """Every record without times, and the bytes of every file."""
    contents = {}
    for name, record in records(store).items():
        folder = store / "cells" / name[:2] / name
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "record.json"}
        contents[name] = (without_times(record), files)
    return contents


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in VARY}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def table(process):
    """What it printed of the table."""
    drawn = process.printed[process.printed.index("┏") :].partition("store:")[0]
    assert drawn.count("│") > 20
    return drawn


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Filled by the first test that needs it."""
    return {}


def reference(undisturbed, start, tmp_path, executor):
    if not undisturbed:
        run = start(*GRID, "--details", store=tmp_path / "undisturbed", executor=executor)
        assert run.wait() == 0, run.printed
        undisturbed.update(store=comparable(tmp_path / "undisturbed"), table=table(run))
    return undisturbed


@pytest.mark.parametrize(("executor", "rounds"), [("inline", ROUNDS), ("local", max(3, ROUNDS // 7))])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(
    start, notes, tmp_path, undisturbed, executor, rounds
):
    wanted = reference(undisturbed, start, tmp_path, "inline")
    store, before = tmp_path / "store", len(notes())
    moments = random.Random(f"{executor} {rounds}")
    for _ in range(rounds):
        run = start(*GRID, "--details", store=store, executor=executor)
        wait_until(lambda run=run: run.poll() is not None or "cells to make" in run.printed)
        time.sleep(moments.uniform(0, 1.0 if executor == "inline" else 5.0))
        run.kill()
        run.wait()
    last = start(*GRID, "--details", store=store, executor=executor)
    assert last.wait() == 0, last.printed
    assert comparable(store) == wanted["store"]
    assert table(last) == wanted["table"]
    finished = Counter(line for line in notes()[before:] if line.startswith("finished"))
    assert max(finished.values()) == 1
    assert all(number == 1 for number in attempts(store).values())


def attempts(store):
    return Counter(name.rpartition("-")[0] for name in records(store))
