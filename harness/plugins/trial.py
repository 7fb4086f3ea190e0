"""A trial import of a plugin in a process of its own, where it can do no harm.

``python -c`` rather than ``-m``: the process imports the same modules as this one, whatever folder it is started in.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import PluginError
from harness.plugins import discovery
from harness.plugins.last_words import leave_words_to_others

_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from harness.plugins.trial import import_all
import_all(*sys.argv[2:])
"""
_LINES, _BYTES = 20, 20_000


@dataclass(frozen=True)
class Trial:
    """The result of a trial import.

    Attributes:
        failure: at what and how the process ended too early; empty if it came to its end, which does not mean that the
            plugin could be imported: its row says so.
        printed: the last lines that the process printed.
    """

    failure: str
    printed: tuple[str, ...]


def tried(row: discovery.PluginRow, seconds: float) -> Trial:
    """Import a plugin and every class that it registers in a child process; return the result.

    Args:
        row: the row of the plugin, which need not be loaded here.
        seconds: the time limit.
    """
    with tempfile.TemporaryDirectory(prefix="ddbench-trial-") as folder:
        stage, output = Path(folder) / "stage", Path(folder) / "output"
        # The path is handed over: an editable install or a .pth file may have extended it only in this process.
        words = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), row.distribution, row.name, str(stage)]
        environment = {**os.environ, discovery.VARIABLE: f"{row.distribution},{row.name}"}
        with output.open("wb") as file:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )
            failure = _end_of(child, seconds)
        at = stage.read_text() if stage.exists() else ""
        return Trial(f"{at or 'starting Python'} {failure}" if at != _DONE else "", tuple(_last_lines(output)))


def _end_of(child: "subprocess.Popen[bytes]", seconds: float) -> str:
    """Wait for a process within a limit, end everything that it started, and describe how it ended."""
    try:
        status = child.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"takes longer than {seconds:g} s (--timeout)"
    finally:
        _kill_session(child.pid)
        child.wait()
    if status >= 0:
        return f"ended its process with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"ended its process by {name}"


def _kill_session(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _last_lines(output: Path) -> Iterator[str]:
    with output.open("rb") as file:
        # A plugin may print gigabytes; only its last lines say why it failed.
        file.seek(max(0, output.stat().st_size - _BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    for line in [line for line in lines if line.strip()][-_LINES:]:
        yield "".join(letter if letter.isprintable() else "?" for letter in line)


_DONE = "done"


def import_all(distribution: str, name: str, stage: str) -> None:
    """Import the entry point and its classes in the child process, noting each step in the file ``stage``."""
    leave_words_to_others()
    note = Path(stage).write_text
    note("importing it")
    loaded = discovery.plugins()  # of the harness and this one alone
    for entry in loaded.registry.entries:
        if (entry.provider, entry.plugin) == (distribution, name):
            note(f"importing {entry.target!r} for its {entry.kind} {entry.name!r}")
            try:
                entry.load()
            except PluginError as error:
                print(error, file=sys.stderr)  # the contract says so too, with its name
    note(_DONE)
