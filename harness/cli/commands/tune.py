"""``ddbench tune``: search the options of a method on a validation split."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import config_option, label_option, print_result, reporting, run_options, values_of
from harness.cli.output import print_table

if TYPE_CHECKING:
    from harness.api.tuning import TuneResult


@click.command(
    epilog="The first trial is the method as it is typed. Without a range, an option is searched between the bounds "
    "that it declares, or around its default: a hundredth to a hundred times of it, a quarter to four times of a whole "
    "number. Needs the package optuna: pip install 'ddbench[tune]'."
)
@run_options
@click.option("--over", multiple=True, required=True, metavar="METHOD.OPTION[=LOW..HIGH]",
              help="Option to search, with its range, or with its values: dc.init=[noise,real].")  # fmt: skip
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="Number of trials.")
@click.option("--parallel", type=click.IntRange(1), default=1, show_default=True, metavar="N",
              help="Trials that run at once; the executor's slots limit how many really do.")  # fmt: skip
@click.option("--no-pruning", is_flag=True, help="Run every trial to its last iterations.")
@label_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print the trials and the final run as JSON.")
def tune(
    config: Path | None, over: tuple[str, ...], trials: int, parallel: int, no_pruning: bool, as_json: bool,
    **typed: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Search options of a method on a validation split, and score the best ones once on test.

    Trials are cells of the store: the same command goes on with a search that was interrupted, and only --seed decides
    which trials there are. With several --iterations, a trial ends at the first of them at which it is below the median
    of those before it.

    \b
    ddbench tune --method dc --over dc.lr_img --over dc.batch_real --trials 20
    ddbench tune --method dm --over dm.lr_img=0.01..100 --iterations 50,200 --trials 12
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.api.tuning import tune_request

    request = values_of(typed, config)
    with reporting() as reporter:
        result = tune_request(request, over, trials, parallel, reporter, prune=not no_pruning)
    if as_json:
        click.echo(json.dumps(result.as_json(), allow_nan=False))
        return
    _print(result)
    print_result(result.result)


# What these options ask for, a search does by itself.
tune.params = [option for option in tune.params if option.name not in ("score_on", "choose", "keep_hold_out", "detach")]


def _print(result: "TuneResult") -> None:
    from harness.report.tables.wording import percent

    options = list(result.best.values)
    points = sorted({point for trial in result.trials for point in trial.scores})
    rows = [
        [
            f"{trial.number}{' (best)' if trial is result.best else ''}",
            *(trial.values[name] for name in options),
            *(percent(trial.scores[point]) if point in trial.scores else trial.state for point in points),
        ]
        for trial in result.trials
    ]
    print_table(["trial", *options, *(f"at {point}" for point in points)], rows)
    click.echo("accuracy on validation in %, the mean over all students; the best is distilled on all images:\n")
