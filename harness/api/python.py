"""The commands as functions of Python: ``harness.run``, ``evaluate`` and ``load_results``.

They plan and work by the same code as the commands of the same names, so that keys, seeds and numbers are the
same, and a store that one of them has filled is complete for the other.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from harness.api.comparing import Counts, Names
from harness.api.published import options_of
from harness.api.run_result import RunResult, StoredResults
from harness.api.runs import evaluate_request, plan_request, run_request
from harness.planning.request import request_from
from harness.plugins.discovery import plugins
from harness.plugins.published_sets import published_sets
from harness.report.results import read_results
from harness.running.reporter import Reporter
from harness.types.formats import LAST, Reading

Executor = str | Mapping[str, Any]
"""An executor's name with options in brackets, or a table: ``{"name": "slurm", "sbatch": {"gres": "gpu:2"}}``."""


def run(
    *,
    method: Names,
    pool: Names = "single",
    evaluator: Names = (),
    architecture: Names = (),
    dataset: Names = "digits",
    set: Names = (),
    ipc: Counts = (),
    iterations: Counts = (),
    distillations: int | None = None,
    students: int | None = None,
    seed: int = 0,
    score_on: Literal["test", "validation"] = "test",
    choose: str | None = None,
    keep_hold_out: bool = False,
    store: str | Path = "ddbench-store",
    device: str = "auto",
    precision: Literal["fp32", "tf32", "bf16", "auto"] = "fp32",
    compile: Literal["auto", "never"] = "auto",
    rerun_stale: bool = False,
    checkpoint_every: float = 60.0,
    max_storage: float = 20.0,
    max_cells: int = 100_000,
    strict_plugins: bool = False,
    executor: Executor | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    detach: bool = False,
    track: Names = (),
    dry_run: bool = False,
    label: Names = (),
    metric: Names = (),
    reporter: Reporter | None = None,
) -> RunResult:
    """Distil, train students and tabulate, as ``ddbench run`` does; what the store holds already is not done again.

    Args:
        method: names such as ``"dc[lr_img=[0.1,1]]"``, which sweeps; ``"all"`` is every one.
        pool: names of model pools.
        evaluator: names of evaluators; empty for the data set's default.
        architecture: names of the students' architectures; empty for the data set's default.
        dataset: names such as ``"folder[path=my-images]"``.
        set: options by component, ``"mtt.experts=5"``, wherever it is used.
        ipc: images per class; empty for the data set's default.
        iterations: after which a set is evaluated, all on one trajectory; empty for the data set's default.
        distillations: number of independent distillations; None for the data set's default.
        students: number of students of each architecture; None for the data set's default.
        seed: of all random numbers.
        score_on: images on which students are scored.
        choose: a swept option, ``"kd.temperature"``, whose value is chosen on a validation split.
        keep_hold_out: distil without the validation split also if students are scored on test.
        store: the folder of the store.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"``.
        precision: of the distillation; ``"auto"`` is the fastest on this machine.
        compile: whether large networks are compiled on a CPU, and CUDA graphs recorded on a GPU.
        rerun_stale: do cells again that a different version of the code has made.
        checkpoint_every: seconds between the checkpoints of a trajectory.
        max_storage: GB of new artifacts, above which nothing is started.
        max_cells: number of sets and students, above which nothing is started.
        strict_plugins: whether a broken plugin is an error.
        executor: a name or a table, such as ``{"name": "slurm", "sbatch": {"gres": "gpu:2"}}``; None for the
            environment's ``DDBENCH_EXECUTOR``, else ``"local"``.
        timeout: seconds that a cell may take.
        retry_failed: do failed cells again.
        detach: submit the work to a cluster, and return.
        track: trackers of the distillations, such as ``"tensorboard"``.
        dry_run: only plan: the result has the cells with their states, and an estimate of the time.
        metric: what is measured of every student beside the accuracy, such as ``"ece"``; a student whose record lacks
            it is trained again, with the same numbers.
        label: ``"similar=main-similar[warmup=500]"`` shows the label in place of the name; so do names of that form.
        reporter: hears of the progress.

    Raises:
        DDBenchError: an option is wrong or cannot work; nothing was started.
    """
    options: dict[str, Any] = dict(locals())  # first of all, when there is nothing in it but the arguments
    heard, planned_only = options.pop("reporter") or Reporter(), options.pop("dry_run")
    request = request_from(options)
    return plan_request(request) if planned_only else run_request(request, heard)


def evaluate(
    file: str | Path,
    *,
    entry: int = LAST,
    format: str | None = None,
    step_size: float | None = None,
    published_set: str | None = None,
    evaluator: Names = (),
    architecture: Names = (),
    dataset: Names = "digits",
    students: int | None = None,
    seed: int = 0,
    set: Names = (),
    score_on: Literal["test", "validation"] = "test",
    choose: str | None = None,
    max_cells: int = 100_000,
    store: str | Path = "ddbench-store",
    device: str = "auto",
    compile: Literal["auto", "never"] = "auto",
    executor: Executor | None = None,
    track: Names = (),
    timeout: float | None = None,
    retry_failed: bool = False,
    detach: bool = False,
    strict_plugins: bool = False,
    rerun_stale: bool = False,
    label: Names = (),
    metric: Names = (),
    reporter: Reporter | None = None,
) -> RunResult:
    """Train and score students on a distilled set that lies in a file, as ``ddbench eval`` does.

    Args:
        file: a file or folder of one of the formats that `harness.load_distilled` reads, or ``hf:OWNER/NAME@REVISION``,
            a set on the Hugging Face hub.
        entry: which set of a file that holds several; the last by default.
        format: its format with options, if its content does not say.
        step_size: the learned step size, if the file does not hold it.
        published_set: the published set that the file is, as ``ddbench published`` lists it: it supplies data set,
            evaluator, architectures and number of students where they have their defaults, and the result's
            ``reproductions`` say whether the stated accuracy is reproduced.
        dataset: gives the test images, and the preprocessing of a file that does not name its own.
        evaluator: names of evaluators; empty for the data set's default.
        architecture: names of the students' architectures; empty for the data set's default.
        students: number of students of each architecture; None for the data set's default.
        seed: of all random numbers.
        set: options by component, ``"kd.temperature=2"``, wherever it is used.
        score_on: images on which students are scored.
        choose: a swept option whose value is chosen on a validation split.
        max_cells: number of students, above which nothing is started.
        store: the folder of the store.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"``.
        compile: whether large networks are compiled on a CPU, and CUDA graphs recorded on a GPU.
        executor: what starts the work; None for the environment's ``DDBENCH_EXECUTOR``, else ``"local"``.
        track: trackers, such as ``"tensorboard"``.
        timeout: seconds that a cell may take.
        retry_failed: do failed cells again.
        detach: submit the work to a cluster, and return.
        strict_plugins: whether a broken plugin is an error.
        rerun_stale: do cells again that a different version of the code has made.
        metric: what is measured of every student beside the accuracy, such as ``"ece"``.
        label: ``"similar=NAME"`` shows the label in place of the name; so do names of that form.
        reporter: hears of the progress.

    Raises:
        DDBenchError: an option is wrong or cannot work; nothing was started.
    """
    options: dict[str, Any] = dict(locals())  # first of all, when there is nothing in it but the arguments
    reading = Reading(options.pop("entry"), options.pop("format"), options.pop("step_size"))
    path, heard, name = Path(options.pop("file")), options.pop("reporter") or Reporter(), options.pop("published_set")
    published = published_sets(plugins()).named(name) if name else None
    if published:
        defaults = inspect.signature(evaluate).parameters
        options |= {key: value for key, value in options_of(published).items() if options[key] == defaults[key].default}
    return evaluate_request(path, request_from(options, "evaluate()"), heard, reading, published)


def load_results(*stores: str | Path) -> StoredResults:
    """Return all that stores hold: the scores of students, and the distilled sets, which are loaded when asked.

    Args:
        stores: folders of stores, or files of ``ddbench results pack``; ``"ddbench-store"`` if there are none.

    Raises:
        StoreError: a folder is no store, or cannot be read.
    """
    return StoredResults.of(read_results([Path(store) for store in stores or ("ddbench-store",)], plugins().registry))
