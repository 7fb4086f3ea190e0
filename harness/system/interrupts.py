"""Requests to stop: Ctrl-C, or SIGTERM from whoever manages the machine.

After the first one a trajectory finishes its step and saves what it has; any other work stops at once, for everything
that is finished is in the store. After the second one all work stops at once.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from harness.system import signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INSIST_SECONDS = 1.0
FINISHING = "finishing this step; once more stops at once"
AT_ONCE = "stopped at once; the same command goes on from what was kept"
KEPT = "stopped; the same command goes on from what was kept"


class Stopped(KeyboardInterrupt):
    """Raised when work was asked to stop and has saved what it had; the message says how to go on."""


@dataclass
class _StopRequests:
    """The requests to stop that one run has had, and what it was doing then.

    Attributes:
        in_steps: the work goes in steps that are worth finishing.
        stop_requested: the first request has come.
        at_once: the work has to stop at once.
        insists: a request that takes no effect is raised again.
    """

    in_steps: bool = False
    stop_requested: bool = False
    at_once: bool = False
    insists: bool = False


# One object for each run, but reached through the module: the system calls a signal handler whatever is at work then,
# and code deep in a method's step has no run to ask. A process has one handler for a signal, so one object is enough.
_current: _StopRequests | None = None


@contextmanager
def handle_signals(notice: Callable[[str], object]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM for a while, then leave them to whoever had them before.

    Within another such context, and in a thread that is not the main one, it does nothing.

    Args:
        notice: called with a line for the user if the work does not stop at once.
    """
    global _current
    # Python runs signal handlers in the main thread only, and refuses to set them from another.
    if _current is not None or not _is_main_thread():
        yield
        return
    requests = _StopRequests()

    def on_signal(_number: int, _frame: object) -> None:
        signals.note_signal()
        if not requests.in_steps or requests.stop_requested:
            before.setdefault(signal.SIGALRM, signal.getsignal(signal.SIGALRM))
            _stop_at_once(requests)
        requests.stop_requested = True
        # The signal may come in the midst of a print, and a buffered stream cannot be entered again by its own thread.
        with contextlib.suppress(RuntimeError):
            notice(FINISHING)

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    _current = requests
    try:
        with signals.noted_by(on_signal):
            yield
    finally:
        if requests.at_once:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            # None: a handler that C code had set, which Python cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _current = None


@contextmanager
def reraise_until_effective() -> Iterator[None]:
    """Re-raise a request to stop until it takes effect.

    C++ may swallow an exception that is raised in Python code that it has called, as a compiled network calls an
    operation, or turn it into another one. So the exception is raised again after a while, and an error that came
    meanwhile does not count.
    """
    requests = _current
    if requests is None or not _is_main_thread():
        yield
        return
    before, requests.insists = requests.insists, True
    try:
        yield
    except Exception as error:
        if requests.at_once:
            raise Stopped(AT_ONCE) from error
        raise
    finally:
        requests.insists = before
        if requests.at_once:
            signal.setitimer(signal.ITIMER_REAL, 0)
    heed_at_once()


def _stop_at_once(requests: _StopRequests) -> NoReturn:
    requests.at_once = True
    if requests.insists:
        # A timer of the system, and not a thread: only a signal interrupts the main thread within a call into C++.
        signal.signal(signal.SIGALRM, _on_alarm)
        signal.setitimer(signal.ITIMER_REAL, INSIST_SECONDS)
    raise Stopped(AT_ONCE)


def _on_alarm(_number: int, _frame: object) -> None:
    # The alarm may have been on its way when the work ended: then there is nobody left to stop.
    if _current is not None and _current.insists and _current.at_once:
        _stop_at_once(_current)


@contextmanager
def steps() -> Iterator[None]:
    """Mark work in steps that are worth finishing: it asks after each whether `stop_requested`."""
    requests = _current
    if requests is None or not _is_main_thread():
        yield
        return
    before, requests.in_steps = requests.in_steps, True
    try:
        yield
    finally:
        requests.in_steps = before


def stop_requested() -> bool:
    """Return whether the work at hand was asked to stop."""
    return _current is not None and _current.stop_requested


def heed() -> None:
    """Raise `Stopped` if the work was asked to stop; for work that has just saved what it had."""
    if stop_requested():
        raise Stopped(KEPT)


def heed_at_once() -> None:
    """Raise `Stopped` if the work had to stop at once but goes on: nothing that it gives may be stored."""
    if _current is not None and _current.at_once:
        raise Stopped(AT_ONCE)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
