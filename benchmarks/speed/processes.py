"""Every measurement is done by a process of its own, which prints a line of JSON for each thing that it found."""

import json
import math
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

OURS = ("ddbench", "eager torch")
"""Names that stand in the tables already."""
TIMED = Path(__file__).parent / "timed"


class Failed(click.ClickException):
    """A process did not do what it was started for: one line says which and why."""


@dataclass(frozen=True)
class Other:
    """Another implementation: a command that users have on their machine, with ``{...}`` for what is asked of it."""

    name: str
    command: str

    @classmethod
    def parse(cls, text, wanted):
        """From NAME=COMMAND; ``wanted`` are the words that the command has to take."""
        name, equals, command = text.partition("=")
        name = name.strip()
        if not equals or not name or not command.strip():
            raise click.UsageError(f"{text!r} is not NAME=COMMAND")
        if name in OURS or " / " in name or ", " in name:
            raise click.UsageError(f"{name!r} is a name in our tables: give another one")
        for word in wanted:
            if f"{{{word}}}" not in command:
                raise click.UsageError(f"the command of {name!r} has no {{{word}}}, so it cannot be filled in")
        try:
            shlex.split(command)
        except ValueError as error:
            raise click.UsageError(f"the command of {name!r} cannot be read: {error}") from None
        return cls(name, command)

    def seconds(self, **asked):
        """Run it; the seconds of the ``count`` lines that it prints."""
        words = shlex.split(self.command)
        for key, value in asked.items():
            words = [word.replace(f"{{{key}}}", str(value)) for word in words]
        seconds = [line["seconds"] for line in lines_of(self.name, words) if "seconds" in line]
        if len(seconds) != asked["count"]:
            raise Failed(f"{self.name} printed {len(seconds)} lines with seconds, not {asked['count']}")
        for value in seconds:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise Failed(f"{self.name} printed {value!r} as seconds")
        return seconds


def timed(script, **request):
    """The lines of one of our own processes."""
    return lines_of(f"ddbench ({script})", [sys.executable, str(TIMED / f"{script}.py"), json.dumps(request)])


def lines_of(name, words):
    """Run a command to its end; each line of its stdout that is a JSON object."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise Failed(f"{name} cannot be started: {error}") from None
    if done.returncode:
        output = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        last = next(reversed(done.stderr.strip().splitlines() or output), "it said nothing")
        raise Failed(f"{name} ended with exit status {done.returncode}: {last}")
    return [line for line in map(_object, done.stdout.splitlines()) if line is not None]


def _object(line):
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def alternating(rounds, *works):
    """Do the works in turn, so many rounds: for each, the list of all that its rounds found."""
    values = [[] for _ in works]
    for _ in range(rounds):
        for work, so_far in zip(works, values, strict=True):
            so_far.extend(work())
    return values
