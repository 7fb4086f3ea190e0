"""Steps that several processes take together: one leads and owns the store, the others follow it step by step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from harness.compute.precision import float32_products
from harness.compute.process_group import (
    BEGIN,
    CLOSE,
    END,
    STEP,
    Abandoned,
    Message,
    ProcessGroup,
    joined_group,
)
from harness.errors import PluginError
from harness.learning.networks.pool_networks import PoolNetworks
from harness.learning.trajectory import Trajectory
from harness.planning.arms import Arm
from harness.planning.trajectory_source import TrajectorySource
from harness.types.artifact import Artifact
from harness.types.formats.limits import reason_of
from harness.types.plurals import plural
from harness.types.seeds import Streams

Beginning = tuple[str, int]
"""The key of a source's first trajectory, and the index of a distillation: what a trajectory begins from."""


@contextmanager
def leading(
    source: TrajectorySource, distillation: int, trajectory: Trajectory, notice: Callable[[str], object]
) -> Iterator[Callable[[], None] | None]:
    """Lead the other processes of this job through the steps of a trajectory.

    Args:
        source: of the trajectory.
        distillation: its index.
        trajectory: where it is now.
        notice: called with a line if the method, or its pool, leaves the other processes without work.

    Yields:
        What is called before each step; None if this process takes the steps alone.
    """
    group = joined_group()
    if group is None or not trajectory.can_be_followed:
        if group is not None:
            others = f"the other {group.size - 1} of this job {plural(group.size - 1, 'waits', 'wait')}"
            through = f" through {source.pool.entry.name}" if source.pool and trajectory.method.spreads_classes else ""
            notice(f"{source.method.entry.name}{through} takes its steps in one process: {others}")
        yield None
        return
    group.announce(BEGIN, ((source.trajectory_key(0), distillation), trajectory.state()))
    try:
        with group.at_steps():
            yield partial(group.announce, STEP)
    finally:
        # Interrupted in the midst of a message, this process can say nothing more, and the others see it end.
        if not group.is_lost:
            group.announce(END)


def follow(group: ProcessGroup, arms: Sequence[Arm]) -> None:
    """Take the steps that the leader announces, until it closes the group or is gone.

    Args:
        group: what this process has joined.
        arms: of the same plan as the leader's.
    """
    sources = {arm.source.trajectory_key(0): arm.source for arm in arms if isinstance(arm.source, TrajectorySource)}
    trajectory: Trajectory | None = None
    with float32_products("fp32"):
        message = group.listen()
        while message.kind != CLOSE:
            try:
                trajectory = _obey(group, message, sources, trajectory)
                message = group.listen()
            except Abandoned as abandoned:
                message = abandoned.message if abandoned.message.kind == CLOSE else group.listen()
            except Exception as error:  # a method may raise anything; the leader's own step will fail the cell
                if group.is_lost:
                    raise
                message = group.report_failure(f"{type(error).__name__}: {reason_of(error)}")


def _obey(
    group: ProcessGroup, message: Message, sources: Mapping[str, TrajectorySource], trajectory: Trajectory | None
) -> Trajectory | None:
    """Do what the leader says, and return the trajectory at hand."""
    if message.kind == BEGIN:
        (key, distillation), state = message.content
        begun = _begin(sources[key], distillation)
        begun.restore(*state)
        return begun
    if message.kind == STEP:
        assert trajectory is not None, "a step follows a beginning that went well"
        with group.at_steps():
            trajectory.iterate()
        return trajectory
    return None


def _begin(source: TrajectorySource, distillation: int) -> Trajectory:
    """Return a trajectory at its start, whose artifacts nobody here makes."""

    def supply(iteration: int, architecture: str | None) -> list[Artifact]:
        raise PluginError(f"{source.method} spreads its classes over processes, and needs artifacts: it cannot do both")

    streams: Streams = Streams(source.seed, distillation)
    pool: Any = source.pool.make() if source.pool else None
    networks = PoolNetworks(pool, source.resolve, source.problem, streams, supply)
    return Trajectory(source.new_method(distillation), networks, source.problem, streams)
