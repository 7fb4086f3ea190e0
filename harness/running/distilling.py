"""Makes distilled sets: one trajectory with the artifacts that it needs, each set committed when it is reached."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from harness.errors import StoreError
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.networks.probes import Prober
from harness.learning.trajectory import History, Trajectory
from harness.planning.set_sources import training_of
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.returns import call_of, check_count
from harness.plugins.stored_sets import load_stored
from harness.running.artifacts import Artifacts, MethodArtifacts
from harness.running.cell_tracker import CellTracker, saver
from harness.running.checkpoints import Checkpoints
from harness.running.following import leading
from harness.running.replayed_pool import ReplayedPool
from harness.running.set_picture import draw_grid
from harness.store.cells import Cell
from harness.store.records import StoredSet
from harness.store.store import RecordError, Writer
from harness.system import interrupts
from harness.types.artifact import Artifact, ArtifactRequest
from harness.types.distilled import DistilledSet
from harness.types.formats import OWN_FORMAT
from harness.types.formats.limits import reason_of
from harness.types.seeds import Streams


class Distiller:
    """Makes the sets of one distillation of a source, in the order of their iterations."""

    def __init__(self, tracker: CellTracker, source: TrajectorySource, distillation: int) -> None:
        self.tracker, self.store = tracker, tracker.store
        self.source, self.distillation = source, distillation
        self.checkpoints = Checkpoints(
            tracker.store,
            source.trajectory_key(distillation),
            lambda iteration: source.set_cell(distillation, iteration),
            tracker.plan.checkpoint_every,
            tracker.reporter.notice,
        )

    def distil(self, points: Sequence[int]) -> None:
        """Make the sets at ``points`` that are missing, and before them the artifacts that they need."""
        cells = {point: self.source.set_cell(self.distillation, point) for point in points}
        # Each failure takes a cell out of those that are missing, so that this ends; the sets before may still be made.
        while missing := [point for point, cell in cells.items() if self.tracker.is_missing(cell)]:
            at_stake = list(cells.values())
            with self.tracker.isolate_failures(at_stake):
                requests = self.source.needs(self.distillation, max(missing))
                # In place, into the list that `isolate_failures` holds: an artifact that cannot be made then fails
                # before the sets.
                at_stake[:0] = [self.source.artifact_cell(request) for request in requests]
                self._extend_trajectory(cells, requests, max(missing))
        interrupts.heed()

    def _extend_trajectory(self, cells: Mapping[int, Cell], requests: Sequence[ArtifactRequest], last: int) -> None:
        label = list(cells.values())[-1].label
        # The trajectory's key, not the set's: another run may want a later point of the same trajectory.
        with self.tracker.hold(self.source.trajectory_key(self.distillation), label):
            method = self.source.new_method(self.distillation)
            maker = MethodArtifacts(self.source, method)
            artifacts = Artifacts(maker, self.tracker)
            artifacts.prepare(maker.with_cells(requests))
            trajectory = self._begin(maker, artifacts, last)
            for point, cell in cells.items():
                if self.tracker.is_missing(cell):
                    self.tracker.start(cell)
                    self._resume(trajectory, point)
                    with interrupts.steps():
                        self._make_set(trajectory, point, cell)
                    interrupts.heed()

    def _begin(self, maker: MethodArtifacts, artifacts: Artifacts, last: int) -> Trajectory:
        """Return the trajectory at its start; ``last`` is the last iteration of those that can be made.

        A replay beyond it is blocked if its search failed, which must not keep the shorter ones from being made.
        """

        def supply(iteration: int, architecture: str | None) -> list[Artifact]:
            return [artifacts.get(need) for need in maker.needs(iteration, architecture)]

        def fetch(request: ArtifactRequest) -> Artifact:
            (need,) = maker.with_cells([request])
            return artifacts.get(need)

        source, streams = self.source, Streams(self.source.seed, self.distillation)
        pool = source.pool.make() if source.pool else None
        if pool and source.search and source.search.panel:
            history, of_search = self._search_record(last).history, Prober(source.search.panel, streams)
            probes = [of_search.result(probe.iteration, probe.accuracies) for probe in history.probes]
            hear = PoolNetworks(pool, source.resolve, source.problem, streams).probed
            pool = ReplayedPool(pool, history.schedule, probes, hear)
        networks = PoolNetworks(pool, source.resolve, source.problem, streams, supply, fetch)
        prober = Prober(source.panel, streams) if source.panel else None
        return Trajectory(maker.method, networks, source.problem, streams, prober)

    def _search_record(self, iterations: int) -> StoredSet:
        """Return the record of the set whose probes have found what this trajectory replays."""
        assert self.source.search is not None, "only a replay has a search"
        cell = self.source.search.set_cell(self.distillation, iterations)
        record = self.store.record(cell.key)
        # A set before the first step has no distributions, and its replay needs none.
        if not isinstance(record, StoredSet) or (iterations > 0 and not record.history.schedule):
            raise StoreError(f"{cell.label} is not in the store with the distributions that are to be replayed")
        return record

    def _resume(self, trajectory: Trajectory, point: int) -> None:
        """Restore the trajectory at the last iteration up to ``point`` that has a stored set or a checkpoint."""
        reached = trajectory.history.iterations
        at, stored = self._last_stored(reached, point)
        checkpoint = self.checkpoints.newest(at, point)
        if checkpoint:
            trajectory.restore(*checkpoint)
            self.tracker.reporter.notice(f"going on after iteration {trajectory.history.iterations} of {point}")
        elif stored:
            trajectory.restore(*stored)
        if changes := trajectory.mode_changes():
            change = f"computed otherwise from iteration {trajectory.history.iterations} on ({', '.join(changes)})"
            self.tracker.reporter.notice(f"{change}: the last bits may differ from those of a run in one go")

    def _last_stored(self, beyond: int, upto: int) -> tuple[int, tuple[dict[str, Tensor], History] | None]:
        """Return the last iteration up to ``upto`` whose set is in the store and sound, and the state there.

        Returns ``beyond`` and None if there is none after it.
        """
        for iteration in range(upto, beyond, -1):
            cell = self.source.set_cell(self.distillation, iteration)
            if not self.store.holds(cell.key) or self.tracker.is_missing(cell):
                continue
            try:
                record = self.store.record(cell.key)
                assert isinstance(record, StoredSet), "the key of a set's cell is of no other kind"
                tensors = load_file(self.store.file(cell.key, "state.safetensors"))
                return iteration, (tensors, History(**record.history.as_json()))
            except RecordError as error:  # an earlier state leads to the same numbers, only later
                self.tracker.reporter.notice(f"{error}; it is passed over")
        return beyond, None

    def _save_checkpoint(self, trajectory: Trajectory, point: int) -> None:
        """Save a checkpoint if one is due; if the run was asked to stop, save one and stop."""
        stop_requested, iteration = interrupts.stop_requested(), trajectory.history.iterations
        if stop_requested or self.checkpoints.is_due():
            # Whoever has lost the lease must not write: another process works on this trajectory now.
            self.tracker.check()
            self.checkpoints.save(*trajectory.state())
        if stop_requested:
            progress = f"stopped after iteration {iteration} of {point}"
            raise interrupts.Stopped(f"{progress}; the same command goes on from there")

    def _make_set(self, trajectory: Trajectory, point: int, cell: Cell) -> None:
        source = self.source

        def on_step(iteration: int, scalars: Mapping[str, float]) -> None:
            self.tracker.step(cell, iteration, point, scalars)
            if iteration < point:
                self._save_checkpoint(trajectory, point)

        def on_probe() -> None:
            self._save_checkpoint(trajectory, point)

        with leading(source, self.distillation, trajectory, self.tracker.reporter.notice) as before_step:
            distilled = trajectory.advance(point, on_step, on_probe, before_step)
        check_count(distilled, source.ipc, call_of(trajectory.method, "distilled"))
        status = trajectory.status(distilled)
        tensors, history = trajectory.state()
        fields = {**source.describe(point), "seed": source.seed, "distillation": self.distillation}
        distilled = dataclasses.replace(distilled, provenance={**fields, "status": status, "cell": cell.key})
        probing = self._probing(history, point)
        architectures = [source.resolve(name) for name in history.architectures]
        files: dict[str, Writer] = {
            "set.safetensors": lambda path: save_readable(distilled, path),
            **self._picture(distilled, cell),
            "state.safetensors": saver(tensors),
        }
        record = self.tracker.record(
            StoredSet,
            cell,
            source.problem,
            [*source.components, *architectures],
            result={
                "status": status,
                **distilled.statistics(),
                "seconds": history.seconds + (probing["seconds"] if probing else 0.0),
                "storage_floats": distilled.storage_floats,
                "step_size": distilled.step_size,
                "label_kind": distilled.label_kind,
                **({"schedule_steps": len(distilled.schedule.steps)} if distilled.schedule else {}),
                "settings": source.settings,
                "draws": history.realised_mix(),
                **({"search": probing} if probing else {}),
                "main": None if source.main is None else str(source.main),
                **training_of(source),
                **fields,
            },
            history=history.as_json(),
            trajectory=source.trajectory_key(self.distillation),
        )
        self.tracker.commit(cell, record, files, distilled)
        self.checkpoints.forget(point)

    def _probing(self, history: History, point: int) -> dict[str, Any] | None:
        """Return what it cost to find the pool's distributions; None if no probe did.

        Seconds that are no step of this trajectory, of which those of probes; the number of probes; each probe with the
        students' accuracies; and the key of the set that was probed, if it is another.
        """
        if self.source.search:
            record = self._search_record(point)
            probes = [probe.as_json() for probe in record.history.probes]
            seconds, of_set = record.result.seconds, {"set": record.key}
        elif self.source.panel:
            probes, seconds, of_set = history.probes, history.probe_seconds, {}
        else:
            return None
        return {
            "seconds": seconds,
            "probe_seconds": sum(probe["seconds"] for probe in probes),
            "probes": probes,
            **of_set,
        }

    def _picture(self, distilled: DistilledSet, cell: Cell) -> dict[str, Writer]:
        """Return the writer of a set's picture by file name; none if the picture cannot be drawn."""
        picture = io.BytesIO()
        try:
            draw_grid(distilled, picture)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a font or a class name raises: a picture never costs the set
            reason = f"{type(error).__name__}: {reason_of(error)}"
            self.tracker.reporter.notice(f"the picture of {cell.label} cannot be drawn and is left out ({reason})")
            return {}
        return {"images.png": lambda path: path.write_bytes(picture.getvalue())}


def save_readable(distilled: DistilledSet, path: Path) -> None:
    """Write a set and read it back, so that no set is committed that its students could not load.

    Raises:
        DataError: the file cannot be read.
    """
    OWN_FORMAT.write(distilled, path)
    load_stored(path)
