"""Whether a signal really came: by it Ctrl-C is told apart from a KeyboardInterrupt that a plugin raises itself."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[[int, Any], object]


class _State:
    """Of this process: signals come to its main thread only."""

    came = False
    handlers: set[object] = set()
    """The handlers in place that note what comes, by which an absence means something."""


def note_signal() -> None:
    """Note that SIGINT or SIGTERM came; every handler of the harness does."""
    _State.came = True


@contextmanager
def noted_by(handler: Handler) -> Iterator[None]:
    """Forget what came before: from now on ``handler``, which is in place for SIGINT, notes what comes."""
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

    Where another handler is in place, and in a thread that is not the main one, it does nothing.
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
        if signal.getsignal(signal.SIGINT) is on_signal:  # else what was called has set its own
            signal.signal(signal.SIGINT, signal.default_int_handler)


def is_from_outside() -> bool:
    """Whether a KeyboardInterrupt that was just caught may come from a signal.

    It does not if no signal was noted by a handler that would have noted it; other threads get no signal at all.
    """
    # What a script starts in the background ignores SIGINT: no KeyboardInterrupt comes from a signal then.
    noting = (*_State.handlers, signal.SIG_IGN)
    is_noted = not _is_main_thread() or signal.getsignal(signal.SIGINT) in noting
    return _State.came or not is_noted


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
