"""The executor that starts a task of a Ray cluster, through Ray Core, for each order."""

import importlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from harness.errors import UsageError
from harness.executors.command_process import Command
from harness.running.processes.child_process import sigint_not_ignored
from harness.types.executor import LOST, STOPPED, Executor, Order, Running
from harness.types.options import Options, option

_LOOK = 0.2
_MEMORY = 10**8
"""Bytes for the objects of a cluster that is started here: exit statuses, and nothing else."""


class RayOptions(Options):
    """Options of `Ray`."""

    address: str = option("local", "a cluster's HOST:PORT, auto: the one of this machine, or local: start one here")
    cpus: int = option(1, "cores of an order, and threads that it computes with", ge=1)
    gpus: float | None = option(None, "GPUs of an order, or a share of one; auto: one if it computes on a GPU", ge=0)
    slots: int | None = option(None, "orders at once; auto: as many as the cluster has room for", ge=1)


class Ray(Executor[RayOptions]):
    """Starts a task for each order; Ray finds a node that has the cores and the GPUs for it.

    The commands, the store and the data must lie at the same paths on the nodes. No task is tried again by Ray: the
    harness orders again what is missing when a worker or a node has died.
    """

    Options = RayOptions
    poll_seconds = 0.5
    needs = {"ray": "ddbench[ray]"}

    def __init__(self, options: RayOptions) -> None:
        super().__init__(options)
        self._ray: Any = None
        self._is_ours = False

    @property
    def slots(self) -> int:
        """The number of slots that was asked for, or for which the cluster has room as it is now."""
        if self.options.slots is not None:
            return self.options.slots
        room = self._connected_ray().cluster_resources()
        by_gpus = room.get("GPU", 0) / self.options.gpus if self.options.gpus else float("inf")
        return max(1, int(min(room.get("CPU", 0) / self.options.cpus, by_gpus)))

    def start(self, orders: Sequence[Order], detach: bool = False) -> Sequence[Running]:
        """Submit the orders to Ray, which queues those without room."""
        ray = self._connected_ray()
        do = ray.remote(max_retries=0)(run)
        resources = [self._resources(order) for order in orders]
        self._check_gpus(max((request["num_gpus"] for request in resources), default=0.0))
        return [
            RayTask(ray, do.options(**request).remote(Command.of(order, self.options.cpus)))
            for order, request in zip(orders, resources, strict=True)
        ]

    def close(self) -> None:
        """Leave the cluster; a cluster that was started here ends."""
        if self._is_ours:
            self._ray.shutdown()
        self._ray, self._is_ours = None, False

    def _resources(self, order: Order) -> dict[str, Any]:
        gpus = self.options.gpus if self.options.gpus is not None else float(order.gpu)
        return {"name": order.label, "num_cpus": self.options.cpus, "num_gpus": gpus}

    def _check_gpus(self, gpus: float) -> None:
        """Raise an error if Ray would wait for GPUs for ever: a local Ray does not grow, as a cluster may."""
        here = self._connected_ray().cluster_resources().get("GPU", 0)
        if self.options.address == "local" and gpus > here:
            raise UsageError(f"an order asks for {gpus:g} GPUs, and Ray finds {here:g} here: write ray[gpus={here:g}]")

    def _connected_ray(self) -> Any:  # noqa: ANN401
        """Return Ray connected to the cluster; a connection that this process already has is used, and left open."""
        if self._ray is None:
            with _quietly():
                self._ray = importlib.import_module("ray")
                if not self._ray.is_initialized():
                    _connect(self._ray, self.options)
                    self._is_ours = True
        return self._ray


class RayTask(Running):
    """The task of an order, in Ray's queue or on a node."""

    def __init__(self, ray: Any, reference: Any) -> None:  # noqa: ANN401
        self._ray, self._reference = ray, reference
        self._status: int | None = None

    @property
    def where(self) -> str:
        """The id of the task, in words."""
        return f"Ray task {self._reference.task_id().hex()}"

    def poll(self) -> int | None:
        """Return the task's exit status; `LOST` if its worker or node died, `STOPPED` if it left the queue."""
        if self._status is None and self._ray.wait([self._reference], timeout=0)[0]:
            self._status = self._outcome()
        return self._status

    def stop(self, at_once: bool = False) -> None:
        """Interrupt the task, which asks the command to stop; ``at_once``: end its worker, which the command sees."""
        if self.poll() is None:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(self._reference, force=at_once)

    def _outcome(self) -> int:
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.TaskCancelledError:
            return STOPPED
        except Exception:  # Ray has a class of errors for each way to lose a task: any of them means the same here
            return LOST


def run(command: Command) -> int:
    """Run a command on a node, and return its exit status; Ray cancels a task by an interrupt."""
    with _interrupts() as interrupts:
        process, passed_on = command.start(), 0
        while (status := process.wait_for(_LOOK)) is None:
            if passed_on < len(interrupts):
                passed_on += 1
                process.stop(at_once=passed_on > 1)
        return status


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect interrupts: none is ignored, as in a script's background, or lost while a process starts."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


def _connect(ray: Any, options: RayOptions) -> None:  # noqa: ANN401
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _MEMORY}
    if options.slots is not None:
        here["num_cpus"] = options.slots * options.cpus
    own = here if options.address == "local" else {}
    try:
        with sigint_not_ignored():
            ray.init(
                address=options.address,
                job_config=_job_config(ray),
                log_to_driver=False,
                logging_level=logging.ERROR,
                **own,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        problem = f"no Ray cluster answers at {options.address!r} ({said})"
        raise UsageError(f"{problem}: start one by `ray start --head`, or write ray[address=local]") from error


def _job_config(ray: Any) -> Any:  # noqa: ANN401
    """Return the configuration of this process's job.

    Ray has its workers import first from the working folder, where a file of the user's may stand for a module, unless
    it takes that folder for one that it has sent to the nodes itself.
    """

    class JobConfig(ray.job_config.JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            return True

    return JobConfig()


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Ray from reporting to its makers, and from replacing this process's handler of SIGTERM."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    handler = signal.getsignal(signal.SIGTERM)  # ray.init() sets its own, and the run would no longer be asked to stop
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
