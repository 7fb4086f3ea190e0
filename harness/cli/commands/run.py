"""``ddbench run``: distil data sets, evaluate the results and print the table."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.cli.options import config_option, label_option, run_options, show, values_of, view_options


@click.command(
    epilog="Names take options in brackets, and [a,b] sweeps over values: --method 'dc[lr_img=[0.1,1]]'. Options that "
    "are left out take the data set's defaults. Exit code: 0 success, 1 some cells failed, 2 wrong usage, 130 "
    "interrupted."
)
@run_options
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
