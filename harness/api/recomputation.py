"""Recomputation: cells of a store are computed once more beside it, and compared with their records bit for bit."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pluggy
import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.compute.machine import Compute, prepared
from harness.compute.precision import float32_products
from harness.errors import DDBenchError, few
from harness.planning.arms import Arm
from harness.planning.plan import Plan
from harness.planning.planner import Planner
from harness.planning.request import Request, request_from
from harness.planning.run import Run
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins import hookspecs
from harness.plugins.discovery import Plugins, plugins
from harness.plugins.registry import Registry
from harness.report.rerun_command import Commands, NoCommand
from harness.running.artifacts import Artifacts, MethodArtifacts, RealNetworks
from harness.running.cell_tracker import CellTracker
from harness.running.distilling import Distiller
from harness.running.reporter import Reporter
from harness.running.scoring import Scorer
from harness.store.cells import SHORT, Cell, canonical_json
from harness.store.files.folders import CELLS, RUNS, entries_of
from harness.store.record_files import newest
from harness.store.records import StoredArtifact, StoredSet, StoredStudent
from harness.store.store import Store
from harness.types.artifact import ArtifactRequest

Record = StoredArtifact | StoredSet | StoredStudent
"""A record that components made."""
_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "student": ("accuracy", "loss", "losses", "collapsed", "epochs", "metrics"),
    "distilled": ("status", "largest", "std", "step_size", "storage_floats", "draws"),
}
"""By kind, the fields of a result that have to be equal; an artifact's are all that its plugin wrote."""
_HISTORY = ("iterations", "diverged_at", "scalars", "architectures", "draws")
_NOT_OF_NUMBERS = ("seconds", "memory", "test_accuracy", "validation_accuracy")
"""Ends of the names of fields that differ from one computation to the next.

A network on the real data is scored on the images of the run that made it, which do not decide what it is.
"""
_WHOLE_NUMBERS = ("ipc", "iterations", "distillations", "students", "seed")
_ROW = ("dataset", "ipc", "iterations", "method", "pool", "seed", "evaluator", "architecture", "score_on", "precision")
"""The fields of a student's result that all students of one command share."""


class NotComputable(Exception):
    """A cell cannot be computed again here; the message says why. It may be the same or not."""


@dataclass(frozen=True, eq=False)
class Recomputation:
    """A way to compute one cell of a store again.

    Attributes:
        cell: the cell, with the digests of today's code.
        parents: keys of the cells whose stored results it is computed from.
        plan: a plan that it belongs to.
        folder: the working directory of its request, which relative paths start from.
        compute: computes it in a store that holds the parents.
    """

    cell: Cell
    parents: tuple[str, ...]
    plan: Plan
    folder: str
    compute: Callable[[CellTracker, Record], None]

    def differences(self, store: Store, record: Record, scratch: Path) -> list[str]:
        """Compute the cell once more, and return what differs from its record.

        Args:
            store: the store with the cell and its parents.
            record: the record of the cell.
            scratch: an empty folder for the new record.

        Raises:
            NotComputable: a parent or a file is missing, or the plan is for another kind of device than the record.
            StoreError: a file cannot be read or written.
        """
        compute = record.provenance.compute.as_json()
        made_on = torch.device(compute["device"])
        if made_on.type != self.plan.device.type:
            raise NotComputable(f"made on {made_on.type}, and this check computes on {self.plan.device.type}")
        _require_files(newest(store.attempts(self.cell.key[:2])[self.cell.key]), record)
        # In a store of its own, into which the parents are linked, so that a check adds no attempt to the other.
        beside = Store(scratch).open()
        for key in self.parents:
            _lend(store, key, record, beside)
        tracker = CellTracker(replace(self.plan), beside, _without_observers(), Reporter())
        with contextlib.chdir(self.folder), _as_recorded(compute):
            self.compute(tracker, record)
        again = beside.record(self.cell.key)
        if again is None:
            # A reader looks for a damaged file in the store: the folder of this check is gone by then.
            reasons = [status.reason.replace(str(scratch), str(store.path)) for status in tracker.lost.values()]
            return [f"it cannot be made any more ({reasons[0] if reasons else 'no reason was given'})"]
        files = [name for name in record.files if name.endswith(".safetensors")]
        tensors = (_differing_tensors(name, store.file(record.key, name), beside.file(self.cell.key, name))
                   for name in files)  # fmt: skip
        lines = [
            *_differing_numbers(record.kind, record.as_json(), again.as_json()),
            *itertools.chain.from_iterable(tensors),
        ]
        return [*lines, *_elsewhere(compute, self.plan.device)] if lines else []


def recomputations(plan: Plan, folder: str) -> Iterator[Recomputation]:
    """Yield a way to compute each cell of a plan again."""
    for arm in plan.arms:
        for distillation in range(plan.distillations):
            sets: tuple[str, ...] = ()
            if isinstance(arm.source, TrajectorySource):
                yield from _of_set(plan, folder, arm, arm.source, distillation)
                sets = (arm.set_cell(distillation).key,)
            for student in range(plan.students):
                teacher = arm.artifact_cell(distillation, student)
                score = partial(_score, arm, distillation, student, plan.students)
                if teacher:
                    request = arm.real_network(student)
                    real = RealNetworks(arm.source.problem, arm.source.seed, arm.resolve)
                    # A network on the real data comes from no set.
                    compute, of_sets = (partial(_prepare, real, request), ()) if request else (score, sets)
                    yield Recomputation(teacher, of_sets, plan, folder, compute)
                parents = (*sets, *([teacher.key] if teacher else []))
                yield Recomputation(arm.student_cell(distillation, student), parents, plan, folder, score)


def _of_set(plan: Plan, folder: str, arm: Arm, source: TrajectorySource, distillation: int) -> Iterator[Recomputation]:
    requests = source.needs(distillation, arm.iterations or 0)
    for request in requests:
        prepare = partial(_prepare, MethodArtifacts(source, source.first), request)
        yield Recomputation(source.artifact_cell(request), (), plan, folder, prepare)
    artifacts = tuple(source.artifact_cell(request).key for request in requests)
    iterations = arm.iterations or 0
    if source.search:
        searched = source.search.set_cell(distillation, iterations)
        search = partial(_distil, source.search, distillation, iterations)
        yield Recomputation(searched, artifacts, plan, folder, search)
        artifacts = (*artifacts, searched.key)
    distil = partial(_distil, source, distillation, iterations)
    yield Recomputation(arm.set_cell(distillation), artifacts, plan, folder, distil)


def _prepare(
    maker: MethodArtifacts | RealNetworks, request: ArtifactRequest, tracker: CellTracker, _record: Record
) -> None:
    needs = maker.with_cells([request])
    with tracker.isolate_failures([need.cell for need in needs]):
        Artifacts(maker, tracker).prepare(needs)


def _distil(
    source: TrajectorySource, distillation: int, iterations: int, tracker: CellTracker, _record: Record
) -> None:
    Distiller(tracker, source, distillation).distil([iterations])


def _score(arm: Arm, distillation: int, student: int, students: int, tracker: CellTracker, record: Record) -> None:
    # Students that were trained at once are trained at once again, since that may decide the last bits.
    were_together = isinstance(record, StoredStudent) and (record.result.abreast or 1) > 1
    # A run that asked for fewer metrics may be the one that is repeated.
    measured = record.result.measured if isinstance(record, StoredStudent) else {}
    arm = replace(arm, metrics=tuple(plugins().registry.resolve("metric", name) for name in measured))
    Scorer(tracker, arm, distillation).score(range(students) if were_together else [student])


def _lend(store: Store, key: str, record: Record, beside: Store) -> None:
    """Put a link to a stored cell into another store."""
    attempts = store.attempts(key[:2]).get(key, [])
    # A set may have been distilled again since: then an older attempt is the one that the student was trained on.
    wanted = record.set_file if isinstance(record, StoredStudent) and key == record.set else None
    for folder in reversed(attempts):
        parent = _readable(store, folder)
        if parent and wanted in (None, parent.files.get("set.safetensors")):
            place = beside.path / CELLS / key[:2]
            _require_files(folder, parent)
            place.mkdir(exist_ok=True)
            (place / f"{key}-1").symlink_to(folder)
            return
    raise NotComputable(f"what it was computed from is not in the store ({key[:SHORT]})")


def _require_files(folder: Path, record: Record) -> None:
    """Raise `NotComputable` if tensors of a record are absent, as in a store that was packed without them."""
    for name in record.files:
        if name.endswith(".safetensors") and not os.path.lexists(folder / name):
            raise NotComputable(f"{name} of {record.key[:SHORT]} is not in the store")


def _readable(store: Store, folder: Path) -> Record | None:
    with contextlib.suppress(DDBenchError):
        record = store.read(folder)
        return record if isinstance(record, Record) else None
    return None


def _without_observers() -> Plugins:
    """Return a plugin manager without plugins."""
    # A check adds no cell to the store, and so no observer may log one.
    manager = pluggy.PluginManager("ddbench")
    manager.add_hookspecs(hookspecs)
    return Plugins(manager)


@contextlib.contextmanager
def _as_recorded(compute: Mapping[str, Any]) -> Iterator[None]:
    """Compute as a record says that it was: the number of threads and the compilation decide the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(compute.get("threads") or threads)
    try:
        with prepared("never" if compute.get("compilation") == "never" else "auto"), float32_products("fp32"):
            yield
    finally:
        torch.set_num_threads(threads)


def _differing_numbers(kind: str, record: Mapping[str, Any], again: Mapping[str, Any]) -> Iterator[str]:
    """Describe the numbers of a record that differ in the new one."""
    # Only fields that the old record has: newer versions write more, and that is no difference.
    result = record["result"]
    own = [name for name in result if not name.endswith(_NOT_OF_NUMBERS)]
    parts = [("result", _NUMBERS.get(kind, own)), ("history", _HISTORY)]
    for part, names in parts:
        before, after = record.get(part) or {}, again.get(part) or {}
        for name in names:
            if name in before and before[name] != after.get(name):
                yield _difference(name, before[name], after.get(name))


def _difference(name: str, before: Any, after: Any) -> str:  # noqa: ANN401
    """Describe two values that differ; of lists and dictionaries the first part that does."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        index = next(index for index, value in enumerate(before) if value != after[index])
        return _difference(f"{name}[{index}]", before[index], after[index])
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        key = next(key for key, value in before.items() if value != after[key])
        return _difference(f"{name}.{key}", before[key], after[key])
    return f"{name} is {before!r:.60} in the record, and now {after!r:.60}"


def _elsewhere(compute: Mapping[str, Any], device: torch.device) -> list[str]:
    """Describe another machine or version of torch that made a record, which may explain a difference."""
    names = ("machine", "torch_version")
    here = dataclasses.asdict(Compute.of(device))
    others = [
        f"{compute[name]} instead of {here[name]}" for name in names if compute.get(name, here[name]) != here[name]
    ]
    return [f"it was made by {' and '.join(others)}"] if others else []


def _differing_tensors(name: str, before: Path, after: Path) -> Iterator[str]:
    old, new = load_file(before), load_file(after)
    differing = [tensor for tensor in sorted(old.keys() | new.keys()) if not _same(old.get(tensor), new.get(tensor))]
    if differing:
        yield f"{name} holds other values ({few(differing)})"


def _same(old: Tensor | None, new: Tensor | None) -> bool:
    """Return whether two tensors are equal bit for bit."""
    # By their bytes: as numbers NaN differs from itself, and zero equals minus zero.
    if old is None or new is None or old.dtype != new.dtype or old.shape != new.shape:
        return False
    return old.numel() == 0 or _bytes_of(old).equal(_bytes_of(new))


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


# --- the plans that a store's cells belong to -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class StoredWork:
    """The ways to compute the cells of a store again.

    Attributes:
        ways: by key, the way to compute a cell again.
        reasons: by key of the other cells, the reason why there is none.
    """

    ways: Mapping[str, Recomputation]
    reasons: Mapping[str, str]


def stored_work(store: Store, records: Mapping[str, Record], registry: Registry, device: str) -> StoredWork:
    """Plan the runs of a store again, and for cells that belong to no run, the commands that repeat their records.

    Args:
        store: the store, with the files of its runs.
        records: by key, the records of the cells in question.
        registry: the plugins' components.
        device: as in a request.
    """
    ways: dict[str, Recomputation] = {}
    reasons: dict[str, str] = {}
    for entry in entries_of(store.path / RUNS):
        with contextlib.chdir("."):  # a run is loaded in the folder of its command: go back afterwards
            try:
                run = Run.load(store, entry.name)
                request = replace(run.request, device=device, rerun_stale=False)
                plan, folder = replace(run, request=request).plan(registry), os.getcwd()
                _enter(recomputations(plan, folder), records, ways)
            except DDBenchError:
                continue  # its cells are looked for by their records, which gives the same reason for each
    rows: dict[str, str | None] = {}
    for key, record in records.items():
        if key not in ways and isinstance(record, StoredStudent):
            row = _row(record)
            if row not in rows:
                rows[row] = _enter_row(record, records, ways, registry, device)
            if reason := rows[row]:
                reasons[key] = reason
    no_way = "no run and no student in the store says how it was asked for, as today's components understand it"
    return StoredWork(ways, {key: reasons.get(key, no_way) for key in records if key not in ways})


def _enter(works: Iterator[Recomputation], records: Mapping[str, Record], ways: dict[str, Recomputation]) -> None:
    for work in works:
        if work.cell.key in records:
            ways.setdefault(work.cell.key, work)


def _row(student: StoredStudent) -> str:
    return canonical_json([getattr(student.result, name) for name in _ROW])


def _enter_row(
    student: StoredStudent,
    records: Mapping[str, Record],
    ways: dict[str, Recomputation],
    registry: Registry,
    device: str,
) -> str | None:
    """Plan the command that computes a student again with all of its row; return why it cannot be planned, or None."""
    students = (record for record in records.values() if isinstance(record, StoredStudent))
    alike = [record.result for record in students if _row(record) == _row(student)]
    counts = (1 + max(result.distillation for result in alike), 1 + max(result.student for result in alike))
    hold_out = student.result.score_on == "test" and student.result.hold_out is not None
    try:
        distilled = records.get(student.set)
        of_set = distilled if isinstance(distilled, StoredSet) else None
        words = Commands(registry).words(student, of_set, counts, hold_out)
        plan = Planner(_request(words, device), registry).plan()
        _enter(recomputations(plan, os.getcwd()), records, ways)
    except (NoCommand, DDBenchError) as error:
        return error.reason if isinstance(error, NoCommand) else str(error)
    return None


def _request(words: Sequence[str], device: str) -> Request:
    """Parse the options of a command as a request."""
    options: dict[str, Any] = {"device": device}
    rest = iter(words)
    for word in rest:
        name = word.removeprefix("--").replace("-", "_")
        if name == "keep_hold_out":
            options[name] = True
        elif name in _WHOLE_NUMBERS:
            numbers = [int(number) for number in next(rest).split(",")]
            options[name] = numbers if name in ("ipc", "iterations") else numbers[0]
        elif name in ("score_on", "precision"):
            options[name] = next(rest)
        else:
            options.setdefault(name, []).append(next(rest))
    return request_from(options)
