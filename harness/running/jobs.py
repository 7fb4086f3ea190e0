"""Jobs: the work of one process, cell after cell. A plan's jobs are a function of the plan alone."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from harness.compute.precision import float32_products
from harness.errors import StoreError
from harness.planning.arms import Arm
from harness.planning.plan import Plan
from harness.planning.run import Run
from harness.planning.set_sources import FileSource, Source
from harness.planning.trajectory_source import TrajectorySource
from harness.plugins.registry import Registry
from harness.running.artifacts import Artifacts, MethodArtifacts, RealNetworks
from harness.running.cell_tracker import CellTracker
from harness.running.distilling import Distiller
from harness.running.scoring import Scorer
from harness.store.cells import Cell, key_of
from harness.store.locking.leases import LeaseLost
from harness.store.run_files import ListedJob, PlannedJob, PlanScope
from harness.types.artifact import ArtifactRequest

ARTIFACTS_A_JOB = 8
"""Artifacts of a job: enough for a slot's cores, which make them side by side, few enough to spread over a cluster."""


class Job(PlannedJob, Protocol):
    """Work that depends on other jobs, and then on nothing else."""

    @property
    def arms(self) -> Sequence[Arm]:
        """The arms of the plan that the job belongs to: all that its process has to know of the plan."""
        ...

    def make_cells(self, tracker: CellTracker) -> None:
        """Make the cells that are missing; a failure is noted in the tracker, and does not stop the rest."""
        ...


@dataclass(frozen=True, eq=False)
class ArtifactJob:
    """A job that makes a few artifacts of a method, or networks on the real data that evaluators ask for."""

    maker: MethodArtifacts | RealNetworks
    requests: Sequence[ArtifactRequest]
    scope: PlanScope | None
    after: Sequence[str] = ()
    arms: Sequence[Arm] = ()

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells of the job, one for each requested artifact."""
        return [need.cell for need in self.maker.with_cells(self.requests)]

    @cached_property
    def key(self) -> str:
        """The key of the job, a digest of the keys of its cells."""
        return key_of({"artifacts": [cell.key for cell in self.cells]})

    @property
    def label(self) -> str:
        """The label of the job: its first artifact, and the number of the others."""
        more = f" and {len(self.cells) - 1} more" if len(self.cells) > 1 else ""
        return f"{self.cells[0].label}{more}"

    def make_cells(self, tracker: CellTracker) -> None:
        """Make the artifacts side by side; if one fails, the others are tried without it."""
        while any(tracker.is_missing(cell) for cell in self.cells):
            with tracker.isolate_failures(self.cells):
                Artifacts(self.maker, tracker).prepare(self.maker.with_cells(self.requests))


@dataclass(frozen=True, eq=False)
class SetJob:
    """A job that makes one distillation of a source (or reads a file's set), and the students of all its arms."""

    source: Source
    distillation: int
    arms: Sequence[Arm]
    students: int
    after: Sequence[str] = ()

    @cached_property
    def key(self) -> str:
        """The key of the job: that of the trajectory, or of the set in the file."""
        if isinstance(self.source, TrajectorySource):
            return self.source.trajectory_key(self.distillation)
        return self.arms[0].set_cell(self.distillation).key

    @property
    def scope(self) -> PlanScope | None:
        """The trajectories that the distillation belongs to; None for a set in a file, which is all of its plan."""
        return scope_of(self.source)

    @property
    def label(self) -> str:
        """The label of the job: that of its last set."""
        return self.arms[-1].set_cell(self.distillation).label

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells of the job: sets first, then the teachers and students of each arm."""
        sets: list[Cell] = []
        if isinstance(self.source, TrajectorySource):
            for source in filter(None, (self.source.search, self.source)):
                sets += [source.set_cell(self.distillation, arm.iterations) for arm in self.arms]
        scored = [cell for arm in self.arms for cell in self._of_arm(arm)]
        return list({cell.key: cell for cell in [*sets, *scored]}.values())

    def _of_arm(self, arm: Arm) -> Iterator[Cell]:
        for student in range(self.students):
            artifact = arm.artifact_cell(self.distillation, student)
            if artifact and not arm.real_network(student):  # those on the real data have a job of their own
                yield artifact
            yield arm.student_cell(self.distillation, student)

    def make_cells(self, tracker: CellTracker) -> None:
        """Distil, before it what finds the distributions that are replayed; then score every arm that has a set."""
        if isinstance(self.source, TrajectorySource):
            points = sorted({arm.iterations for arm in self.arms if arm.iterations is not None})
            for source in filter(None, (self.source.search, self.source)):
                Distiller(tracker, source, self.distillation).distil(points)
        for arm in self.arms:
            if isinstance(self.source, FileSource) or tracker.store.sound(arm.set_cell(self.distillation).key):
                Scorer(tracker, arm, self.distillation).score(range(self.students))


def finish_job(job: Job, tracker: CellTracker) -> int:
    """Do a job in this process, and return the exit status: 0, since failed cells are noted in the tracker.

    If another process has taken the job over, wait for it, and do what it has left.
    """
    # Left to itself, torch computes convolutions in TF32 on a GPU. A trajectory in another precision sets it for its
    # steps alone; students and artifacts are float32.
    with float32_products("fp32"):
        while True:
            try:
                job.make_cells(tracker)
                break
            except LeaseLost as loss:
                tracker.reporter.notice(str(loss))
    tracker.finish()
    return 0


def plan_job(run: Run, listed: ListedJob, registry: Registry) -> tuple[Plan, Job]:
    """Plan a job of a run again, in the process that does it: return as much of the plan as the job needs, and the job.

    Args:
        run: what was asked for.
        listed: the job as the plan of the run lists it.
        registry: the components that are installed.

    Raises:
        StoreError: it would not be planned today.
    """
    # Artifacts that several sources share belong to the job of the first: the others', planned alone, would claim them.
    wanted = {key for key, *_ in listed.cells} if listed.scope else None
    plan = run.plan(registry, listed.scope)
    for job in jobs_of(plan, wanted):
        if job.key == listed.key:
            return plan, job
    again = "its source or its data changed; give the command again"
    raise StoreError(f"the plan has no job {listed.key} any more: {again}")


def jobs_of(plan: Plan, wanted: Container[str] | None = None) -> list[Job]:
    """Return the jobs of a plan, each behind those that it needs.

    Args:
        plan: the plan.
        wanted: keys of the artifacts that jobs may be about; None for all.
    """
    # By key of an artifact's cell, the job that makes it: the first that needs it; later jobs wait for it.
    maker: dict[str, str] = {}
    jobs: list[Job] = []
    for source, artifacts, requests in _before_all_sets(plan):
        unmade = [key for key in requests if key not in maker]
        new = [requests[key] for key in unmade if wanted is None or key in wanted]
        for start in range(0, len(new), ARTIFACTS_A_JOB):
            job = ArtifactJob(artifacts, new[start : start + ARTIFACTS_A_JOB], scope_of(source))
            jobs.append(job)
            maker |= dict.fromkeys((cell.key for cell in job.cells), job.key)
    for source in plan.sources:
        arms = [arm for arm in plan.arms if arm.source is source]
        teachers = [key for arm in arms for key in arm.real_networks(plan.students)]
        for distillation in range(plan.distillations):
            keys = [*_artifacts(source, distillation), *teachers]
            after = tuple(dict.fromkeys(maker[key] for key in keys if key in maker))
            jobs.append(SetJob(source, distillation, arms, plan.students, after))
    return jobs


def scope_of(source: Source) -> PlanScope | None:
    """Return the part of the plan that a source is; None for a file, which is all of its plan."""
    return source.scope if isinstance(source, TrajectorySource) else None


def _before_all_sets(
    plan: Plan,
) -> Iterator[tuple[Source, MethodArtifacts | RealNetworks, Mapping[str, ArtifactRequest]]]:
    """Yield the artifacts of each trajectory, then the networks on the real data of each arm, with what makes them."""
    for source in plan.sources:
        for distillation in range(plan.distillations):
            if isinstance(source, TrajectorySource):
                yield source, MethodArtifacts(source, source.first), _artifacts(source, distillation)
    for arm in plan.arms:
        source = arm.source
        yield source, RealNetworks(source.problem, source.seed, arm.resolve), arm.real_networks(plan.students)


def _artifacts(source: Source, distillation: int) -> dict[str, ArtifactRequest]:
    """Return the artifacts that a trajectory asks for, by the keys of their cells."""
    if not isinstance(source, TrajectorySource):
        return {}
    requests = source.needs(distillation, source.total)
    return {source.artifact_cell(request).key: request for request in requests}
