"""Adoption: records of older code are stamped as made by today's, after a sample of cells gave the same numbers again.

A refactoring changes syntax trees, and so the digests of code by which stale records are recognised, but no number.
Computing some cells once more shows that: if each is the same bit for bit, the records of their kind and components
get the digests of today's code, with a note of what was checked.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from harness.api.recomputation import NotComputable, Recomputation, Record, stored_work
from harness.errors import StoreError, few
from harness.plugins.discovery import plugins
from harness.running.reporter import Reporter
from harness.store.cells import SHORT
from harness.store.record_files import newest
from harness.store.records import StoredChoice, parse_record
from harness.store.store import RecordError, Store
from harness.system import interrupts
from harness.system.clock import now
from harness.types.names import parse_name

_KINDS = ("artifact", "distilled", "student")


@dataclass(frozen=True)
class Adoption:
    """The outcome of a check, and the number of records that were stamped.

    Attributes:
        checked: labels of the cells that were computed again and gave the same, bit for bit.
        differences: a line for each cell that did not; then nothing was stamped.
        adopted: number of records that were stamped.
        current: number of records that were made by today's code, or stamped before.
        left: by reason, the labels of the records that were not stamped.
    """

    checked: tuple[str, ...]
    differences: tuple[str, ...]
    adopted: int
    current: int
    left: Mapping[str, tuple[str, ...]]

    @property
    def is_refused(self) -> bool:
        """Whether a cell differs, or there was something to stamp and nothing could be."""
        return bool(self.differences) or (bool(self.left) and not self.adopted)


@dataclass
class _Check:
    """The cells that are to be stamped, and the results of the check so far."""

    store: Store
    reporter: Reporter
    ways: Mapping[str, Recomputation]
    candidates: Mapping[str, Record]
    identical: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """By key, the reason why a cell was not checked or is not stamped."""


def adopt(
    path: Path, check: int, *, seed: int = 0, device: str | None = None, reporter: Reporter | None = None
) -> Adoption:
    """Compute a sample of a store's cells again, and stamp its records if all give the same.

    Args:
        path: the store.
        check: number of cells of each kind and component that are computed again.
        seed: seed of the draw of these cells.
        device: as in a request; None is the CPU if it made all records, else ``auto``.
        reporter: receives the progress.

    Raises:
        StoreError: there is no such store, a run works on it, or it cannot be written.
    """
    reporter = reporter or Reporter()
    store = Store(path, reporter.notice)
    store.check_schema()
    _refuse_live(store)
    records, damages = _records(store)
    work = stored_work(store, records, plugins().registry, device or _device_of(records))
    is_current = {key: _digests(record) == dict(work.ways[key].cell.code_digests)
                  for key, record in records.items() if key in work.ways}  # fmt: skip
    candidates = {key: records[key] for key, current in is_current.items() if not current}
    checking = _Check(store, reporter, work.ways, candidates, differences=damages, left=dict(work.reasons))
    try:
        with interrupts.handle_signals(reporter.notice):
            if not damages:  # else nothing can be stamped, and the sample may take days
                _compute_sample(checking, check, seed)
    except interrupts.Stopped:
        raise interrupts.Stopped("stopped before all was checked: nothing was adopted") from None
    current = set(is_current) - set(candidates)
    stamped = [] if checking.differences else list(_stamp_all(checking, current))
    reasons: dict[str, tuple[str, ...]] = {}
    for key, reason in checking.left.items():
        if key not in stamped:
            reasons[reason] = (*reasons.get(reason, ()), records[key].label)
    labels = tuple(records[key].label for key in checking.identical)
    return Adoption(labels, tuple(checking.differences), len(stamped), len(current), reasons)


def _refuse_live(store: Store) -> None:
    # A run may commit newer attempts at the cells that are checked, and the stamped older ones would then hide them.
    for holder in store.leases.all():
        if holder.is_live:
            raise StoreError(f"{holder} works on {store.path} ({holder.label}): wait until it is finished")


def _records(store: Store) -> tuple[dict[str, Record], list[str]]:
    """Return the newest records that code made, by key, and a line for each that is damaged.

    Choices are left out: they are computed from records, by no component.
    """
    records: dict[str, Record] = {}
    damages: list[str] = []
    for key, folders in store.attempts().items():
        try:
            record = store.read(newest(folders))
        except RecordError as error:
            damages.append(str(error))
            continue
        if not isinstance(record, StoredChoice):
            records[key] = record
    return records, damages


def _device_of(records: Mapping[str, Record]) -> str:
    devices = {record.provenance.compute.device for record in records.values()}
    return "cpu" if devices <= {"cpu"} else "auto"


def _digests(record: Record) -> dict[str, str]:
    return dict(record.provenance.code_digests)


# --- the sample -------------------------------------------------------------------------------------------------------


def _components(record: Record) -> list[str]:
    """Return the components that made a record, without options: evaluator and architecture, or method and pool."""
    # Not from the digests: those of a set name every architecture that its pool could have drawn.
    parts = record.provenance.components or []
    return [f"{part.distribution}:{parse_name(part.name).name.rpartition(':')[2]}" for part in parts]


def _of_kind(candidates: Mapping[str, Record], kind: str) -> dict[str, list[str]]:
    """Return the keys of a kind's candidates by component."""
    by_component: dict[str, list[str]] = {}
    for key in sorted(candidates):
        if candidates[key].kind == kind:
            for component in dict.fromkeys(_components(candidates[key])):
                by_component.setdefault(component, []).append(key)
    return by_component


def _compute_sample(checking: _Check, check: int, seed: int) -> None:
    """Compute cells again until ``check`` of each kind and component were compared, or all that can be."""
    # Sorted throughout, so that the same seed draws the same cells on every machine.
    generator = random.Random(seed)
    tried: set[str] = set()
    for kind in _KINDS:
        for _, keys in sorted(_of_kind(checking.candidates, kind).items()):
            # A cell that was drawn for its evaluator is one of its architecture too.
            count = len(tried.intersection(keys) - checking.left.keys())
            for key in generator.sample(keys, len(keys)):
                if count >= check:
                    break
                if key not in tried:
                    tried.add(key)
                    count += _compute(checking, key)


def _compute(checking: _Check, key: str) -> bool:
    """Compute a cell again, and return whether that was possible."""
    record = checking.candidates[key]
    checking.reporter.notice(f"computing again: {record.label}")
    with tempfile.TemporaryDirectory(prefix="ddbench-adopt-", ignore_cleanup_errors=True) as scratch:
        try:
            lines = checking.ways[key].differences(checking.store, record, Path(scratch))
        except NotComputable as error:
            checking.reporter.notice(f"not checked: {record.label} ({error})")
            checking.left[key] = str(error)
            return False
        except RecordError as error:
            lines = [str(error)]
    if lines:
        checking.differences.append(f"{key[:SHORT]} {record.label}: {few(lines, '; ', most=5)}")
    else:
        checking.identical.append(key)
    return True


# --- the stamp --------------------------------------------------------------------------------------------------------


def _stamp_all(checking: _Check, current: set[str]) -> list[str]:
    """Stamp every candidate whose components were checked, and return the keys of those that were stamped."""
    covered = {kind: {name for key in checking.identical if checking.candidates[key].kind == kind
                      for name in _components(checking.candidates[key])} for kind in _KINDS}  # fmt: skip
    stamped: list[str] = []
    # Parents first, since no record is stamped before those that it was computed from.
    for key in sorted(checking.candidates, key=lambda key: (_depth(checking, key), key)):
        reason = _obstacle(checking, key, covered, current.union(stamped))
        if reason is None:
            try:
                _stamp(checking, key)
                stamped.append(key)
            except RecordError as error:
                reason = str(error)
        if reason:
            checking.left.setdefault(key, reason)
    return stamped


def _depth(checking: _Check, key: str) -> int:
    """Return a number that is smaller for parents than for children, as a set is computed from experts or a search."""
    parents = [parent for parent in checking.ways[key].parents if parent in checking.candidates]
    return 1 + max((_depth(checking, parent) for parent in parents), default=0)


def _obstacle(checking: _Check, key: str, covered: Mapping[str, set[str]], known: set[str]) -> str | None:
    """Return why a record cannot be stamped; None if it can."""
    record = checking.candidates[key]
    components = _components(record)
    unchecked = [name for name in components if name not in covered[record.kind]]
    if unchecked or not components:
        return f"no {record.kind} cell with {few(unchecked)} was checked" if components else "it names no component"
    # A record's digests name the code of what it was computed from too, so that it is not stamped without that.
    if not known.issuperset(checking.ways[key].parents):
        return "what it was computed from is not adopted"
    return None


def _stamp(checking: _Check, key: str) -> None:
    """Add an attempt with the same result and files, and the digests of today's code: no attempt is ever changed.

    Raises:
        RecordError: a file of the record is missing or was altered.
        StoreError: the store cannot be written.
    """
    store, record = checking.store, checking.candidates[key]
    adopted = {
        "at": now(),
        "checked": sorted(checking.identical),
        "previous": _digests(record) or dict(record.provenance.sources),
        "ddbench": version("ddbench"),
    }
    digests = dict(checking.ways[key].cell.code_digests)
    content = record.as_json()
    content["provenance"] |= {"code_digests": digests, "adopted": adopted}
    # `Store.file` checks each file first: one that was altered may not get a new digest that says that it is sound.
    files = {name: partial(_link, store.file(key, name)) for name in record.files}
    store.commit(parse_record(content), files)


def _link(file: Path, place: Path) -> None:
    """Give a file a second name, since attempts are never changed; copy it if the file system has no such links."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)
