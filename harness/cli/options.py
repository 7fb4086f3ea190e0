"""Options that ``run`` and ``eval`` share, and showing what comes out."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from harness.api.runs import RunResult
    from harness.planning.request import Request
    from harness.running.reporter import Reporter
    from harness.types.formats import Reading

F = TypeVar("F", bound=Callable[..., Any])
_NUMBERS = ("ipc", "iterations")

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file whose keys are these options; what is given here wins.",
)
store_option = click.option(
    "--store", type=click.Path(path_type=Path), default=Path("ddbench-store"), help="The store. [./ddbench-store]"
)


def score_filters(command: F) -> F:
    """Add the options that choose among the scores of stores."""
    chosen = {
        ("--dataset", "-d"): "Only these data sets; repeatable.",
        ("--method", "-m"): "Only these methods; repeatable.",
        ("--pool", "-p"): "Only these pools; repeatable.",
        ("--evaluator", "-e"): "Only these evaluators; repeatable.",
        ("--architecture", "-a"): "Only these students; repeatable.",
    }
    numbers = {"--ipc": "Only these images per class.", "--iterations": "Only these iterations."}
    for name, text in reversed(numbers.items()):
        command = click.option(name, multiple=True, metavar="N,...", help=text)(command)
    for names, text in reversed(chosen.items()):
        command = click.option(*names, multiple=True, metavar="NAME,...", help=text)(command)
    return command


def filters_of(typed: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return what `score_filters` were given, by axis, one name or number each."""
    from harness.types.names import split_names

    names = {axis: split_names(texts) for axis, texts in typed.items() if axis not in _NUMBERS}
    return names | {axis: tuple(part.strip() for text in typed[axis] for part in text.split(",")) for axis in _NUMBERS}


def study_options(command: F) -> F:
    """Add the options that say how sets are evaluated, and where the records go."""
    for add in reversed(
        [
            click.option("--evaluator", "-e", multiple=True, metavar="NAME,...", help="Evaluator; repeatable, or all."),
            click.option(
                "--architecture", "-a", multiple=True, metavar="NAME,...", help="Students; repeatable, or all."
            ),
            click.option("--dataset", "-d", multiple=True, metavar="NAME,...", help="Data set [digits]; repeatable."),
            click.option("--students", type=click.IntRange(1), metavar="N", help="Students of each architecture."),
            click.option("--seed", type=int, metavar="N", help="Decides every random number. [0]"),
            click.option(
                "--set",
                multiple=True,
                metavar="NAME.OPTION=VALUE",
                help="An option of a component wherever it is used, say mtt.experts=5; repeatable.",
            ),
            click.option(
                "--score-on",
                type=click.Choice(["test", "validation"]),
                help="validation: on a part of the training set, held out of the distillation too. [test]",
            ),
            click.option(
                "--choose",
                metavar="NAME.OPTION",
                help="Choose a swept option on a validation split (of equals the first); then distil the choice on "
                "the whole training set and score it on test.",
            ),
            click.option(
                "--max-cells",
                type=click.IntRange(1),
                metavar="N",
                help="Refuse a plan that has more sets and students. [100000]",
            ),
            click.option("--store", type=click.Path(path_type=Path), help="Folder of all records. [./ddbench-store]"),
            click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, or auto. [auto]"),
            click.option(
                "--compile",
                type=click.Choice(["auto", "never"]),
                help="auto: quicker code for heavy networks on a CPU; recorded steps on a GPU. [auto]",
            ),
            click.option(
                "--executor",
                metavar="NAME",
                help="What starts the work: local[slots=2], inline, slurm, ray. [DDBENCH_EXECUTOR, else local]",
            ),
            click.option("--timeout", type=float, metavar="SECONDS", help="Fail a cell that takes longer."),
            click.option("--retry-failed", is_flag=True, default=None, help="Make failed cells once more."),
            click.option(
                "--detach",
                is_flag=True,
                default=None,
                help="Order the work and leave; `ddbench status` tells how it stands (slurm).",
            ),
            click.option("--strict-plugins", is_flag=True, default=None, help="A broken plugin is an error."),
            click.option(
                "--rerun-stale", is_flag=True, default=None, help="Redo what a different version of the code made."
            ),
        ]
    ):
        command = add(command)
    return command


def reading_options(command: F) -> F:
    """Add the options that say how a file of a distilled set is read."""
    for add in reversed(
        [
            click.option("--entry", type=int, metavar="N", help="Which set of a file that holds several. [the last]"),
            click.option(
                "--from",
                "format",
                metavar="FORMAT",
                help="Its format, with what it does not tell: 'idc[factor=2]', 'ddranking[temperature=1]', "
                "'npz[pixels=true]', safetensors, vico, mtt, images. [as its content tells]",
            ),
            click.option("--step-size", type=float, metavar="X", help="The learned step size, if no file tells it."),
        ]
    ):
        command = add(command)
    return command


def reading_of(entry: int | None, form: str | None, step_size: float | None) -> "Reading":
    """How a file is to be read, from `reading_options`."""
    from harness.types.formats import LAST, Reading

    return Reading(LAST if entry is None else entry, form, step_size)


def values_of(given: Mapping[str, Any], config: Path | None) -> "Request":
    """A request from the options given and the config file beneath them.

    Raises:
        UsageError: an unknown key, or a value that cannot be meant.
    """
    from harness.planning.request import read_config, request_from

    told = {key: value for key, value in given.items() if value is not None and value != ()}
    typed = {key: _numbers(key, value) if key in _NUMBERS else value for key, value in told.items()}
    beneath = {key.replace("-", "_"): value for key, value in read_config(config).items()} if config else {}
    return request_from({**beneath, **typed}, str(config) if config else "options")


def show(work: "Callable[[Reporter], RunResult]", as_json: bool) -> None:
    """Do the work with progress on stderr, print its table or JSON on stdout, and exit 1 if a cell failed."""
    from harness.cli.progress import reporter
    from harness.plugins.registry import stdout_to_stderr

    with reporter() as telling, stdout_to_stderr():
        result = work(telling)
    if as_json:
        click.echo(json.dumps(result.as_json(), allow_nan=False))
        for note in (*result.warnings, *result.notes):
            click.echo(note, err=True)
    else:
        _print(result)
    if result.failed:
        sys.exit(1)


def _print(result: "RunResult") -> None:
    from harness.report.tables.run_table import print_table

    if result.planned_only:
        for cell in result.cells:
            click.echo(f"{cell['state']:8} {cell['kind']:10} {cell['label']}")
    elif result.rows:
        print_table(result.rows)
    for warning in result.warnings:
        click.secho(warning, fg="red", bold=True)
    for note in result.notes:
        click.echo(note)
    click.echo(f"store: {result.store}")


def _numbers(key: str, texts: tuple[str, ...]) -> list[int]:
    parts = [part.strip() for text in texts for part in text.split(",")]
    try:
        return [int(part) for part in parts]
    except ValueError:
        raise click.BadParameter(f"{','.join(texts)!r} is not a list of whole numbers", param_hint=f"--{key}") from None
