"""The executor that submits jobs of a SLURM cluster, through submitit: an array for orders that start together."""

import math
import os
import re
import shlex
import signal
import subprocess
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from harness.errors import UsageError
from harness.executors.command_process import SAFE_PATH, Command
from harness.executors.slurm_queue import Queue, queued_job_ids
from harness.executors.slurm_task import NOTICE, SlurmTask, stop_signal
from harness.running.processes.child_process import children_of, sigint_not_ignored
from harness.system.home import expand_home
from harness.system.process_identity import PYTHON_MODULE
from harness.types.executor import LOST, Executor, Order, Running
from harness.types.options import Options, OptionTable, option

if TYPE_CHECKING:
    import submitit

ARRAY = 1000
"""Most tasks of an array: SLURM's limit is 1001 unless its administrator has changed it."""
_SBATCH_OPTION = re.compile("[a-z][a-z0-9-]+")
_OWN_FLAGS = {
    **{flag: f"write slurm[{key}=...]" for flag, key in {
        "partition": "partition", "time": "time", "mem": "memory", "cpus-per-task": "cpus", "gpus-per-node": "gpus",
        "account": "account", "qos": "qos", "constraint": "constraint",
    }.items()},
    **dict.fromkeys(("array", "job-name", "output", "error", "open-mode", "signal", "wrap", "test-only"),
                    "it follows its jobs by it, so leave it out"),
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node"), "a job is one process on one node, so leave it out"),
}  # fmt: skip
"""Options of sbatch that are not the user's to set, each with the remedy."""
_GPU_FLAGS = {"gres", "gpus", "gpus-per-task", "gpus-per-socket", "tres-per-task", "tres-per-node"}
"""Options of sbatch that ask for GPUs by other words than ours, beside which ours could contradict them."""
SHORTEST = 5
"""Minutes of the shortest job that has time to work: `NOTICE` and SLURM's own minute go off its end."""


def minutes_of(time: str) -> int:
    """Return the minutes, rounded up, of one of SLURM's times: ``90``, ``90:00``, ``1:30:00``, ``0-1``, ``0-1:30``.

    Raises:
        ValueError: it is none, or no time at all.
    """
    days, dash, clock = time.strip().rpartition("-")
    parts = clock.split(":")
    if len(parts) > 3 or not all(part.isdecimal() for part in [*parts, *([days] if dash else [])]):
        raise ValueError("should be minutes, minutes:seconds, hours:minutes:seconds or days-hours:minutes:seconds")
    from_hours = parts if dash or len(parts) == 3 else ["0", *parts]
    hours, minutes, seconds = (int(part) for part in [*from_hours, "0", "0"][:3])
    total = 1440 * int(days or 0) + 60 * hours + minutes + seconds / 60
    if not total:
        raise ValueError("should be more than no time")
    return math.ceil(total)


class SlurmOptions(Options):
    """Options of `Slurm`."""

    partition: str | None = option(None, "partition; auto: the cluster's default")
    time: str = option(
        "60", "longest run of a job, as SLURM writes it: 90 and 90:00 are minutes, 12:30:00 and 2-00 hours and days"
    )
    memory: float | None = option(None, "memory of a job in GB; auto: the cluster's default", gt=0)
    cpus: int = option(1, "cores of a job, and threads that it computes with", ge=1)
    gpus: int | None = option(None, "GPUs of a job; auto: one if it computes on a GPU", ge=0)
    slots: int = option(100, "jobs that may run at once", ge=1)
    restarts: int = option(20, "how often SLURM starts a job again that ran out of time", ge=0)
    account: str | None = option(None, "account that is charged")
    qos: str | None = option(None, "quality of service")
    constraint: str | None = option(None, "features that a node must have")
    setup: str | None = option(None, "shell script that is read first on the node: modules, an environment")
    sbatch: OptionTable = option(
        (), "any other option of sbatch by its long name: sbatch.gres=gpu:a100:2; true for one without a value"
    )
    cluster: Literal["slurm", "local"] = option("slurm", "local: submitit's processes on this machine, to try it out")

    @pydantic.field_validator("time")
    @classmethod
    def _check_time(cls, value: str) -> str:
        if minutes_of(value) < SHORTEST:
            raise ValueError(f"should be {SHORTEST} minutes or more: SLURM warns a job of its end minutes before")
        return value

    @pydantic.field_validator("sbatch")
    @classmethod
    def _check_sbatch(cls, entries: OptionTable) -> OptionTable:
        for key, value in entries:
            if not _SBATCH_OPTION.fullmatch(key):
                raise ValueError(f"{key!r} is no long option of sbatch: write its name in lower case, without --")
            if owner := _OWN_FLAGS.get(key):
                raise ValueError(f"{key} is set by ddbench: {owner}")
            if not value.isprintable():
                raise ValueError(f"the value of {key} has a character that cannot be printed")
        return entries


class Slurm(Executor[SlurmOptions]):
    """Submits an array of jobs for the orders that can be started, one job for each, as many at once as it has slots.

    A job that runs out of time, or makes way for another, keeps what it has and is queued again by SLURM; the harness
    orders again what is missing after any other end. The commands, the store and the data must lie at the same paths on
    the nodes. The log of a job lies beside the log of its order, in the folder ``submitit``.
    """

    Options = SlurmOptions
    detaches = True
    poll_seconds = 1.0
    needs = {"submitit": "ddbench[slurm]"}

    def __init__(self, options: SlurmOptions) -> None:
        super().__init__(options)
        self._queue = Queue()

    @property
    def slots(self) -> int:
        """The number of jobs that may run at once."""
        return self.options.slots

    def start(self, orders: Sequence[Order], detach: bool = False) -> Sequence[Running]:
        """Submit the orders: an array for those that compute on a GPU, and one for the others."""
        submitted: dict[str, Running] = {}
        for gpu in (True, False):
            alike = [order for order in orders if order.gpu is gpu]
            for first in range(0, len(alike), ARRAY):
                part = alike[first : first + ARRAY]
                submitted |= zip((order.job for order in part), self._submit(part, gpu), strict=True)
        return [submitted[order.job] for order in orders]

    @classmethod
    def ordered(cls, logs: Path) -> int | None:
        """Return the number of queued or running jobs whose name is that of the folder."""
        jobs = queued_job_ids(f"--name={_name(logs)}")
        return None if jobs is None else len(jobs)

    def _submit(self, orders: Sequence[Order], gpu: bool) -> list[Running]:
        executor = self._executor(orders[0].log.parent, gpu)
        tasks = [SlurmTask(Command.of(order, self.options.cpus)) for order in orders]
        try:
            with _submitting():
                jobs = executor.submit_array(tasks)
        except Exception as error:  # submitit has an exception of its own for each way in which sbatch fails
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise UsageError(f"SLURM takes no job: {said[-1]}; see `ddbench executors show slurm`") from error
        if self.options.cluster == "local":
            return [LocalJob(job, bool(self.options.setup)) for job in jobs]
        self._queue.follow(job.job_id for job in jobs)
        return [SlurmJob(job, self._queue) for job in jobs]

    def _executor(self, logs: Path, gpu: bool) -> "submitit.AutoExecutor":
        import submitit

        options = self.options
        try:
            python = shlex.join(PYTHON_MODULE[:-1])
            executor = submitit.AutoExecutor(
                logs / "submitit", options.cluster, slurm_max_num_timeout=options.restarts, slurm_python=python
            )
        except RuntimeError:
            raise UsageError(
                "there is no SLURM here (no srun): log in to the cluster, or try slurm[cluster=local]"
            ) from None
        executor.update_parameters(**self._parameters(_name(logs), gpu))
        return executor

    def _parameters(self, name: str, gpu: bool) -> dict[str, Any]:
        options, sbatch = self.options, dict(self.options.sbatch)
        gpus = 0 if sbatch.keys() & _GPU_FLAGS else int(gpu)
        setup = [f". {expand_home(options.setup).absolute()}"] if options.setup else None
        parameters: dict[str, Any] = {
            "name": name,
            "timeout_min": minutes_of(options.time),
            "mem_gb": options.memory,
            "cpus_per_task": options.cpus,
            "gpus_per_node": options.gpus if options.gpus is not None else gpus,
            "stderr_to_stdout": True,
            f"{options.cluster}_setup": setup,
            "slurm_partition": options.partition,
            "slurm_account": options.account,
            "slurm_qos": options.qos,
            "slurm_constraint": options.constraint,
            "slurm_array_parallelism": options.slots,
            "slurm_signal_delay_s": NOTICE,
            "slurm_additional_parameters": {
                key: value == "true" or value for key, value in sbatch.items() if value != "false"
            }
            or None,
        }
        return {name: value for name, value in parameters.items() if value not in (None, 0)}


class _SubmittedJob(Running):
    """A submitted job: what submitit or SLURM says of it is a hint, what it has written is what happened."""

    def __init__(self, job: "submitit.Job[int]") -> None:
        self._job = job
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status of the job; `LOST` if the job is gone and has left none."""
        if self._status is None:
            # In this order: a job that ends between the two looks has written its result, and is not lost.
            lost = self._is_lost()
            if self._job.paths.result_pickle.exists():
                self._status = _result(self._job)
            elif lost:
                self._status = LOST
        return self._status

    @abstractmethod
    def _is_lost(self) -> bool: ...


class SlurmJob(_SubmittedJob):
    """A job in SLURM's queue, or on a node."""

    def __init__(self, job: "submitit.Job[int]", queue: Queue) -> None:
        super().__init__(job)
        self._queue = queue

    @property
    def where(self) -> str:
        """The id of the job, in words."""
        return f"SLURM job {self._job.job_id}"

    def stop(self, at_once: bool = False) -> None:
        """Cancel the job if it waits, otherwise have it asked to stop; ``at_once``: ask, and cancel it anyhow."""
        if self.poll() is not None:
            return
        if self._waits():
            self._scancel()
            return
        self._scancel(f"--signal={stop_signal().name.removeprefix('SIG')}")
        if at_once:
            self._scancel()  # SLURM sends SIGTERM, the second request, and kills the job some time later

    def _is_lost(self) -> bool:
        return self._queue.has_lost(self._job.job_id)

    def _waits(self) -> bool:
        """Return whether the job waits; `scancel --state=PENDING` would cancel all waiting tasks of its array."""
        return self._job.job_id in (queued_job_ids(f"--jobs={self._job.job_id}", "--states=PENDING") or ())

    def _scancel(self, *words: str) -> None:
        command = ["scancel", "--quiet", *words, self._job.job_id]
        with suppress(OSError, subprocess.SubprocessError):  # a job that ended meanwhile is an error to scancel
            subprocess.run(command, capture_output=True, timeout=60, check=False)


class LocalJob(_SubmittedJob):
    """A process of submitit on this machine, which starts the task and watches it.

    Args:
        job: submitit's job.
        has_shell: whether a shell, which has read a setup script, has started that process.
    """

    def __init__(self, job: "submitit.Job[int]", has_shell: bool) -> None:
        super().__init__(job)
        self._has_shell = has_shell
        # A process that nobody waits for stays a zombie, and no one polls a job that was detached.
        threading.Thread(target=self._process.wait, daemon=True).start()

    @property
    def where(self) -> str:
        """The id of submitit's process, in words."""
        return f"pid {self._job.job_id}"

    def poll(self) -> int | None:
        """Return the task's exit status when submitit's process has ended too."""
        return super().poll() if self._is_lost() else None

    def stop(self, at_once: bool = False) -> None:
        """Send the signal that submitit passes on to its task; ``at_once``: the one at which it ends the task."""
        if self.poll() is not None:
            return
        of_shell = children_of(self._process.pid) if self._has_shell else ()
        for pid in list(of_shell) or [self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT if at_once else signal.SIGTERM)

    @property
    def _process(self) -> "subprocess.Popen[bytes]":
        process: subprocess.Popen[bytes] = self._job._process  # type: ignore[attr-defined]
        return process

    def _is_lost(self) -> bool:
        return self._process.poll() is not None


@contextmanager
def _submitting() -> Iterator[None]:
    """Make what submitit starts here handle SIGINT, and import nothing from this folder.

    Submitit starts its process on this machine without ``-P``, so that the environment has to say it.
    """
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        with sigint_not_ignored():
            yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before


def _name(logs: Path) -> str:
    """Return the name of a job in SLURM's lists, by which the jobs of a run are recognised."""
    return f"ddbench-{logs.name}"


def _result(job: "submitit.Job[int]") -> int:
    try:
        return int(job.result())
    except Exception:  # the task raised: its log says what, and the status is all that is wanted here
        return LOST
