"""Making distilled sets: one trajectory with the artifacts that it needs, each set committed where it is reached."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from harness.experiment import interrupts
from harness.experiment.cells import Cell
from harness.experiment.checkpoints import Checkpoints
from harness.experiment.ledger import Ledger, saver
from harness.experiment.picture import draw_grid
from harness.experiment.sources import training_of
from harness.experiment.store import Writer
from harness.experiment.supplies import Supplies
from harness.experiment.trajectories import TrajectorySource
from harness.learning.networks import PoolNetworks
from harness.learning.trajectory import History, Trajectory
from harness.plugins.registry import Resolved
from harness.plugins.returns import call_of, handed_over
from harness.types.formats import save_distilled
from harness.types.seeds import Streams


class Distiller:
    """Makes the sets of one distillation of a source, in the order of their iterations."""

    def __init__(self, ledger: Ledger, source: TrajectorySource, distillation: int) -> None:
        self.ledger, self.store = ledger, ledger.store
        self.source, self.distillation = source, distillation
        self.checkpoints = Checkpoints(
            ledger.store,
            source.trajectory_key(distillation),
            lambda iteration: source.set_cell(distillation, iteration),
            ledger.plan.checkpoint_every,
            ledger.reporter.notice,
        )

    def distil(self, points: Sequence[int]) -> None:
        """Make the sets at ``points`` that are missing, and before them the artifacts that they need."""
        cells = {point: self.source.set_cell(self.distillation, point) for point in points}
        while missing := [point for point, cell in cells.items() if self.ledger.is_missing(cell)]:
            at_stake = list(cells.values())
            with self.ledger.isolated(at_stake):
                requests = self.source.needs(self.distillation, max(missing))
                at_stake[:0] = [self.source.artifact_cell(request) for request in requests]
                self._distil(cells, requests)
        interrupts.heed()

    def _distil(self, cells: Mapping[int, Cell], requests: Sequence[Any]) -> None:
        label = list(cells.values())[-1].label
        with self.ledger.hold(self.source.trajectory_key(self.distillation), label):
            method = self.source.new_method(self.distillation)
            supplies = Supplies(self.source, method, self.ledger)
            supplies.prepare(requests)
            trajectory = self._begin(method, supplies)
            for point, cell in cells.items():
                if self.ledger.is_missing(cell):
                    self.ledger.start(cell)
                    self._resume(trajectory, point)
                    with interrupts.steps():
                        self._advance(trajectory, point, cell)
                    interrupts.heed()

    def _begin(self, method: Any, supplies: Supplies) -> Trajectory:  # noqa: ANN401
        source, streams = self.source, Streams(self.source.seed, self.distillation)
        pool = source.pool.make() if source.pool else None
        networks = PoolNetworks(pool, source.resolve, source.problem, streams, supplies.of)
        return Trajectory(method, networks, source.problem, streams)

    def _resume(self, trajectory: Trajectory, point: int) -> None:
        """Take up the trajectory at the furthest iteration up to ``point`` whose set is stored or that was kept."""
        reached = trajectory.history.iterations
        stored = next((one for one in range(point, reached, -1) if self._is_stored(one)), reached)
        kept = self.checkpoints.newest(stored, point)
        if kept:
            trajectory.restore(*kept)
            self.ledger.reporter.notice(f"going on after iteration {trajectory.history.iterations} of {point}")
        elif stored > reached:
            trajectory.restore(*self._stored(stored))
        if changes := trajectory.mode_changes():
            told = f"computed otherwise from iteration {trajectory.history.iterations} on ({', '.join(changes)})"
            self.ledger.reporter.notice(f"{told}: the last bits may be others than of a run in one go")

    def _is_stored(self, iteration: int) -> bool:
        cell = self.source.set_cell(self.distillation, iteration)
        return self.store.folder(cell.key) is not None and not self.ledger.is_missing(cell)

    def _stored(self, iteration: int) -> tuple[dict[str, Tensor], History]:
        key = self.source.set_cell(self.distillation, iteration).key
        record = self.store.record(key) or {}
        return load_file(self.store.file(key, "state.safetensors")), History(**record["history"])

    def _keep(self, trajectory: Trajectory, point: int) -> None:
        """Keep what the trajectory has reached where it is time, or where it was asked to stop; then it stops."""
        asked, iteration = interrupts.asked(), trajectory.history.iterations
        if asked or self.checkpoints.is_due():
            self.ledger.check()
            self.checkpoints.save(*trajectory.state())
        if asked:
            told = f"stopped after iteration {iteration} of {point}"
            raise interrupts.Stopped(f"{told}; the same command goes on from there")

    def _advance(self, trajectory: Trajectory, point: int, cell: Cell) -> None:
        source = self.source

        def on_step(iteration: int, scalars: Mapping[str, float]) -> None:
            self.ledger.step(cell, iteration, point, scalars)
            if iteration < point:
                self._keep(trajectory, point)

        what = call_of(trajectory.method, "distilled")
        distilled = handed_over(trajectory.advance(point, on_step), source.problem, source.ipc, what)
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
                "settings": source.settings,
                "draws": history.realised_mix(),
                "main": source.main,
                **training_of(source),
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
        self.checkpoints.forget(point)
