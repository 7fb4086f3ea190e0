"""``ddbench eval``: train and score students on a distilled set from a file."""

from pathlib import Path
from typing import Any

import click

from harness.cli.options import (
    ListsFormats,
    config_option,
    label_option,
    reading_of,
    reading_options,
    show,
    study_options,
    values_of,
    view_options,
)
from harness.cli.usable_plugins import usable_published_sets


@click.command(
    cls=ListsFormats,
    epilog="--dataset supplies what the file lacks, such as the normalisation of its images: --dataset cifar10, or "
    "'folder[path=...,like=cifar10]'. No code in a file is executed.",
)
@click.argument("file", metavar="FILE|hf:REPO", type=click.Path(path_type=Path))
@study_options
@reading_options
@click.option("--as", "published_set", metavar="NAME",
              help="Published set that FILE is, as `ddbench published` lists it: supplies data set, evaluator, "
              "architectures and students, and says whether the stated accuracy is reproduced.")  # fmt: skip
@label_option
@config_option
@view_options
@click.option("--json", "as_json", is_flag=True, help="Print the store, the cells and the rows of the table as JSON.")
def evaluate(
    file: Path,
    config: Path | None,
    entry: int | None,
    format: str | None,
    step_size: float | None,
    published_set: str | None,
    published: bool,
    details: bool,
    as_json: bool,
    **typed: Any,  # noqa: ANN401
) -> None:
    """Train students on the distilled set in FILE and print the cross-architecture table.

    FILE is a set.safetensors from a store, or a file or folder in any other format that `ddbench formats` lists;
    `ddbench convert` converts between them. hf:REPO, or hf:REPO@REVISION, is a set that `ddbench publish` shared on the
    Hugging Face hub.

    \b
    ddbench eval res_DC_CIFAR10_ConvNet_1ipc.pt --dataset cifar10 --evaluator plain --students 20
    ddbench eval res_DC_CIFAR10_ConvNet_1ipc_3000.pt --as dc/cifar10/ipc1
    ddbench eval hf:jane/dm-digits --dataset digits
    """  # noqa: D301 - the backspace is how click knows lines to keep
    from harness.api.published import options_of
    from harness.api.runs import evaluate_request

    known = usable_published_sets().named(published_set) if published_set else None
    request = values_of(typed, config, options_of(known) if known else {})
    reading = reading_of(entry, format, step_size)
    show(
        lambda reporter: evaluate_request(file, request, reporter, reading, known),
        as_json,
        published=published,
        details=details,
    )
