"""Options that ``ddbench run`` and ``ddbench eval`` share, and the output of both."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from harness.api.run_result import RunResult
    from harness.planning.request import Request
    from harness.running.reporter import Reporter
    from harness.types.formats import Reading

F = TypeVar("F", bound=Callable[..., Any])
_NUMBERS = ("ipc", "iterations")

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with these options as keys; options on the command line take precedence. The executor may be a "
    "table of its name and options, with [executor.sbatch] for those of sbatch.",
)


def _store_option(what: str) -> Callable[[F], F]:
    default = Path("ddbench-store")
    return click.option("--store", type=click.Path(path_type=Path), default=default, help=f"{what}. [./{default}]")


store_option = _store_option("Folder of the store")
read_store_option = _store_option("Folder of the store, or a file of `ddbench results pack`")
"""For commands that only read."""


label_option = click.option(
    "--label",
    multiple=True,
    metavar="LABEL=NAME",
    help="Label that tables and pages show in place of the name of a method, pool, evaluator, architecture or data "
    "set; in `ddbench run` the same as --pool LABEL=NAME and so on. Repeatable.",
)


def score_filters(command: F) -> F:
    """Add the options that filter the scores of stores."""
    chosen = {
        ("--dataset", "-d"): "Only these data sets; repeatable.",
        ("--method", "-m"): "Only these methods; repeatable.",
        ("--pool", "-p"): "Only these pools; repeatable.",
        ("--evaluator", "-e"): "Only these evaluators; repeatable.",
        ("--architecture", "-a"): "Only students of these architectures; repeatable.",
    }
    numbers = {"--ipc": "Only these numbers of images per class.", "--iterations": "Only these numbers of iterations."}
    for name, text in reversed(numbers.items()):
        command = click.option(name, multiple=True, metavar="N,...", help=text)(command)
    for names, text in reversed(chosen.items()):
        command = click.option(*names, multiple=True, metavar="NAME,...", help=text)(command)
    return command


def filters_of(typed: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the values of `score_filters` by axis, one name or number each."""
    from harness.types.names import split_names

    names = {axis: split_names(texts) for axis, texts in typed.items() if axis not in _NUMBERS}
    return names | {axis: tuple(part.strip() for text in typed[axis] for part in text.split(",")) for axis in _NUMBERS}


_set_option = click.option(
    "--set",
    multiple=True,
    metavar="NAME.OPTION=VALUE",
    help="Set an option of a component wherever it is used, for instance mtt.experts=5; repeatable.",
)
_metric_option = click.option(
    "--metric",
    multiple=True,
    metavar="NAME,...",
    help="Measure this of every student beside the accuracy (`ddbench metrics`); repeatable. A student whose record "
    "lacks it is trained again, with the same numbers.",
)


def study_options(command: F) -> F:
    """Add the options for the evaluation of distilled sets, the execution and the store."""
    for add in reversed(
        [
            click.option("--evaluator", "-e", multiple=True, metavar="NAME,...", help="Evaluator, or all; repeatable."),
            click.option(
                "--architecture",
                "-a",
                multiple=True,
                metavar="NAME,...",
                help="Architecture of the students, or all; repeatable.",
            ),
            click.option("--dataset", "-d", multiple=True, metavar="NAME,...", help="Data set; repeatable. [digits]"),
            _metric_option,
            click.option(
                "--students", type=click.IntRange(1), metavar="N", help="Number of students of each architecture."
            ),
            click.option("--seed", type=int, metavar="N", help="Seed of all random numbers. [0]"),
            _set_option,
            click.option(
                "--score-on",
                type=click.Choice(["test", "validation"]),
                help="Images on which students are scored; validation: a part of the training set that is also held "
                "out of the distillation. [test]",
            ),
            click.option(
                "--choose",
                metavar="NAME.OPTION",
                help="Choose the value of a swept option on a validation split (the first of equal ones), then distil "
                "with it on the whole training set and score on test.",
            ),
            click.option(
                "--max-cells",
                type=click.IntRange(1),
                metavar="N",
                help="Refuse to start if there are more sets and students. [100000]",
            ),
            click.option("--store", type=click.Path(path_type=Path), help="Folder of the store. [./ddbench-store]"),
            click.option("--device", metavar="NAME", help="Device: cpu, cuda, cuda:1, ... or auto. [auto]"),
            click.option(
                "--compile",
                type=click.Choice(["auto", "never"]),
                help="auto: compile large networks on a CPU, and record CUDA graphs on a GPU. [auto]",
            ),
            click.option(
                "--executor",
                metavar="NAME",
                help="Executor that starts the work: local[slots=2], inline, slurm, ray. [DDBENCH_EXECUTOR or local]",
            ),
            click.option(
                "--track",
                multiple=True,
                metavar="NAME,...",
                help="Tracker that shows the course of distillations: tensorboard, trackio, wandb; repeatable.",
            ),
            click.option(
                "--timeout", type=float, metavar="SECONDS", help="Maximum time for a cell; one that takes longer fails."
            ),
            click.option("--retry-failed", is_flag=True, default=None, help="Run failed cells again."),
            click.option(
                "--detach",
                is_flag=True,
                default=None,
                help="Submit the work and exit; `ddbench status` shows its progress. Only with slurm.",
            ),
            click.option("--strict-plugins", is_flag=True, default=None, help="Fail if a plugin is broken."),
            click.option(
                "--rerun-stale",
                is_flag=True,
                default=None,
                help="Run cells again whose records were made by a different version of the code.",
            ),
        ]
    ):
        command = add(command)
    return command


def run_options(command: F) -> F:
    """Add the options for distillations and for their evaluation, in the order in which help shows them."""
    for add in reversed(
        [
            click.option(
                "--method", "-m", multiple=True, metavar="NAME,...", help="Distillation method, or all; repeatable."
            ),
            click.option(
                "--pool", "-p", multiple=True, metavar="NAME,...", help="Model pool, or all; repeatable. [single]"
            ),
            study_options,
            click.option("--ipc", multiple=True, metavar="N,...", help="Images per class."),
            click.option(
                "--iterations",
                multiple=True,
                metavar="N,...",
                help="Iterations after which the distilled set is evaluated; all of them lie on one trajectory.",
            ),
            click.option(
                "--distillations", type=click.IntRange(1), metavar="N", help="Number of independent distillations."
            ),
            click.option(
                "--precision",
                type=click.Choice(["fp32", "tf32", "bf16", "auto"]),
                help="Precision of the distillation. tf32: TensorFloat-32 for all matrix products, on a GPU; bf16: "
                "bfloat16 for the gradient of real images; auto: the fastest of them on this machine. [fp32]",
            ),
            click.option(
                "--max-storage",
                type=click.FloatRange(0),
                metavar="GB",
                help="Refuse to start if new artifacts, such as expert trajectories, would take more disk space. [20]",
            ),
            click.option(
                "--checkpoint-every",
                type=click.FloatRange(0),
                metavar="SECONDS",
                help="Time between checkpoints, from which an interrupted distillation continues; 0: after every "
                "iteration. [60]",
            ),
            click.option(
                "--keep-hold-out",
                is_flag=True,
                default=None,
                help="Distil without the validation split also if students are scored on test, from fewer images than "
                "usual.",
            ),
        ]
    ):
        command = add(command)
    return command


class ListsFormats(click.Command):
    """A command whose help ends with the file formats of all installed plugins."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the formats after the epilog; they are looked up only when somebody asks for help."""
        from harness.cli.usable_plugins import usable_plugins

        super().format_epilog(ctx, formatter)
        registry = usable_plugins().registry
        with formatter.section("Formats"):
            formatter.write_dl([(registry.display_name(entry), entry.summary) for entry in registry.of_kind("format")])


def reading_options(command: F) -> F:
    """Add the options for reading a distilled set from a file."""
    for add in reversed(
        [
            click.option(
                "--entry", type=int, metavar="N", help="Index of the set in a file that holds several. [the last]"
            ),
            click.option(
                "--from",
                "format",
                metavar="FORMAT",
                help="Format of the file; options say what it does not, as in 'idc[factor=2]', "
                "'ddranking[temperature=1]' and 'npz[pixels=true]'. [from its content]",
            ),
            click.option(
                "--step-size", type=float, metavar="X", help="Learned step size, if the file does not hold it."
            ),
        ]
    ):
        command = add(command)
    return command


def reading_of(entry: int | None, form: str | None, step_size: float | None) -> "Reading":
    """Return how to read a file, from the values of `reading_options`."""
    from harness.types.formats import LAST, Reading

    return Reading(LAST if entry is None else entry, form, step_size)


def values_of(typed: Mapping[str, Any], config: Path | None, defaults: Mapping[str, Any] | None = None) -> "Request":
    """Create a request from the options of the command line, which override those of the config file.

    Args:
        typed: the options of the command line.
        config: the config file.
        defaults: options that hold if neither has them.

    Raises:
        UsageError: a key is unknown, or a value is not valid.
    """
    from harness.planning.request import read_config, request_from

    # An option that was not typed is None or empty, and must not hide the value of the config file.
    used = {key: value for key, value in typed.items() if value is not None and value != ()}
    options = {key: _numbers(key, value) if key in _NUMBERS else value for key, value in used.items()}
    in_file = {key.replace("-", "_"): value for key, value in read_config(config).items()} if config else {}
    return request_from({**(defaults or {}), **in_file, **options}, str(config) if config else "options")


def view_options(command: F) -> F:
    """Add the options that say how much a table for people shows."""
    details = "Show all that is known: medians, both spreads, published numbers, and marks with their footnotes."
    command = click.option("--details", is_flag=True, help=details)(command)
    published = "Show published numbers below those of their architecture."
    return click.option("--published", is_flag=True, help=published)(command)


def show(
    work: "Callable[[Reporter], RunResult]", as_json: bool, *, published: bool = False, details: bool = False
) -> None:
    """Do the work with progress on stderr, print its table or JSON on stdout, and exit 1 if a cell failed.

    Args:
        work: gives the result.
        as_json: print JSON in place of a table.
        published: show published numbers, too.
        details: show all that is known.
    """
    with reporting() as reporter:
        result = work(reporter)
    if as_json:
        # NaN is not JSON: strict readers refuse it, so it must not be written.
        click.echo(json.dumps(result.as_json(), allow_nan=False))
        # On stderr, so that people see them although stdout goes to a program.
        for note in (*result.warnings, *result.notes):
            click.echo(note, err=True)
    else:
        print_result(result, published, details)
    if result.failed:
        sys.exit(1)


@contextmanager
def reporting() -> Iterator["Reporter"]:
    """Show progress on stderr while work is done."""
    from harness.cli.progress import reporter_for_stderr
    from harness.plugins.registry import stdout_to_stderr

    # Whatever a plugin or a library prints must not end up within the table or the JSON.
    with reporter_for_stderr() as reporter, stdout_to_stderr():
        yield reporter


def print_result(result: "RunResult", published: bool = False, details: bool = False) -> None:
    """Print the table of a run, with captions and verdict, on stdout."""
    from harness.report.tables.run_table import print_table
    from harness.report.tables.run_view import RunView, print_run

    notes = [*result.notes, f"store: {result.store}"]
    if result.rows and not (result.planned_only or details):
        print_run(result.rows, result.values, published=published, labels=result.labels,
                  warnings=result.warnings, notes=notes)  # fmt: skip
        return
    if result.planned_only:
        for cell in result.cells:
            click.echo(f"{cell['state']:8} {cell['kind']:10} {cell['label']}")
    elif result.rows:
        print_table(result.rows, labels=result.labels)
    for warning in result.warnings:
        click.secho(warning, fg="red", bold=True)
    for note in notes:
        click.echo(note)
    for verdict in RunView(result.rows, result.values, labels=result.labels).verdicts:
        click.echo(verdict)


def _numbers(key: str, texts: tuple[str, ...]) -> list[int]:
    parts = [part.strip() for text in texts for part in text.split(",")]
    try:
        return [int(part) for part in parts]
    except ValueError:
        raise click.BadParameter(f"{','.join(texts)!r} is not a list of whole numbers", param_hint=f"--{key}") from None
