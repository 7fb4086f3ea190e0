"""Signals that really came: notes of them distinguish Ctrl-C from a KeyboardInterrupt that a plugin raises itself."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[[int, Any], object]


class _State:
    """The signals that this process has had."""

    # Of the process and not of a run: the system has one handler for each signal of a process, and Python calls it in
    # the main thread, whatever that is doing.
    came = False
    handlers: set[object] = set()
    """The handlers that note every signal: only while one of them is in place does silence mean that none came."""


def note_signal() -> None:
    """Note that SIGINT or SIGTERM came; every handler of the harness calls this."""
    _State.came = True


@contextmanager
def noted_by(handler: Handler) -> Iterator[None]:
    """Forget earlier signals: from now on ``handler``, which is in place for SIGINT, notes each one."""
    _State.came = False
    _State.handlers.add(handler)
    try:
        yield
    finally:
        _State.handlers.discard(handler)
        _State.came = False


@contextmanager
def interrupts_noted() -> Iterator[None]:
    """Note Ctrl-C for a while: Python's own handler raises KeyboardInterrupt and leaves no other trace.

    It does nothing if another handler is in place, or in a thread that is not the main one.
    """
    if not _is_main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def on_signal(number: int, frame: Any) -> None:  # noqa: ANN401
        note_signal()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, on_signal)
    try:
        with noted_by(on_signal):
            yield
    finally:
        if signal.getsignal(signal.SIGINT) is on_signal:  # otherwise the code that was called has set its own
            signal.signal(signal.SIGINT, signal.default_int_handler)


def is_from_outside() -> bool:
    """Return whether a KeyboardInterrupt that was just caught may come from a signal.

    It does not if no signal was noted by a handler that would have noted it; other threads get no signal at all.
    """
    # What a script starts in the background ignores SIGINT: no KeyboardInterrupt comes from a signal then.
    noting = (*_State.handlers, signal.SIG_IGN)
    is_noted = not _is_main_thread() or signal.getsignal(signal.SIGINT) in noting
    return _State.came or not is_noted


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
