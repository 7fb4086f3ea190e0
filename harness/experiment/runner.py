"""Doing what a plan still lacks: trajectories, then artifacts and students, each committed when it is done."""

import dataclasses
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from safetensors.torch import load_file

from harness.experiment.arms import Arm
from harness.experiment.cells import Cell
from harness.experiment.events import Reporter
from harness.experiment.ledger import Ledger, saver
from harness.experiment.picture import draw_grid
from harness.experiment.plan import Plan
from harness.experiment.sources import FileSource, Source, status_of
from harness.experiment.store import Store, Writer
from harness.experiment.supplies import ARTIFACT_FILE, Supplies
from harness.experiment.trajectories import TrajectorySource
from harness.learning.networks import PoolNetworks
from harness.learning.parallel import side_by_side
from harness.learning.precision import float32_products
from harness.learning.trajectory import History, Trajectory
from harness.plugins.discovery import Plugins
from harness.plugins.registry import Resolved
from harness.plugins.returns import returned
from harness.types.artifact import Artifact
from harness.types.distilled import DistilledSet
from harness.types.errors import PluginError, StoreError
from harness.types.evaluator import StudentRecord
from harness.types.formats import load_distilled, save_distilled
from harness.types.seeds import Streams


class Runner:
    """Works through a plan in this process, one job after the other; a failing one does not stop the rest."""

    def __init__(self, plan: Plan, store: Store, plugins: Plugins, reporter: Reporter) -> None:
        self.plan, self.store, self.reporter = plan, store, reporter
        self.ledger = Ledger(plan, store, plugins, reporter)
        self.failed: dict[str, str] = {}
        """Keys of the cells that could not be made, with the reason."""

    def run(self) -> None:
        """Make every missing cell. Whatever asks for nothing else computes in float32.

        Raises:
            StoreError: the store cannot be written any more.
        """
        with float32_products("fp32"):
            self._run()

    def _run(self) -> None:
        sources = list(dict.fromkeys(arm.source for arm in self.plan.arms))
        for source in sources:
            arms = [arm for arm in self.plan.arms if arm.source is source]
            for distillation in range(self.plan.distillations):
                if isinstance(source, TrajectorySource):
                    points = sorted({arm.iterations for arm in arms if arm.iterations is not None})
                    self._learn(source, distillation, points)
                for arm in arms:
                    if isinstance(source, FileSource) or self.store.folder(arm.set_cell(distillation).key):
                        with self._isolated(self._cells_of(arm, distillation)):
                            self._score(arm, distillation)

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
            lost = [cell for cell in cells if self.ledger.is_missing(cell)]
            cell = next(iter(lost), cells[-1])
            log = self.store.note_failure(cell.key, traceback.format_exc())
            reason = (f"{type(error).__name__}: {error}".splitlines() or [type(error).__name__])[0]
            self.failed |= dict.fromkeys([cell.key, *(other.key for other in lost)], reason)
            self.reporter.failed(cell, reason, log)
            self.ledger.notify("cell_finished", cell, {"status": "failed", "reason": reason})

    def _learn(self, source: TrajectorySource, distillation: int, points: Sequence[int]) -> None:
        """The sets at ``points`` of one trajectory, and before them the artifacts that it needs."""
        cells = {point: source.set_cell(distillation, point) for point in points}
        missing = [point for point, cell in cells.items() if self.ledger.is_missing(cell)]
        if not missing:
            return
        requests = source.needs(distillation, max(missing))
        artifacts = [source.artifact_cell(request) for request in requests]
        with self._isolated([*artifacts, *cells.values()]), self.store.lock(source.trajectory_key(distillation)):
            method = source.new_method(distillation)
            supplies = Supplies(source, method, self.ledger)
            supplies.prepare(requests)
            pool = source.pool.make() if source.pool else None
            streams = Streams(source.seed, distillation)
            networks = PoolNetworks(pool, source.resolve, source.problem, streams, supplies.of)
            trajectory = Trajectory(method, networks, source.problem, streams)
            resumed = False
            for point, cell in cells.items():
                if not self.ledger.is_missing(cell):
                    continue
                self.ledger.start(cell)
                if not resumed:
                    self._resume(trajectory, source, distillation, point)
                    resumed = True
                self._advance(trajectory, source, distillation, point, cell)

    def _resume(self, trajectory: Trajectory, source: TrajectorySource, distillation: int, point: int) -> None:
        """Take up the trajectory at the furthest stored iteration up to ``point``, if there is one."""
        for iteration in range(point, 0, -1):
            cell = source.set_cell(distillation, iteration)
            if self.store.folder(cell.key) and not self.ledger.is_missing(cell):
                record = self.store.record(cell.key) or {}
                state = self.store.file(cell.key, "state.safetensors")
                trajectory.restore(load_file(state), History(**record["history"]))
                return

    def _advance(
        self, trajectory: Trajectory, source: TrajectorySource, distillation: int, point: int, cell: Cell
    ) -> None:
        def on_step(iteration: int, scalars: Mapping[str, float]) -> None:
            self.reporter.step(cell, iteration, point, scalars)

        distilled = trajectory.advance(point, on_step)
        status = trajectory.status(distilled)
        tensors, history = trajectory.state()
        told = {**source.describe(point), "seed": source.seed, "distillation": distillation}
        distilled = dataclasses.replace(distilled, provenance={**told, "status": status, "cell": cell.key})
        record = {
            "result": {
                "status": status,
                **distilled.statistics(),
                "seconds": history.seconds,
                "storage_floats": distilled.storage_floats,
                "step_size": distilled.step_size,
                "settings": dict(trajectory.method.settings()),
                "draws": history.realised_mix(),
                "main": source.main,
                **told,
            },
            "history": dataclasses.asdict(history),
            "trajectory": source.trajectory_key(distillation),
        }
        drawn = [source.resolve(name) for name in history.architectures]
        files: dict[str, Writer] = {
            "set.safetensors": lambda path: save_distilled(distilled, path),
            "images.png": lambda path: draw_grid(distilled, path),
            "state.safetensors": saver(tensors),
        }
        components: list[Resolved[Any]] = [source.method, *([source.pool] if source.pool else []), *drawn]
        self.ledger.commit(cell, record, source.problem, components, files)

    def _score(self, arm: Arm, distillation: int) -> None:
        cells = {student: arm.student_cell(distillation, student) for student in range(self.plan.students)}
        if not any(self.ledger.is_missing(cell) for cell in cells.values()):
            return
        set_key = arm.set_cell(distillation).key
        with self.store.lock(f"{set_key}-{cells[0].key}"):
            missing = [student for student, cell in cells.items() if self.ledger.is_missing(cell)]
            if not missing:
                return
            distilled = self._set(arm.source, set_key)
            problem, streams = arm.source.problem, Streams(arm.source.seed, distillation)
            artifacts = self._teachers(arm, distillation, missing, distilled)
            evaluator, architecture = arm.evaluator.make(), arm.architecture.make()
            told = {**arm.told(), "distillation": distillation, "set_status": status_of(distilled)}
            for student in missing:
                self.ledger.start(cells[student])
            what, asked = f"{type(evaluator).__name__}.evaluate()", iter(missing)
            for given in evaluator.evaluate(distilled, problem, architecture, missing, artifacts, streams):
                score = returned(given, StudentRecord, what)
                if score.student != next(asked, None):
                    raise PluginError(f"{what} gave student {score.student} out of turn: it was asked for {missing}")
                record = {"result": {**dataclasses.asdict(score), **told}, "set": set_key}
                self.ledger.commit(cells[score.student], record, problem, [arm.evaluator, arm.architecture])
            if left := list(asked):
                raise PluginError(f"{what} did not give the students {left}")

    def _teachers(
        self, arm: Arm, distillation: int, students: Sequence[int], distilled: DistilledSet
    ) -> dict[int, Artifact]:
        """The artifacts that these students' evaluation needs, by student."""
        evaluator = arm.evaluator.make()
        asked = {student: evaluator.artifact(student) for student in students}
        requests = {student: request for student, request in asked.items() if request}
        cells = {student: arm.artifact_cell(distillation, student) for student in requests}
        wanted = {student: cell for student, cell in cells.items() if cell}
        if not wanted:
            return {}
        problem, streams = arm.source.problem, Streams(arm.source.seed, distillation)
        name = next(iter(requests.values())).architecture
        resolved = arm.resolve(name) if name else None
        architecture = resolved.make() if resolved else None

        def make(student: int) -> Artifact:
            made = evaluator.make_artifact(requests[student], distilled, problem, architecture, streams)
            return returned(made, Artifact, f"{type(evaluator).__name__}.make_artifact()")

        missing = [student for student, cell in wanted.items() if self.ledger.is_missing(cell)]
        for student in missing:
            self.ledger.start(wanted[student])
        for student, artifact in zip(missing, side_by_side(make, missing, problem.device), strict=True):
            record = {"result": dict(artifact.scalars), "set": arm.set_cell(distillation).key}
            components: list[Resolved[Any]] = [arm.evaluator, *([resolved] if resolved else [])]
            self.ledger.commit(wanted[student], record, problem, components, {ARTIFACT_FILE: saver(artifact.tensors)})
        return {student: self._artifact(cell, architecture) for student, cell in wanted.items()}

    def _artifact(self, cell: Cell, architecture: Any) -> Artifact:  # noqa: ANN401
        return Artifact(load_file(self.store.file(cell.key, ARTIFACT_FILE)), architecture=architecture)

    def _set(self, source: Source, key: str) -> DistilledSet:
        if isinstance(source, FileSource):
            return source.distilled
        return load_distilled(self.store.file(key, "set.safetensors"))
