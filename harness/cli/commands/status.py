"""``ddbench status``: show the progress of the runs in a store, and which process works on which cell."""

import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.group import VERBS
from harness.cli.options import store_option
from harness.cli.output import plain, print_json, table_text
from harness.errors import DDBenchError, UsageError
from harness.types.plurals import counted

if TYPE_CHECKING:
    from harness.store.cell_states import CellState
    from harness.store.run_status import Overview, RunCell, RunStatus, SeenRecords

WATCH_SECONDS = 2.0
_MOST_LOST = 10
_WORDS = {"missing": "waiting"}
"""The words for states that a reader of runs expects; all others are printed as they are."""
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@click.command(help=VERBS["status"].summary)
@store_option
@click.option("--watch", is_flag=True, help="Refresh until no cell runs and no job waits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(store: Path, watch: bool, as_json: bool) -> None:
    """Print the status once, or watch it."""
    if watch and as_json:
        raise UsageError("--watch prints for people: leave out --json")
    if as_json:
        print_json(_as_json(_look(store)))
    elif watch:
        _watch(store)
    else:
        click.echo("\n".join(_lines(_look(store))))


class _Look:
    """The state of the runs at one moment, and the number of queued jobs of each, if the executor knows it."""

    def __init__(self, overview: "Overview", labels: Mapping[str, str]) -> None:
        self.overview, self.labels = overview, labels
        from harness.store.cell_states import CellState

        # Asking a cluster's queue takes seconds: only for runs that are not finished.
        unfinished = [run for run in overview.runs if run.counts[CellState.MISSING] or run.counts[CellState.RUNNING]]
        self.ordered = {run.run: number for run in unfinished if (number := _ordered(run)) is not None}
        self._runs = any(run.counts[CellState.RUNNING] for run in unfinished)

    @property
    def goes_on(self) -> bool:
        """Whether a cell runs, or a job waits."""
        return self._runs or any(self.ordered.values())


def _look(store: Path, seen: "SeenRecords | None" = None) -> _Look:
    from harness.store.run_labels import labels_of_runs
    from harness.store.run_status import Overview
    from harness.store.store import Store

    opened = Store(store)
    return _Look(Overview(opened, seen), labels_of_runs(opened))


def _ordered(run: "RunStatus") -> int | None:
    from harness.cli.usable_plugins import usable_plugins
    from harness.plugins.guard import guarded

    try:
        resolved = usable_plugins().registry.resolve("executor", run.executor)
        with guarded(f"{resolved.described}: ordered() raised"):
            number: int | None = resolved.cls.ordered(run.folder)
    except DDBenchError:  # the executor's plugin is not installed here
        return None
    return number


def _watch(store: Path) -> None:
    from rich.live import Live
    from rich.text import Text

    from harness.report.tables.drawing import console_for

    # Records never change, so that each is read only once while watching.
    seen: SeenRecords = {}
    look = _look(store, seen)
    # Visible overflow: on a screen that is not high enough the output scrolls instead of losing its last lines.
    # Transient: the last state is printed below as ordinary text, which stays in the scrollback.
    screen = Live(console=console_for(sys.stdout), auto_refresh=False, transient=True, vertical_overflow="visible")
    with screen as live, suppress(KeyboardInterrupt):
        while look.goes_on:
            # The tables are already rendered for the terminal.
            live.update(Text.from_ansi("\n".join(_lines(look))), refresh=True)
            _pause()
            look = _look(store, seen)
    click.echo("\n".join(_lines(look)))


def _pause() -> None:
    time.sleep(WATCH_SECONDS)


def _lines(look: _Look) -> Iterator[str]:
    from harness.store.cell_states import CellState
    from harness.store.run_labels import with_labels_in
    from harness.store.run_status import STATES, counts

    overview = look.overview

    def shown(cell: "RunCell") -> str:
        return with_labels_in(cell.label, look.labels)

    yield from map(plain, overview.notes)
    if not overview.runs:
        yield f"{overview.path} holds no run: start one with `ddbench run`"
        return
    # A column for it only where there are any: few stores were packed without their artifacts.
    has_unneeded = any(run.counts[CellState.UNNEEDED] for run in overview.runs)
    states = [state for state in STATES if has_unneeded or state is not CellState.UNNEEDED]
    columns = ("run", *map(_word, states), "ordered", "executor", "created", "what")
    yield _table(columns, [_row(run, states, look.ordered) for run in overview.runs])
    if running := [cell for cell in overview.cells if cell.state is CellState.RUNNING]:
        yield ""
        yield _table(
            ("running", "for", "where", "heartbeat", "iteration", "left"),
            [_running_row(cell, shown(cell)) for cell in running],
        )
    if damaged := [cell for cell in overview.cells if cell.state is CellState.DAMAGED]:
        yield ""
        yield _table(("damaged", "reason"), [(shown(cell), cell.reason) for cell in damaged[:_MOST_LOST]])
        more = f"{len(damaged) - _MOST_LOST} more; " if len(damaged) > _MOST_LOST else ""
        yield f"{more}`ddbench results verify` lists all"
    if failed := [cell for cell in overview.cells if cell.state is CellState.FAILED]:
        yield ""
        yield _table(("failed", "reason"), [(shown(cell), cell.reason) for cell in failed[:_MOST_LOST]])
        more = f"{len(failed) - _MOST_LOST} more; " if len(failed) > _MOST_LOST else ""
        yield f"{more}logs: {overview.logs}; `ddbench run --retry-failed` tries again"
    yield ""
    numbers = ", ".join(f"{number:,} {_word(state)}" for state, number in counts(overview.cells).items() if number)
    yield f"{counted(len(overview.cells), 'cell')}: {numbers}; store: {overview.path}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return table_text(columns, rows).strip("\n")


def _row(run: "RunStatus", states: Sequence["CellState"], ordered: Mapping[str, int]) -> tuple[str, ...]:
    numbers = (f"{run.counts[state]:,}" if run.counts[state] else "" for state in states)
    return (run.run, *numbers, str(ordered.get(run.run, "")), run.executor, run.created, run.label)


def _running_row(cell: "RunCell", label: str) -> tuple[str, ...]:
    holder = cell.holder
    assert holder, "a running cell has a lease"
    iteration = f"{holder.iteration} of {holder.total}" if holder.iteration is not None else ""
    left = f"about {_duration(holder.seconds_left)}" if holder.seconds_left is not None else ""
    return (label, _duration(holder.seconds), str(holder), f"{_duration(holder.age)} ago", iteration, left)


def _word(state: "CellState") -> str:
    return _WORDS.get(state, str(state))


def _duration(seconds: float) -> str:
    """Format a duration in the largest unit of which it has two or more."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _as_json(look: _Look) -> dict[str, Any]:
    from harness.store.run_status import counts

    overview = look.overview
    return {
        "store": str(overview.path),
        "runs": [
            {
                "run": run.run,
                "label": run.label,
                "created": run.created,
                "executor": run.executor,
                "ordered": look.ordered.get(run.run),
                "counts": {_word(state): number for state, number in run.counts.items()},
                "cells": [{**dataclasses.asdict(cell), "state": _word(cell.state)} for cell in run.cells],
            }
            for run in overview.runs
        ],
        "counts": {_word(state): number for state, number in counts(overview.cells).items()},
        "notes": overview.notes,
        **({"labels": look.labels} if look.labels else {}),
    }
