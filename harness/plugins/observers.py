"""Observers: hooks that are notified of the work; whatever one does (raise, hang, be slow), the work goes on."""

import copy
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import error_line

PATIENCE = 2.0
"""Seconds that a process waits in all for one plugin's observers, so that quick ones run before the next event."""
LAST_PATIENCE = 5.0
"""Seconds that a process waits once for delayed observers when the work is done."""
MOST_COMPLAINTS = 3
"""Highest number of complaints about one plugin: ten thousand cells must not produce ten thousand lines."""

Hook = Callable[..., object]


class Listener:
    """The observers of one plugin, called in the order of events by a thread of their own."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self._events: queue.SimpleQueue[tuple[str, Hook, Mapping[str, Any]]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._behind, self._patience, self._is_dropped = 0, PATIENCE, False
        self._complaints: list[str] = []
        self._count = 0
        # A daemon, since an observer that hangs must not keep the process alive after the work is done.
        threading.Thread(target=self._listen, name=f"observers of {plugin}", daemon=True).start()

    def notify(self, hook: str, function: Hook, arguments: Mapping[str, Any]) -> None:
        """Call an observer; wait for it unless a previous call is still running or the patience is used up."""
        if self._is_dropped:
            return
        with self._changed:
            was_behind, self._behind = self._behind > 0, self._behind + 1
        self._events.put((hook, function, arguments))
        if not was_behind:
            self._patience -= self._wait(self._patience)

    def finish(self) -> None:
        """Wait for delayed observers; those that are still running then receive no further events."""
        if not self._is_dropped:
            self._wait(LAST_PATIENCE)
            if self._behind:
                self._is_dropped = True
                events = f"{self._behind} event{'s' * (self._behind > 1)}"
                self._complain(f"observers of plugin {self.plugin!r} are too slow: {events} did not reach them")

    def complaints(self) -> list[str]:
        """Return what went wrong since the last call, a line each."""
        with self._changed:
            lines, self._complaints = self._complaints, []
        return lines

    def _wait(self, seconds: float) -> float:
        """Wait until all calls are finished, but at most so many seconds; return the seconds that it took."""
        begun = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._behind == 0, max(0.0, seconds))
        return time.monotonic() - begun

    def _listen(self) -> None:
        while True:
            hook, function, arguments = self._events.get()
            try:
                function(**arguments)
            except BaseException as error:  # nothing of an observer's may end the thread, or the run
                self._complain(f"{hook} of plugin {self.plugin!r} raised {_described(error)}")
            with self._changed:
                self._behind -= 1
                self._changed.notify_all()

    def _complain(self, line: str) -> None:
        with self._changed:
            self._count += 1
            if self._count <= MOST_COMPLAINTS:
                more = (
                    " (further complaints of this plugin's observers are not shown)"
                    if self._count == MOST_COMPLAINTS
                    else ""
                )
                self._complaints.append(line + more)


class Observers:
    """The observers of all plugins, as one process notifies them."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[int, str], Listener] = {}
        self._lock = threading.Lock()

    def notify(self, plugin: str, hook: str, function: Hook, arguments: Mapping[str, Any]) -> list[str]:
        """Notify a plugin of an event with a copy of its arguments; return what went wrong, a line each."""
        listener = self._of(plugin)
        # A deep copy: an observer on another thread would otherwise read, or change, a record while the run uses it.
        listener.notify(hook, function, copy.deepcopy(dict(arguments)))
        return listener.complaints()

    def finish(self) -> list[str]:
        """Wait within limits for slow observers when the work is done; return what went wrong, a line each."""
        lines = []
        for listener in self._of_this_process():
            listener.finish()
            lines += listener.complaints()
        return lines

    def _of(self, plugin: str) -> Listener:
        """Return the listeners of a plugin in this process: threads do not survive a fork."""
        with self._lock:
            key = (os.getpid(), plugin)
            if key not in self._listeners:
                self._listeners[key] = Listener(plugin)
            return self._listeners[key]

    def _of_this_process(self) -> list[Listener]:
        with self._lock:
            return [listener for (process, _), listener in self._listeners.items() if process == os.getpid()]


def _described(error: BaseException) -> str:
    try:
        return repr(error)
    except BaseException:  # the exception's own code
        return error_line(error)
