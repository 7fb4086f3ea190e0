"""``ddbench run``: distil, evaluate, tabulate."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.cli.options import config_option, show, study_options, values_of


@click.command(
    epilog="Names take options in brackets, and [a,b] sweeps: --method 'dc[lr_img=[0.1,1]]'. What is not given is the "
    "data set's own default. Exit code: 0 all good, 1 some cells failed, 2 wrong usage, 130 interrupted."
)
@click.option("--method", "-m", multiple=True, metavar="NAME,...", help="Distillation method; repeatable, or all.")
@click.option("--pool", "-p", multiple=True, metavar="NAME,...", help="Model-pool policy [single]; repeatable, or all.")
@study_options
@click.option("--ipc", multiple=True, metavar="N,...", help="Images per class.")
@click.option("--iterations", multiple=True, metavar="N,...", help="Points of one trajectory; each gives a set.")
@click.option("--distillations", type=click.IntRange(1), metavar="N", help="Independent trajectories.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "auto"]),
    help="Of the distillation. tf32: all products, on a GPU; bf16: the real gradient in bfloat16; auto: the quickest "
    "of them here. [fp32]",
)
@click.option(
    "--max-storage",
    type=click.FloatRange(0),
    metavar="GB",
    help="Refuse a plan whose new artifacts, such as expert trajectories, take more. [20]",
)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How often a trajectory is kept, to go on from there; 0: after every iteration. [60]",
)
@click.option(
    "--keep-hold-out",
    is_flag=True,
    default=None,
    help="Distil what is scored on test without the validation split, too: fewer images than other sets have.",
)
@config_option
@click.option("--dry-run", is_flag=True, help="Only show the plan, what is in the store, and an estimate of time.")
@click.option("--json", "as_json", is_flag=True, help="Print store, cells and rows as JSON, and nothing else.")
def run(config: Path | None, dry_run: bool, as_json: bool, **given: Any) -> None:  # noqa: ANN401
    """Distil with methods through pools, train students on the sets, print the cross-architecture table.

    Finished cells are kept in the store: the same command runs only what is missing, more students or distillations
    add to those there, and more iterations extend a trajectory.

    \b
    ddbench run --method dc --pool main-similar
    ddbench run --method dc --pool single --pool main-similar --dataset cifar10 --dry-run
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.api.runs import plan_request, run_request

    request = values_of(given, config)
    if dry_run:
        show(lambda _: plan_request(request), as_json)
    else:
        show(partial(run_request, request), as_json)
