"""Doing what a plan still lacks: trajectories, then artifacts and students, each committed when it is done."""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import platform
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from harness.experiment.arms import Arm
from harness.experiment.cells import Cell
from harness.experiment.events import Reporter
from harness.experiment.picture import draw_grid
from harness.experiment.plan import Plan
from harness.experiment.sources import FileSource, Source, TrajectorySource
from harness.experiment.store import Store, Writer
from harness.learning.machine import Compute
from harness.learning.networks import PoolNetworks
from harness.learning.parallel import side_by_side
from harness.learning.trajectory import History, Trajectory
from harness.plugins.discovery import Plugins
from harness.plugins.registry import Resolved
from harness.types.distilled import DistilledSet
from harness.types.errors import StoreError
from harness.types.evaluator import Artifact
from harness.types.formats import load_distilled, save_distilled
from harness.types.method import Task
from harness.types.problem import Problem
from harness.types.seeds import Streams


class Runner:
    """Works through a plan in this process, one job after the other; a failing one does not stop the rest."""

    def __init__(self, plan: Plan, store: Store, plugins: Plugins, reporter: Reporter) -> None:
        self.plan, self.store, self.plugins, self.reporter = plan, store, plugins, reporter
        self.failed: dict[str, str] = {}
        """Keys of the cells that could not be made, with the reason."""
        self._redone: set[str] = set()

    def run(self) -> None:
        """Make every missing cell.

        Raises:
            StoreError: the store cannot be written any more.
        """
        sources = list(dict.fromkeys(arm.source for arm in self.plan.arms))
        for source in sources:
            arms = [arm for arm in self.plan.arms if arm.source is source]
            for distillation in range(self.plan.distillations):
                if isinstance(source, TrajectorySource):
                    points = sorted({arm.iterations for arm in arms if arm.iterations is not None})
                    with self._isolated([source.set_cell(distillation, point) for point in points]):
                        self._distil(source, distillation, points)
                for arm in arms:
                    if isinstance(source, FileSource) or self.store.folder(arm.set_cell(distillation).key):
                        with self._isolated(self._cells_of(arm, distillation)):
                            self._score(arm, distillation)

    def _missing(self, cell: Cell) -> bool:
        return cell.key not in self._redone and self.plan.is_missing(cell, self.store)

    def _cells_of(self, arm: Arm, distillation: int) -> list[Cell]:
        """What `_score` makes: students, and before them what they need."""
        students = range(self.plan.students)
        artifacts = [arm.artifact_cell(distillation, student) for student in students]
        return [cell for cell in artifacts if cell] + [arm.student_cell(distillation, student) for student in students]

    @contextmanager
    def _isolated(self, cells: Sequence[Cell]) -> Iterator[None]:
        try:
            yield
        except (StoreError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a method may raise anything: the other cells go on
            lost = [cell for cell in cells if self._missing(cell)]
            cell = next(iter(lost), cells[-1])
            log = self.store.note_failure(cell.key, traceback.format_exc())
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self.failed |= dict.fromkeys([cell.key, *(other.key for other in lost)], reason)
            self.reporter.failed(cell, reason, log)
            self._notify("cell_finished", cell, {"status": "failed", "reason": reason})

    def _distil(self, source: TrajectorySource, distillation: int, points: Sequence[int]) -> None:
        cells = {point: source.set_cell(distillation, point) for point in points}
        if not any(self._missing(cell) for cell in cells.values()):
            return
        with self.store.lock(source.trajectory_key(distillation)):
            trajectory: Trajectory | None = None
            for point, cell in cells.items():
                if not self._missing(cell):
                    continue
                self._start(cell)
                trajectory = trajectory or self._resume(source, distillation, point)
                self._advance(trajectory, source, distillation, point, cell)

    def _resume(self, source: TrajectorySource, distillation: int, point: int) -> Trajectory:
        """The trajectory at the furthest stored iteration up to ``point``, or at its start."""
        problem, streams = source.problem, Streams(source.seed, distillation)
        task = Task(problem, source.ipc, streams, source.total, source.precision)
        method = source.method.cls(task, source.method.options)
        pool = source.pool.cls(source.pool.options) if source.pool else None
        networks = PoolNetworks(pool, source.resolve, problem, streams)
        trajectory = Trajectory(method, networks, problem, streams)
        for iteration in range(point, 0, -1):
            cell = source.set_cell(distillation, iteration)
            folder = self.store.folder(cell.key)
            if folder and not self._missing(cell):
                record = self.store.record(cell.key) or {}
                state = self.store.file(cell.key, "state.safetensors")
                trajectory.restore(load_file(state), History(**record["history"]))
                break
        return trajectory

    def _advance(
        self, trajectory: Trajectory, source: TrajectorySource, distillation: int, point: int, cell: Cell
    ) -> None:
        def on_step(iteration: int, scalars: Mapping[str, float]) -> None:
            self.reporter.step(cell, iteration, point, scalars)

        distilled = trajectory.advance(point, on_step)
        status = trajectory.status(distilled)
        tensors, history = trajectory.state()
        told = {**source.describe(), "iterations": point, "seed": source.seed, "distillation": distillation}
        distilled = dataclasses.replace(distilled, provenance={**told, "status": status, "cell": cell.key})
        record = {
            "result": {"status": status, **distilled.statistics(), "seconds": history.seconds, **told},
            "history": dataclasses.asdict(history),
            "trajectory": source.trajectory_key(distillation),
        }
        components: list[Resolved[Any]] = [source.method, *([source.pool] if source.pool else [])]
        files = {
            "set.safetensors": lambda path: save_distilled(distilled, path),
            "images.png": lambda path: draw_grid(distilled, path),
            "state.safetensors": _saver(tensors),
        }
        self._commit(cell, record, source.problem, [c.provenance() for c in components], files)

    def _score(self, arm: Arm, distillation: int) -> None:
        cells = {student: arm.student_cell(distillation, student) for student in range(self.plan.students)}
        if not any(self._missing(cell) for cell in cells.values()):
            return
        set_key = arm.set_cell(distillation).key
        with self.store.lock(f"{set_key}-{cells[0].key}"):
            missing = [student for student, cell in cells.items() if self._missing(cell)]
            if not missing:
                return
            distilled = self._set(arm.source, set_key)
            problem, streams = arm.source.problem, Streams(arm.source.seed, distillation)
            artifacts = self._artifacts(arm, distillation, missing, distilled)
            evaluator = arm.evaluator.cls(arm.evaluator.options)
            architecture = arm.architecture.cls(arm.architecture.options)
            told = {**arm.describe(), "protocol": arm.protocol, "seed": arm.source.seed, "distillation": distillation}
            for student in missing:
                self._start(cells[student])
            for score in evaluator.evaluate(distilled, problem, architecture, missing, artifacts, streams):
                record = {"result": {**dataclasses.asdict(score), **told, "score_on": problem.score_on}, "set": set_key}
                components = [arm.evaluator.provenance(), arm.architecture.provenance()]
                self._commit(cells[score.student], record, problem, components)

    def _artifacts(
        self, arm: Arm, distillation: int, students: Sequence[int], distilled: DistilledSet
    ) -> dict[int, Artifact]:
        evaluator = arm.evaluator.cls(arm.evaluator.options)
        asked = {student: evaluator.artifact(student) for student in students}
        requests = {student: request for student, request in asked.items() if request}
        cells = {student: arm.artifact_cell(distillation, student) for student in requests}
        wanted = {student: cell for student, cell in cells.items() if cell}
        if not wanted:
            return {}
        problem, streams = arm.source.problem, Streams(arm.source.seed, distillation)
        name = next(iter(requests.values())).architecture
        resolved = arm.resolve(name) if name else None
        architecture = resolved.cls(resolved.options) if resolved else None

        def make(student: int) -> Artifact:
            made: Artifact = evaluator.make_artifact(requests[student], distilled, problem, architecture, streams)
            return made

        missing = [student for student, cell in wanted.items() if self._missing(cell)]
        for student in missing:
            self._start(wanted[student])
        for student, artifact in zip(missing, side_by_side(make, missing, problem.device), strict=True):
            tensors = {key: value.cpu().contiguous() for key, value in artifact.tensors.items()}
            files = {"artifact.safetensors": _saver(tensors)}
            record = {"result": dict(artifact.scalars), "set": arm.set_cell(distillation).key}
            self._commit(wanted[student], record, problem, [arm.evaluator.provenance()], files)
        return {student: self._artifact(cell, architecture) for student, cell in wanted.items()}

    def _artifact(self, cell: Cell, architecture: Any) -> Artifact:  # noqa: ANN401
        return Artifact(load_file(self.store.file(cell.key, "artifact.safetensors")), architecture=architecture)

    def _set(self, source: Source, key: str) -> DistilledSet:
        if isinstance(source, FileSource):
            return source.distilled
        return load_distilled(self.store.file(key, "set.safetensors"))

    def _start(self, cell: Cell) -> None:
        self.reporter.started(cell)
        self._notify("cell_started", cell)

    def _commit(
        self,
        cell: Cell,
        record: Mapping[str, Any],
        problem: Problem,
        components: list[dict[str, str]],
        files: Mapping[str, Writer] | None = None,
    ) -> None:
        provenance = {
            "components": components,
            "sources": dict(cell.sources),
            "compute": dataclasses.asdict(Compute.of(problem.device)),
            "versions": _versions(),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        identity = json.loads(json.dumps({"kind": cell.kind, **cell.identity}))
        whole = {"kind": cell.kind, "label": cell.label, "identity": identity, "provenance": provenance, **record}
        written = self.store.commit(cell.key, _finite(whole), files)
        self._redone.add(cell.key)
        self.reporter.finished(cell, written)
        self._notify("cell_finished", cell, written)

    def _notify(self, hook: str, cell: Cell, outcome: Mapping[str, Any] | None = None) -> None:
        arguments = {"cell": {"key": cell.key, "kind": cell.kind, "identity": cell.identity}}
        for complaint in self.plugins.notify(hook, **arguments, **({} if outcome is None else {"outcome": outcome})):
            self.reporter.notice(complaint)


def _saver(tensors: Mapping[str, Tensor]) -> Writer:
    def write(path: Path) -> None:
        path.write_bytes(save(dict(tensors)))

    return write


def _finite(value: Any) -> Any:  # noqa: ANN401
    """The same as JSON can hold it: None in place of NaN and infinity, as the losses of lost students are."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _versions() -> dict[str, str]:
    names = ("ddbench", "torch", "torchvision", "kornia", "numpy", "scipy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}
