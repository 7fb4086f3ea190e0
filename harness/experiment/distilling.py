"""Making distilled sets: one trajectory with the artifacts that it needs, each set committed where it is reached."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file

from harness.experiment.cells import Cell
from harness.experiment.ledger import Ledger, saver
from harness.experiment.picture import draw_grid
from harness.experiment.store import Writer
from harness.experiment.supplies import Supplies
from harness.experiment.trajectories import TrajectorySource
from harness.learning.networks import PoolNetworks
from harness.learning.trajectory import History, Trajectory
from harness.plugins.registry import Resolved
from harness.types.formats import save_distilled
from harness.types.seeds import Streams


class Distiller:
    """Makes the sets of one distillation of a source, in the order of their iterations."""

    def __init__(self, ledger: Ledger, source: TrajectorySource, distillation: int) -> None:
        self.ledger, self.store = ledger, ledger.store
        self.source, self.distillation = source, distillation

    def distil(self, points: Sequence[int]) -> None:
        """Make the sets at ``points`` that are missing, and before them the artifacts that they need."""
        cells = {point: self.source.set_cell(self.distillation, point) for point in points}
        while missing := [point for point, cell in cells.items() if self.ledger.is_missing(cell)]:
            requests = self.source.needs(self.distillation, max(missing))
            artifacts = [self.source.artifact_cell(request) for request in requests]
            with self.ledger.isolated([*artifacts, *cells.values()]):
                self._distil(cells, requests)

    def _distil(self, cells: Mapping[int, Cell], requests: Sequence[Any]) -> None:
        label = list(cells.values())[-1].label
        with self.ledger.hold(self.source.trajectory_key(self.distillation), label):
            method = self.source.new_method(self.distillation)
            supplies = Supplies(self.source, method, self.ledger)
            supplies.prepare(requests)
            trajectory = self._begin(method, supplies)
            resumed = False
            for point, cell in cells.items():
                if not self.ledger.is_missing(cell):
                    continue
                self.ledger.start(cell)
                if not resumed:
                    self._resume(trajectory, point)
                    resumed = True
                self._advance(trajectory, point, cell)

    def _begin(self, method: Any, supplies: Supplies) -> Trajectory:  # noqa: ANN401
        source, streams = self.source, Streams(self.source.seed, self.distillation)
        pool = source.pool.make() if source.pool else None
        networks = PoolNetworks(pool, source.resolve, source.problem, streams, supplies.of)
        return Trajectory(method, networks, source.problem, streams)

    def _resume(self, trajectory: Trajectory, point: int) -> None:
        """Take up the trajectory at the furthest stored iteration up to ``point``, if there is one."""
        for iteration in range(point, 0, -1):
            cell = self.source.set_cell(self.distillation, iteration)
            if self.store.folder(cell.key) and not self.ledger.is_missing(cell):
                record = self.store.record(cell.key) or {}
                state = self.store.file(cell.key, "state.safetensors")
                trajectory.restore(load_file(state), History(**record["history"]))
                return

    def _advance(self, trajectory: Trajectory, point: int, cell: Cell) -> None:
        source = self.source

        def on_step(iteration: int, scalars: Mapping[str, float]) -> None:
            self.ledger.step(cell, iteration, point, scalars)

        distilled = trajectory.advance(point, on_step)
        status = trajectory.status(distilled)
        tensors, history = trajectory.state()
        told = {**source.describe(point), "seed": source.seed, "distillation": self.distillation}
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
            "trajectory": source.trajectory_key(self.distillation),
        }
        drawn = [source.resolve(name) for name in history.architectures]
        files: dict[str, Writer] = {
            "set.safetensors": lambda path: save_distilled(distilled, path),
            "images.png": lambda path: draw_grid(distilled, path),
            "state.safetensors": saver(tensors),
        }
        components: list[Resolved[Any]] = [source.method, *([source.pool] if source.pool else []), *drawn]
        self.ledger.commit(cell, record, source.problem, components, files)
