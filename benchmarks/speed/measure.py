"""How fast ddbench is on this machine: `python benchmarks/speed/measure.py`; see the README beside it."""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import growth
import machine
import steps
import students
from figures import as_json, as_tables
from processes import Other
from settings import PRECISIONS, QUICK, SIZES, Settings

PARTS = ("machine", "steps", "students", "memory", "growth")
HELP = """Measure the speed of ddbench on this machine, on its CPU.

Every measurement is done in a process of its own; of those that are compared, in turn. The tables show medians, in
brackets the extremes and of how many (n). They are printed, and written with all numbers to speed.md and speed.json.

\b
Parts:
  machine   what it is; its rates of matrix products and of the ConvNet's convolutions
  steps     seconds an iteration of dc and dsa, their parts, and how far they are from the convolutions alone; dm, mtt
  students  seconds a student by architecture and evaluator, beside the same recipe in plain eager torch
  memory    peak memory of a step of dc beyond the data, for few and for many classes
  growth    seconds against ipc, classes, width, batch and number of students

Another implementation is timed beside ours by --other. Its command is started without a shell, once a round, each time
with {method} (dc, dsa), {ipc} and {count} replaced by what is asked; it has to do so many iterations in float32 and to
print for each one line of JSON, {"seconds": 6.1}. That of --other-students gets {architecture}, {ipc} and {count}, and
prints a line for each student that it has trained and scored. What else they print is not read.
"""


@click.command(help=HELP)
@click.option("--dataset", metavar="NAME", help="Data set, as ddbench run takes it.  [default: digits]")
@click.option("--only", "parts", metavar="PART", multiple=True, type=click.Choice(PARTS), help="Leave out other parts.")
@click.option("--repeats", type=click.IntRange(1), help="Rounds of what is timed in turn.  [default: 3]")
@click.option("--method", "methods", metavar="NAME", multiple=True, help="Instead of dc and dsa, dm and mtt.")
@click.option("--precision", "precisions", multiple=True, type=click.Choice(PRECISIONS), help="One of them only.")
@click.option("--ipc", multiple=True, type=click.IntRange(1), help="Instead of 1 and 10.")
@click.option("--count", type=click.IntRange(1), help="Iterations a round.  [default: 3 at ipc 1, else 1]")
@click.option(
    "--computed-ipc", type=click.IntRange(0), help="Whose iteration is computed from its parts; 0: none.  [default: 50]"
)
@click.option("--evaluator", "evaluators", metavar="NAME", multiple=True, help="Instead of plain and kd.")
@click.option("--architecture", "architectures", metavar="NAME", multiple=True, help="Instead of the usual six.")
@click.option("--size", "sizes", multiple=True, type=click.Choice(SIZES), help="Instead of the growth with all sizes.")
@click.option("--compile", type=click.Choice(["auto", "never"]), help="As ddbench run takes it.  [default: auto]")
@click.option("--other", "others", metavar="NAME=COMMAND", multiple=True, help="Another implementation of the methods.")
@click.option("--other-students", metavar="NAME=COMMAND", multiple=True, help="Another way to train students.")
@click.option("--rates/--no-rates", default=True, help="Measure the machine's own rates first.  [default: rates]")
@click.option("--quick", is_flag=True, help="Small sizes, to try it out: the numbers mean nothing.")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("ddbench-speed"), show_default=True,
    help="Folder of speed.json and speed.md; rewritten after each number.",
)  # fmt: skip
def main(parts, quick, rates, output, others, other_students, **options):
    settings = replace(
        QUICK if quick else Settings(),
        **{name: value for name, value in options.items() if value not in (None, ())},
        **({"cheap": ()} if options["methods"] else {}),
        others=tuple(Other.parse(text, ("method", "ipc", "count")) for text in others),
        other_students=tuple(Other.parse(text, ("architecture", "ipc", "count")) for text in other_students),
    )
    check_names(settings)
    parts = set(parts or PARTS)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"--output {output} cannot be made: {error.strerror}") from None
    rates = rates and bool(parts & {"machine", "steps"})
    progress("machine", "rates" if rates else "description")
    facts = machine.measure(settings, rates=rates)
    work = {
        "steps": lambda report: steps.measure(settings, facts, report),
        "students": lambda report: students.measure(settings, report),
        "memory": lambda report: growth.memory(settings, report),
        "growth": lambda report: growth.growth(settings, report),
    }
    report = Report(output, settings, facts.description, list(facts.figures))
    report.write()
    for part in (part for part in work if part in parts):
        for figure in work[part](partial(progress, part)):
            report.figures.append(figure)
            report.write()
    click.echo(report.text())


def check_names(settings):
    """Refuse what would stand in one place of a table twice, or beside a recipe that it is not."""
    for others in (settings.others, settings.other_students):
        names = [other.name for other in others]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise click.UsageError(f"two implementations are called {twice!r}")
    plain = students.plain_ones(settings.evaluators)
    if settings.other_students and len(plain) != 1:
        names = ", ".join(plain) or "none"
        raise click.UsageError(f"--other-students stands beside plain students: give one plain evaluator, not {names}")


def progress(part, what):
    """Say on stderr what is being measured."""
    click.echo(f"{part}: {what}", err=True)


@dataclass(frozen=True)
class Report:
    """What has been found so far, and the folder where it is written."""

    folder: Path
    settings: Settings
    machine: dict
    figures: list

    def write(self):
        """Write both files anew."""
        asked = {"dataset": self.settings.dataset, "repeats": f"{self.settings.repeats} rounds"}
        whole = {"machine": self.machine, "asked": asked, "figures": as_json(self.figures)}
        (self.folder / "speed.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        (self.folder / "speed.md").write_text(self.text() + "\n")

    def text(self):
        """The machine in a line, and the tables."""
        machine = "; ".join(f"{name}: {value}" for name, value in self.machine.items())
        asked = f"{self.settings.dataset}; {self.settings.repeats} rounds; medians (extremes, n measurements)"
        return f"{machine}\n\n{asked}\n\n{as_tables(self.figures)}"


if __name__ == "__main__":
    main()
