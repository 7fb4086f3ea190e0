"""``ddbench eval``: evaluate a distilled set that lies in a file."""

from pathlib import Path
from typing import Any

import click

from harness.cli.options import config_option, show, study_options, values_of


@click.command(
    epilog="A .pt file of the VICO-UoE format does not tell how its images were normalised; the data set does: "
    "--dataset cifar10, or 'folder[path=...,like=cifar10]'. Nothing in a file is executed."
)
@click.argument("file", type=click.Path(path_type=Path))
@study_options
@click.option("--entry", type=int, help="Which set of a .pt file that holds several. [the last]")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print store, cells and rows as JSON, and nothing else.")
def evaluate(file: Path, config: Path | None, entry: int | None, as_json: bool, **given: Any) -> None:  # noqa: ANN401
    """Train students on the distilled set in FILE and print the cross-architecture table.

    FILE is a set.safetensors from a store, or a .pt file of the VICO-UoE format.

    \b
    ddbench eval res_DC_CIFAR10_ConvNet_1ipc.pt --dataset cifar10 --evaluator plain --students 20
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.experiment.api import evaluate_request

    request = values_of(given, config)
    show(lambda reporter: evaluate_request(file, request, reporter, -1 if entry is None else entry), as_json)
