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
MOST_BEHIND = 256
"""Calls that may wait for an observer; while there are as many, steps are dropped."""
FIRST_STEPS, STEPS_A_SECOND = 200, 10.0
"""Steps of a set that observers hear of at once, and how many more for each second: toy methods take thousands."""
MOST_COMPLAINTS = 3
"""Highest number of complaints about one plugin: ten thousand cells must not produce ten thousand lines."""

Hook = Callable[..., object]
STEP = "step"
"""The hook whose calls may be dropped, for the next one says nearly the same."""


class StepPace:
    """Decides which steps observers hear of: all of a short distillation, some of a long one."""

    def __init__(self) -> None:
        self._key, self._credit, self._last = "", 0.0, 0.0

    def is_due(self, key: str, is_last: bool) -> bool:
        """Return whether a step of the set with this key is passed on; the last one always is."""
        now = time.monotonic()
        if key != self._key:
            self._key, self._credit, self._last = key, float(FIRST_STEPS), now
        self._credit = min(FIRST_STEPS, self._credit + STEPS_A_SECOND * (now - self._last))
        self._last = now
        if self._credit < 1 and not is_last:
            return False
        self._credit -= 1
        return True


class Listener:
    """The observers of one plugin, called in the order of events by a thread of their own."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self._events: queue.SimpleQueue[tuple[str, Hook, Mapping[str, Any]]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._behind, self._patience, self._is_dropped, self._skips_steps = 0, PATIENCE, False, False
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

    def has_room(self) -> bool:
        """Return whether a step may be queued."""
        return not self._is_dropped and self._behind < MOST_BEHIND

    def put_step(self, function: Hook, arguments: Mapping[str, Any]) -> None:
        """Queue a step without waiting for the observer: steps come too often for that."""
        with self._changed:
            self._behind += 1
        self._events.put((STEP, function, arguments))

    def finish(self) -> None:
        """Wait for delayed observers; those that are still running then receive no further events."""
        if not self._is_dropped:
            self._wait(LAST_PATIENCE / 2)
            # Steps that wait must not cost the observer the events behind them.
            self._skips_steps = True
            self._wait(LAST_PATIENCE / 2)
            self._skips_steps = False
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
                if hook != STEP or not self._skips_steps:
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
        if hook == STEP:
            if listener.has_room():
                listener.put_step(function, copy.deepcopy(dict(arguments)))
            return listener.complaints()
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

    def dismiss(self, plugin: str) -> list[str]:
        """Wait within limits for one plugin's observers, and forget it; return what went wrong, a line each."""
        listener = self._of(plugin)
        listener.finish()
        with self._lock:
            del self._listeners[os.getpid(), plugin]
        return listener.complaints()

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
