"""The cells of a plan during a run: which are missing, their records and commits, and the calls of observers."""

import dataclasses
import importlib.metadata
import json
import math
import platform
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from harness.compute.machine import Compute
from harness.errors import PluginError, StoreError
from harness.planning.plan import Plan
from harness.plugins.discovery import Plugins
from harness.plugins.observers import StepPace
from harness.plugins.registry import Resolved
from harness.running.reporter import Reporter
from harness.store.cell_states import CellState, CellStates, CellStatus
from harness.store.cells import Cell
from harness.store.failures import Failure, reason_of
from harness.store.locking.leases import Holder, Lease, LeaseLost
from harness.store.records import StoredArtifact, StoredSet, StoredStudent, first_error
from harness.store.store import RecordError, Store, Writer
from harness.system import interrupts
from harness.system.bounded_json import parse_object
from harness.system.clock import now
from harness.types.distilled import DistilledSet
from harness.types.problem import Problem

R = TypeVar("R", StoredArtifact, StoredSet, StoredStudent)


class CellTracker:
    """The cells of a plan during a run."""

    def __init__(self, plan: Plan, store: Store, plugins: Plugins, reporter: Reporter) -> None:
        self.plan, self.store, self.plugins, self.reporter = plan, store, plugins, reporter
        self.states = CellStates(plan, store)
        self._redone: set[str] = set()
        self._attempts: dict[str, int] = {}
        # By thread, because artifacts are made side by side, each under a lease of its own.
        self._here = threading.local()
        self._pace = StepPace()
        self.lost: dict[str, CellStatus] = {}
        """By key, the status of cells that could not be made or used: the store may know less of them."""

    def is_missing(self, cell: Cell) -> bool:
        """Return whether the cell has still to be made."""
        known = cell.key in self._redone or cell.key in self.lost
        return not known and self.states.is_missing(cell)

    @contextmanager
    def hold(self, key: str, label: str) -> Iterator[None]:
        """Hold a lease while this thread works; what other processes did meanwhile is in the store then."""
        before = self._lease
        with self.store.leases.hold(key, label, self._waits) as lease:
            self._here.lease = lease
            try:
                yield
            finally:
                self._here.lease = before

    @property
    def _lease(self) -> Lease | None:
        lease: Lease | None = getattr(self._here, "lease", None)
        return lease

    def _waits(self, holder: Holder) -> None:
        self.reporter.notice(f"waiting for {holder}, which works on {holder.label}")

    def start(self, cell: Cell) -> None:
        """Announce that work on a cell begins.

        Raises:
            LeaseLost: another process has taken it over, and made it.
        """
        self._attempts[cell.key] = self.store.next_attempt(cell.key)
        # Looked at again now that the number of the attempt is fixed: another process that commits from here on takes
        # the same number, and so only one of the two commits succeeds.
        if not self.is_missing(cell):
            raise LeaseLost(f"another process has made {cell.label}")
        if self._lease:
            self._lease.report(cell=cell.key, label=cell.label)
        self.reporter.started(cell)
        self.notify("cell_started", cell)

    def step(self, cell: Cell, iteration: int, total: int, scalars: Mapping[str, float]) -> None:
        """Report the iteration of a trajectory.

        Raises:
            LeaseLost: another process has taken it over.
        """
        if self._lease:
            self._lease.report(cell=cell.key, iteration=iteration, total=total)
        self.reporter.step(cell, iteration, total, scalars)
        if self.plugins.observes("step") and self._pace.is_due(cell.key, iteration == total):
            self.notify("step", cell, iteration=iteration, scalars=scalars)

    def check(self) -> None:
        """Raise `LeaseLost` if another process has taken over what this thread works on."""
        if self._lease:
            self._lease.check()

    def record(
        self,
        kind: type[R],
        cell: Cell,
        problem: Problem,
        components: Iterable[Resolved[Any]],
        **fields: Any,  # noqa: ANN401
    ) -> R:
        """Return the record of a finished cell, with its provenance.

        Args:
            kind: the model of its kind.
            cell: the cell.
            problem: the problem that it was made on.
            components: the components that made it.
            fields: the fields of the kind as Python values; the record has None for NaN and infinity, and lists for
                tuples.

        Raises:
            PluginError: a component returned what no record can hold.
        """
        provenance = {
            "components": [component.provenance() for component in components],
            "dataset": dict(problem.provider),
            "code_digests": dict(cell.code_digests),
            "set": list(self.plan.set_options),
            "compute": dataclasses.asdict(Compute.of(problem.device)),
            "versions": _versions(),
            "finished": now(),
        }
        identity = json.loads(json.dumps({"kind": cell.kind, **cell.identity}))
        whole = {"kind": cell.kind, "label": cell.label, "key": cell.key, "identity": identity}
        try:
            # A committed record is never changed, so that it is checked as its readers will: by the parser of files,
            # then by the model.
            text = json.dumps(_finite({**whole, "provenance": provenance, **fields}), allow_nan=False)
            return kind.model_validate(parse_object(text.encode()))
        except ValueError as error:
            reason = first_error(error) if isinstance(error, ValidationError) else error
            raise PluginError(f"{cell.label} cannot be kept, for its record would be damaged: {reason}") from None

    def commit(
        self,
        cell: Cell,
        record: StoredArtifact | StoredSet | StoredStudent,
        files: Mapping[str, Writer] | None = None,
        distilled: DistilledSet | None = None,
    ) -> None:
        """Put a finished cell into the store.

        Args:
            cell: the cell.
            record: its record.
            files: by name, what writes a file beside the record.
            distilled: the set that was made, which observers receive; None for other cells.

        Raises:
            LeaseLost: another process has taken it over, or has made it.
        """
        # As late as possible: a process that slept through its lease must not commit beside the one that took over.
        self.check()
        interrupts.heed_at_once()
        written = self.store.commit(record, files, self._attempts.pop(cell.key, None))
        self._redone.add(cell.key)
        self.reporter.finished(cell, written)
        # Only if somebody observes it, since every observer receives a copy of all images.
        if distilled is not None and self.plugins.observes("set_finished"):
            self.notify("set_finished", cell, distilled=distilled)
        self.notify("cell_finished", cell, outcome=written.as_json())

    @contextmanager
    def isolate_failures(self, cells: Sequence[Cell]) -> Iterator[None]:
        """Turn any error while ``cells`` are made into a failure of the first that is missing; the run goes on.

        A damaged cell in the store blocks them all.
        """
        try:
            with interrupts.reraise_until_effective():
                yield
        except RecordError as error:
            blocked = CellStatus(CellState.BLOCKED, str(error))
            self.lost |= dict.fromkeys((cell.key for cell in cells if self.is_missing(cell)), blocked)
            if self.store.holds(error.key):
                self.lost[error.key] = CellStatus(CellState.DAMAGED, str(error))
            self.reporter.notice(str(error))
        except (StoreError, LeaseLost, KeyboardInterrupt):  # an interrupt of a plugin's own is a `PluginFault` by now
            raise
        except BaseException as error:  # a method may raise anything: the other cells go on
            reason, text = reason_of(error), traceback.format_exc()
            cell = next((cell for cell in cells if self.is_missing(cell)), None)
            if cell is None:
                self.reporter.notice(f"all of {cells[-1].label} was made, and then: {reason}")
            else:
                self.fail(cell, reason, text)

    def fail(self, cell: Cell, reason: str, text: str) -> None:
        """Note that a cell failed.

        Args:
            cell: the cell.
            reason: one line.
            text: the content of the failure's log.
        """
        log = self.store.failures.note(Failure(cell.key, cell.kind, cell.label, reason, text))
        self.lost[cell.key] = CellStatus(CellState.FAILED, reason)
        self.reporter.failed(cell, reason, log)
        self.notify("cell_finished", cell, outcome={"status": "failed", "reason": reason})

    def notify(self, hook: str, cell: Cell, **arguments: Any) -> None:  # noqa: ANN401
        """Call an observer hook of every plugin."""
        of_cell = {"key": cell.key, "kind": cell.kind, "label": cell.label, "identity": cell.identity}
        for complaint in self.plugins.notify(hook, cell=of_cell, **arguments):
            self.reporter.notice(complaint)

    def finish(self) -> None:
        """Give observers that are behind a limited time to catch up."""
        for complaint in self.plugins.finish():
            self.reporter.notice(complaint)


def saver(tensors: Mapping[str, Tensor]) -> Writer:
    """Return a function that writes tensors to a path."""
    # safetensors accepts contiguous tensors only.
    whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    return lambda path: path.write_bytes(save(whole))


def _finite(value: Any) -> Any:  # noqa: ANN401
    """Return a value as JSON can hold it: None in place of NaN and infinity, such as losses of collapsed students."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _versions() -> dict[str, str]:
    names = ("ddbench", "torch", "torchvision", "kornia", "numpy", "scipy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}
