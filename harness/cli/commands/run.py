"""``ddbench run``: distil data sets, evaluate the results and print the table."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.cli.options import config_option, label_option, show, study_options, values_of, view_options


@click.command(
    epilog="Names take options in brackets, and [a,b] sweeps over values: --method 'dc[lr_img=[0.1,1]]'. Options that "
    "are left out take the data set's defaults. Exit code: 0 success, 1 some cells failed, 2 wrong usage, 130 "
    "interrupted."
)
@click.option("--method", "-m", multiple=True, metavar="NAME,...", help="Distillation method, or all; repeatable.")
@click.option("--pool", "-p", multiple=True, metavar="NAME,...", help="Model pool, or all; repeatable. [single]")
@study_options
@click.option("--ipc", multiple=True, metavar="N,...", help="Images per class.")
@click.option(
    "--iterations",
    multiple=True,
    metavar="N,...",
    help="Iterations after which the distilled set is evaluated; all of them lie on one trajectory.",
)
@click.option("--distillations", type=click.IntRange(1), metavar="N", help="Number of independent distillations.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "auto"]),
    help="Precision of the distillation. tf32: TensorFloat-32 for all matrix products, on a GPU; bf16: bfloat16 for "
    "the gradient of real images; auto: the fastest of them on this machine. [fp32]",
)
@click.option(
    "--max-storage",
    type=click.FloatRange(0),
    metavar="GB",
    help="Refuse to start if new artifacts, such as expert trajectories, would take more disk space. [20]",
)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Time between checkpoints, from which an interrupted distillation continues; 0: after every iteration. [60]",
)
@click.option(
    "--keep-hold-out",
    is_flag=True,
    default=None,
    help="Distil without the validation split also if students are scored on test, from fewer images than usual.",
)
@label_option
@config_option
@click.option(
    "--dry-run", is_flag=True, help="Only print the plan, what the store already holds, and an estimate of the time."
)
@view_options
@click.option("--json", "as_json", is_flag=True, help="Print the store, the cells and the rows of the table as JSON.")
def run(config: Path | None, dry_run: bool, published: bool, details: bool, as_json: bool, **typed: Any) -> None:  # noqa: ANN401
    """Distil with methods and pools, train students on the sets and print the cross-architecture table.

    The store keeps all finished cells, so the same command runs only what is missing: more students or distillations
    add to those in the store, and more iterations extend a trajectory.

    \b
    ddbench run --method dc --pool main-similar
    ddbench run --method dc --pool single --pool main-similar --dataset cifar10 --dry-run
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.api.runs import plan_request, run_request

    request = values_of(typed, config)
    if dry_run:
        show(lambda _: plan_request(request), as_json, published=published, details=details)
    else:
        show(partial(run_request, request), as_json, published=published, details=details)
