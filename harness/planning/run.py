"""Runs: requests that a store holds, so that other processes can do parts of them.

``runs/RUN/run.json`` is the request, ``plan.json`` its jobs with their cells, ``JOB.events`` and ``JOB.log`` what
became of them. The run of a command is the same folder whenever the command is given again.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from harness.datasets.problems import traits_of
from harness.errors import StoreError, UsageError
from harness.planning.file_source import complete
from harness.planning.plan import Plan
from harness.planning.planner import NO_DEFAULTS, Planner
from harness.planning.request import Request, request_from
from harness.planning.set_sources import FileSource, kind_note
from harness.plugins.registry import Registry
from harness.plugins.set_formats import read_content
from harness.store.cells import SHORT, Cell, key_of
from harness.store.files.folders import RUNS, make_way, make_way_for_folder
from harness.store.run_files import (
    EVENTS,
    LOG,
    REQUEST_FILE,
    PlannedJob,
    PlanScope,
    list_jobs,
    read_request,
    write_run,
)  # fmt: skip
from harness.store.store import Store
from harness.store.store_errors import cannot
from harness.system.clock import now
from harness.types.distilled import DistilledSet
from harness.types.formats import Reading, display_name
from harness.types.names import read_labels

_OF_THE_START = (
    "store", "executor", "timeout", "retry_failed", "detach", "checkpoint_every", "max_cells", "track", "label",
)  # fmt: skip
"""Options that say how the work is done, and not what it is: the key of a run does not depend on them."""


@dataclass(frozen=True)
class Run:
    """All that one plan is made from.

    Attributes:
        request: what the user asked for.
        file: a distilled set to evaluate, in place of methods.
        reading: how the file is read.
        arms: indices of the arms that are carried out; None is all.
    """

    request: Request
    file: Path | None = None
    reading: Reading | None = None
    arms: tuple[int, ...] | None = None

    @cached_property
    def key(self) -> str:
        """The key of the run, which depends on what is to be done and not on how."""
        content = self.as_json()
        what = {name: value for name, value in content["request"].items() if name not in _OF_THE_START}
        if not what["metric"]:  # runs without metrics keep the keys that they had before there were any
            del what["metric"]
        return key_of({**content, "request": what})[:SHORT]

    def plan(self, registry: Registry, scope: PlanScope | None = None) -> Plan:
        """Return the plan of the arms that were asked for.

        Args:
            registry: the components that are installed.
            scope: the part to plan; None for the whole plan.

        Raises:
            UsageError, DataError, PluginError: a name or an option is wrong, or a combination cannot work.
        """
        planner = Planner(self.request, registry)
        if self.arms is not None:
            scope = None  # the numbers of arms are those in the whole plan
        plan = self._of_file(planner, self.file) if self.file else planner.plan(scope)
        return plan if self.arms is None else replace(plan, arms=[plan.arms[index] for index in self.arms])

    def _of_file(self, planner: Planner, file: Path) -> Plan:
        """Return a plan to evaluate one distilled set."""
        request, reading = planner.request, self.reading or Reading()
        if len(request.dataset) != 1:
            raise UsageError("a distilled set is evaluated on one data set: give one --dataset")
        (dataset,) = planner.names("dataset", request.dataset, NO_DEFAULTS)
        load = cache(lambda: planner.problem(dataset))
        content = read_content(file, reading, lambda: load().shape)
        completed = complete(content, reading, dataset, load())
        distilled = completed.distilled
        problem = replace(load(), preprocessing=distilled.preprocessing)
        source = FileSource(
            problem, distilled, content_digest(distilled), display_name(file), request.seed, completed.part
        )
        defaults = traits_of(dataset).defaults
        stated = distilled.provenance.get("iterations")
        # A file may state anything: what is no plausible count is left out, rather than shown in a table.
        iterations = stated if isinstance(stated, int) and 0 <= stated < 2**31 else None
        arms = list(planner.arms([(source, iterations)], problem, defaults))
        return Plan(
            arms,
            request.students or defaults.students,
            1,
            request.rerun_stale,
            (
                *completed.notes,
                *(note for note in [kind_note(source)] if note),
                *planner.notes(),
                *planner.label_notes(arms),
            ),
            request.set,
            labels=planner.labels(arms),
        )

    def folder(self, store: Store) -> Path:
        """Return the run's folder in a store."""
        return store.path / RUNS / self.key

    def save(
        self,
        store: Store,
        jobs: Sequence[PlannedJob],
        needs: Mapping[str, Sequence[Cell]],
        labels: Mapping[str, str] | None = None,
    ) -> Path:
        """Write the run, with its jobs and what their cells need, into a store, and return its folder.

        Args:
            store: the store.
            jobs: the jobs of the plan.
            needs: by the key of a cell, the cells that it needs.
            labels: by name, its label; readers of the store show it.

        Raises:
            StoreError: it cannot be written.
        """
        folder = self.folder(store)
        plan = {
            "run": self.key,
            "label": self.label,
            "created": now(),
            "executor": self.request.starter,
            "jobs": list_jobs(jobs, needs),
        }
        request = {"folder": os.getcwd(), **self.as_json()}
        # By the names in records, so that whoever reads the store needs no plugin to know what was typed.
        request["request"]["label"] = [f"{label}={name}" for name, label in (labels or {}).items()]
        store.make_folder(folder.parent)
        try:
            make_way_for_folder(store.path, folder, store.notice)
            write_run(folder, request, plan)
            for path in [*folder.glob(f"*{EVENTS}"), *folder.glob(f"*{LOG}")]:
                # Jobs append to these: what is no plain file would be written into, or block them.
                make_way(store.path, path, store.notice)
        except OSError as error:
            raise cannot("write to", store.path, error) from None
        return folder

    @classmethod
    def load(cls, store: Store, key: str) -> "Run":
        """Read the run with this key, and change to the folder where it was asked for, if there is one.

        Raises:
            StoreError: there is none that can be read.
        """
        folder = store.path / RUNS / key
        try:
            saved = read_request(folder)
            if os.path.isdir(saved.folder):
                os.chdir(saved.folder)  # relative paths of data sets mean files there
            request = request_from(
                {**saved.request, "keep_hold_out": saved.hold_out, "store": str(store.path)}, str(folder / REQUEST_FILE)
            )
            reading = Reading(**saved.reading) if saved.reading else None
        except (OSError, StoreError, TypeError) as error:
            raise StoreError(f"{error}: give the command of the run again") from None
        arms = None if saved.arms is None else tuple(saved.arms)
        return cls(request, Path(saved.file) if saved.file else None, reading, arms)

    @property
    def label(self) -> str:
        """The label of the run: its methods and pools, or its file, for people."""
        request = self.request
        label_of = {name: label for label, name in read_labels(request.label).items()}
        methods, pools, datasets = (
            ", ".join(label_of.get(name, name) for name in names)
            for names in (request.method, request.pool, request.dataset)
        )
        scored = ", scored on validation" if request.score_on == "validation" else ""
        scored += ", without validation" if request.keep_hold_out else ""
        if self.file:
            return f"eval {self.file.name} on {datasets}{scored}"
        return f"{methods} through {pools} on {datasets}{scored}"

    def as_json(self) -> dict[str, Any]:
        """Return the run as JSON, from which `load` reads it."""
        request: dict[str, Any] = {**asdict(self.request), "store": str(self.request.store)}
        hold_out = request.pop("keep_hold_out")
        return {
            "request": {name: list(value) if isinstance(value, tuple) else value for name, value in request.items()},
            "file": str(self.file.absolute()) if self.file else None,
            "reading": asdict(self.reading) if self.reading else None,
            "hold_out": hold_out,
            "arms": None if self.arms is None else list(self.arms),
        }


def content_digest(distilled: DistilledSet) -> str:
    """Return the digest of all that students of a set from a file depend on, by which stores know the set."""
    digest = hashlib.sha256(distilled.preprocessing.identity().encode())
    if distilled.step_size is not None:
        digest.update(f"step size {distilled.step_size!r}".encode())
    # Only where the tensors do not say it, so that other sets keep their keys.
    if distilled.label_kind == "regression":
        digest.update(b"regression labels")
    if distilled.schedule is not None:
        digest.update(f"schedule {distilled.schedule.as_json()!r}".encode())
    for tensor in distilled.training_data():
        # Shape and type too: the same bytes in another shape are other images.
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
