"""A message about code that ends this process or never returns, such as a plugin that calls ``os._exit``.

No ``except`` clause sees the end of the process, so another process waits for it: a shell that reads from a pipe of
which this process holds the other end.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SLOW_SECONDS = 20.0
"""Seconds after which a slow import is reported: torch alone takes some seconds."""
_REMEDY = "`ddbench --no-plugins` leaves plugins out"
_SCRIPT = 'read -r line || printf "%s\\n" "$0" >&2'


class _State:
    """The state of this process: stderr belongs to all of it, so one switch has to silence every thread."""

    is_silent = False


def leave_words_to_others() -> None:
    """Print nothing from now on: the process that started this one reports how it ended."""
    _State.is_silent = True


@contextmanager
def last_words(what: str, is_harmless: bool = False) -> Iterator[None]:
    """Report on stderr if this process ends or hangs within the block.

    Args:
        what: the end of a sentence: ``plugin 'x' of x was imported``.
        is_harmless: whether the code is trusted, so that no process has to wait for it.
    """
    if is_harmless or _State.is_silent:
        yield
        return
    words = "".join(letter if letter.isprintable() else "?" for letter in what)
    slow = threading.Timer(SLOW_SECONDS, _say, [f"still waiting: {words} {SLOW_SECONDS:g} s ago; {_REMEDY}"])
    slow.daemon = True
    slow.start()
    witness = _witness(f"ddbench: error: the process ended while {words}; {_REMEDY}")
    try:
        yield
    finally:
        slow.cancel()
        if witness:
            with suppress(OSError):  # it was killed
                witness.communicate(b"\n")


def _witness(line: str) -> "subprocess.Popen[bytes] | None":
    """Start a process that prints a line if this one ends without writing to it; None if there is no shell."""
    command = ["/bin/sh", "-c", _SCRIPT, line]
    try:
        # In a session of its own: Ctrl-C in the terminal must not end the witness together with this process.
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    except OSError:
        return None


def _say(line: str) -> None:
    print(f"ddbench: {line}", file=sys.stderr, flush=True)
