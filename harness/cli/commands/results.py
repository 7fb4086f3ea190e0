"""``ddbench results``: list, show, verify and clean up the records of a store."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from harness.cli.commands.exporting import export
from harness.cli.commands.packing import pack, unpack
from harness.cli.errors import warn
from harness.cli.group import VERBS
from harness.cli.options import read_store_option, store_option
from harness.cli.output import format_size, plain, print_json, print_table, printable
from harness.errors import StoreError, did_you_mean, few
from harness.types.names import split_names
from harness.types.plurals import counted

if TYPE_CHECKING:
    from harness.store.inventory import Cost, InventoryCell
    from harness.store.store import Store

F = TypeVar("F", bound=Callable[..., Any])
FILTERS = ("kind", "dataset", "method", "pool", "evaluator", "architecture", "status")
_LONG_LIST = 8

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _Verbs(click.Group):
    """A group that names the most similar commands if one is misspelt."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail with the most similar names."""
        if not args[0].startswith("-") and args[0] not in self.commands:
            _no_such_verb(ctx, args[0], self.commands)
        return super().resolve_command(ctx, args)


def _no_such_verb(ctx: click.Context, word: str, verbs: Mapping[str, Any]) -> NoReturn:
    raise click.UsageError(f"there is no command {word!r}: {did_you_mean(word, verbs)}", ctx)


@click.group(cls=_Verbs, help=VERBS["results"].summary)
def results() -> None:
    """Group the commands on records."""


results.add_command(export)
results.add_command(pack)
results.add_command(unpack)


def _filters(command: F) -> F:
    for name in reversed(FILTERS):
        words = f"Only cells of this {'data set' if name == 'dataset' else name}; repeatable."
        command = click.option(f"--{name}", multiple=True, metavar="NAME,...", help=words)(command)
    return command


@results.command("list")
@_filters
@read_store_option
@_json
def list_cells(store: Path, as_json: bool, **filters: tuple[str, ...]) -> None:
    """List the cells, and the disk space of each kind of file.

    A name without options stands for the component with any options: --method dc, or --method 'dc[lr_img=0.1]'.
    """
    from harness.store.inventory import costs, inventory_cells
    from harness.store.run_labels import labels_of_runs

    opened_store = _readable(store)
    every = list(inventory_cells(opened_store))
    wanted = {name: split_names(values) for name, values in filters.items() if values}
    rows = [row for row in every if row.has(wanted)] if wanted else every
    spent = costs(opened_store, every)
    labels = labels_of_runs(opened_store)
    if as_json:
        cells = [_with_labels(dataclasses.asdict(row), row.result, labels) for row in rows]
        print_json({"store": _place(store), "cells": cells, "costs": [dataclasses.asdict(cost) for cost in spent]})
        return
    _print_cells(rows, labels)
    click.echo("")
    _print_costs(spent)
    click.echo(f"{len(rows):,} of {counted(len(every), 'cell')}; store: {_place(store)}")


@results.command("show")
@click.argument("key")
@read_store_option
@_json
def show(key: str, store: Path, as_json: bool) -> None:
    """Show the whole record of a cell, or why it failed; KEY is the beginning of its key."""
    from harness.store.record_files import read_raw_record
    from harness.store.run_labels import labels_of_runs

    opened_store = _readable(store)
    whole = opened_store.find(key)
    folder = opened_store.folder(whole)
    record = read_raw_record(folder) if folder else None
    failure = None if record else opened_store.failures.get(whole)
    content = dataclasses.asdict(failure) if failure else record or {}
    content = _with_labels(content, content.get("result"), labels_of_runs(opened_store))
    if as_json:
        print_json(content)
        return
    text = content.pop("text").splitlines() if failure else []
    where = opened_store.failures.log(whole) if failure else folder
    shown = str(where).replace(str(opened_store.path), _place(store), 1)  # a packed file has no folder of its own
    click.echo(f"{plain(str(content.get('label')))}\n{shown}\n")
    for line in (*_lines(content), *map(printable, text)):
        click.echo(line)


@results.command("path")
@click.argument("key")
@store_option
def path(key: str, store: Path) -> None:
    """Print the folder of a cell's newest record, or the log of a failed cell; KEY is the beginning of its key."""
    opened_store = _opened(store)
    whole = opened_store.find(key)
    attempts = opened_store.attempts(whole[:2]).get(whole)
    click.echo(str(opened_store.folder(whole) or (attempts[-1] if attempts else opened_store.failures.log(whole))))


@results.command("verify")
@read_store_option
@click.pass_context
def verify(ctx: click.Context, store: Path) -> None:
    """Read every file of the store, and print a line for each damaged one; the exit status is 1 if there are any.

    Checked are records and the files whose hashes they hold, store.json, logs of failures, leases, the files of runs
    and of unfinished cells, and files that do not belong in a store. Files that were left out on purpose when the store
    was packed are counted, but are not damage.
    """
    from harness.store.inventory import NO_RECORD, waste
    from harness.store.verification import verify as wrong

    opened_store = _readable(store, lambda _: None)  # what would be warned of is a line of its own
    count = 0
    for line in wrong(opened_store):
        count += 1
        click.echo(plain(line).replace(str(opened_store.path), _place(store)))
    left = [leftover for leftover in waste(opened_store) if leftover.reason != NO_RECORD]
    for leftover in left:
        click.echo(f"note: {plain(str(leftover.path))}: {leftover.reason}; `ddbench results clean` removes it")
    attempts = opened_store.attempts()
    read = f"{counted(sum(map(len, attempts.values())), 'record')} of {counted(len(attempts), 'cell')} read"
    on_purpose = _left_out(opened_store)
    more = f", {counted(on_purpose, 'file')} left out when it was packed" if on_purpose else ""
    click.echo(f"{read}, {counted(count, 'thing')} wrong, {len(left)} left over{more}")
    ctx.exit(1 if count else 0)


@results.command("discard")
@click.argument("key")
@store_option
def discard(key: str, store: Path) -> None:
    """Discard the newest record of a cell, so that a run computes it again; KEY is the beginning of its key.

    The record is moved to the folder discarded/ of the store, and nothing is deleted. An earlier record of the cell
    counts again.
    """
    opened_store = _opened(store)
    whole = opened_store.find(key)
    aside = opened_store.discard(whole)
    left = "the attempt before it counts again" if opened_store.folder(whole) else "a run makes it again"
    click.echo(f"moved to {aside}: {left}")


@results.command("adopt")
@store_option
@click.option("--check", type=click.IntRange(1), required=True, metavar="N", help="Cells of each kind and component.")
@click.option("--seed", type=int, default=0, metavar="N", help="Decides which cells. [0]")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, or auto. [cpu if it made all records, else auto]")
@click.pass_context
def adopt(ctx: click.Context, store: Path, check: int, seed: int, device: str | None) -> None:
    """Stamp records of older code as made by today's, after some cells gave the same numbers again.

    N random cells of each kind and component are computed again beside the store: students by evaluator and
    architecture, sets by method, pool and networks, artifacts by what made them. If all are the same bit for bit, each
    record whose components were checked gets a new attempt with the same result, the digests of today's code, and a
    note of what was checked. If one differs, nothing is stamped.

    Exit code: 0 records are stamped or none has to be, 1 a cell differs or nothing could be checked.
    """
    from harness.api.adoption import adopt as adopt_records
    from harness.cli.progress import reporter_for_stderr
    from harness.plugins.registry import stdout_to_stderr

    with reporter_for_stderr() as progress, stdout_to_stderr():
        adoption = adopt_records(store, check, seed=seed, device=device, reporter=progress)
    for line in adoption.differences:
        click.echo(f"differs: {plain(line)}")
    for reason, labels in adoption.left.items():
        click.echo(f"not adopted: {plain(few(labels))}: {plain(reason)}")
    checked = f"{counted(len(adoption.checked), 'cell')} computed again without a difference"
    stamped = f"{counted(adoption.adopted, 'record')} adopted, {adoption.current} of today's code before"
    click.echo(f"{checked}, {len(adoption.differences)} with one; {stamped}")
    ctx.exit(1 if adoption.is_refused else 0)


@results.command("clean")
@store_option
@click.option("--superseded", is_flag=True, help="Also remove older records of a cell if its newest one is sound.")
@click.option("--yes", is_flag=True, help="Remove the files; without it, only print what would be removed.")
def clean(store: Path, superseded: bool, yes: bool) -> None:
    """Remove files that are not needed: leftovers of killed runs, and logs of failures that were retried."""
    from harness.store.inventory import remove, waste

    opened_store = _opened(store)
    live = [holder for holder in opened_store.leases.all() if holder.is_live]
    if live:
        raise StoreError(f"{live[0]} works on {opened_store.path} ({live[0].label}): wait until it is finished")
    left = list(waste(opened_store, superseded))
    if yes:
        remove(left)
    for leftover in left:
        verb = "removed" if yes else "would remove"
        click.echo(f"{verb} {plain(str(leftover.path))}: {leftover.reason}, {format_size(leftover.size)}")
    total = format_size(sum(leftover.size for leftover in left))
    more = "" if yes or not left else "; --yes removes them"
    click.echo(f"{counted(len(left), 'thing')}, {total}{more}")


def _opened(path: Path) -> "Store":
    """Return the store in a folder, to be changed."""
    from harness.store.store import Store

    store = Store(path, warn)
    store.check_schema()
    return store


def _readable(path: Path, notice: Callable[[str], object] = warn) -> "Store":
    """Return the store in a folder or a packed file, to be read."""
    from harness.store.packing import open_store

    store = open_store(path, notice)
    store.check_schema()
    return store


def _place(path: Path) -> str:
    """Return the whole path of a store, packed or not."""
    from harness.system.home import expand_home

    return str(expand_home(path).absolute())


def _left_out(store: "Store") -> int:
    """Return how many files a store lacks on purpose; 0 if the list of them is damaged, which has a line of its own."""
    from harness.store.files.left_out import absent

    try:
        return len(absent(store.path))
    except StoreError:
        return 0


def _with_labels(content: dict[str, Any], result: object, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return a cell as JSON shows it, with the labels of its names if it has any."""
    from harness.store.run_labels import labels_of_result

    own = labels_of_result(result, labels) if isinstance(result, Mapping) else {}
    return {**content, "labels": own} if own else content


def _print_cells(rows: "list[InventoryCell]", labels: Mapping[str, str]) -> None:
    from harness.store.cells import SHORT
    from harness.store.run_labels import with_labels_in

    lines = [
        (row.key[:SHORT], row.kind, row.status, with_labels_in(row.label, labels), format_size(row.size))
        for row in rows
    ]
    print_table(("key", "kind", "status", "label", "size"), lines)


def _print_costs(spent: "list[Cost]") -> None:
    lines = [(cost.kind, f"{cost.count:,}", format_size(cost.size)) for cost in spent]
    lines.append(("in all", "", format_size(sum(cost.size for cost in spent))))
    print_table(("on disk", "count", "size"), lines)


def _lines(value: Any, indent: int = 0) -> Iterator[str]:  # noqa: ANN401
    """Format a record as indented text; of a long list, only its ends."""
    for key, part in value.items():
        name = f"{'  ' * indent}{plain(str(key))}"
        if isinstance(part, dict) and part:
            yield f"{name}:"
            yield from _lines(part, indent + 1)
        elif isinstance(part, list) and len(part) > _LONG_LIST:
            yield f"{name}: {counted(len(part), 'value')}, from {plain(str(part[0]))} to {plain(str(part[-1]))}"
        else:
            yield f"{name}: {plain(str(part))}"
