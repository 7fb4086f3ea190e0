"""Being asked to stop: Ctrl-C, or SIGTERM from whoever manages the machine.

The first time, a trajectory finishes its step and keeps what it has; any other work stops at once, for all that is
finished is in the store. The second time everything stops at once.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from harness.system import signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INSIST_SECONDS = 1.0
FINISHING = "finishing this step; once more stops at once"
AT_ONCE = "stopped at once; the same command goes on from what was kept"
KEPT = "stopped; the same command goes on from what was kept"


class Stopped(KeyboardInterrupt):
    """Work that was asked to stop, and has kept what it had; the message says how to go on."""


class _State:
    """Of this process: signals come to its main thread only."""

    handled = False
    steps = False
    asked = False
    at_once = False
    insists = False


@contextmanager
def handled(tell: Callable[[str], object]) -> Iterator[None]:
    """Hear SIGINT and SIGTERM for a while, then leave them to whoever had them before.

    Within another such context, and in a thread that is not the main one, it does nothing.

    Args:
        tell: told what happens now, where the work does not stop at once.
    """
    if _State.handled or not _is_main_thread():
        yield
        return

    def on_signal(_number: int, _frame: object) -> None:
        signals.note_signal()
        if not _State.steps or _State.asked:
            before.setdefault(signal.SIGALRM, signal.getsignal(signal.SIGALRM))
            _stop_at_once()
        _State.asked = True
        with contextlib.suppress(RuntimeError):  # it came while a line was being written to the same place
            tell(FINISHING)

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    _State.handled = True
    try:
        with signals.noted_by(on_signal):
            yield
    finally:
        if _State.at_once:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _State.handled = _State.asked = _State.at_once = _State.insists = False


@contextmanager
def insisted() -> Iterator[None]:
    """Work that stops at once where it was asked to, even where the first word of it is lost.

    What a signal raises in Python code that C++ has called, as a compiled network calls an operation, comes out as
    another error, or not at all. So it is raised again after a while, and no error counts that came meanwhile.
    """
    if not _State.handled or not _is_main_thread():
        yield
        return
    before, _State.insists = _State.insists, True
    try:
        yield
    except Exception as error:
        if _State.at_once:
            raise Stopped(AT_ONCE) from error
        raise
    finally:
        _State.insists = before
        if _State.at_once:
            signal.setitimer(signal.ITIMER_REAL, 0)
    heed_at_once()


def _stop_at_once() -> NoReturn:
    _State.at_once = True
    if _State.insists:
        signal.signal(signal.SIGALRM, _on_alarm)
        signal.setitimer(signal.ITIMER_REAL, INSIST_SECONDS)
    raise Stopped(AT_ONCE)


def _on_alarm(_number: int, _frame: object) -> None:
    if _State.insists and _State.at_once:
        _stop_at_once()


@contextmanager
def steps() -> Iterator[None]:
    """Work in steps that are worth finishing: it looks after each whether it was `asked` to stop."""
    if not _is_main_thread():
        yield
        return
    before, _State.steps = _State.steps, True
    try:
        yield
    finally:
        _State.steps = before


def asked() -> bool:
    """Whether the work in hand was asked to stop."""
    return _State.asked


def heed() -> None:
    """Raise `Stopped` where the work was asked to stop, and has just kept what it had."""
    if _State.asked:
        raise Stopped(KEPT)


def heed_at_once() -> None:
    """Raise `Stopped` where the work was to stop at once, but goes on: nothing that it gives may be kept."""
    if _State.at_once:
        raise Stopped(AT_ONCE)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
