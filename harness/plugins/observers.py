"""Observers: hooks that hear of the work. Whatever one does, be it to raise, hang or be slow, the work goes on."""

import copy
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import error_line

PATIENCE = 2.0
"""Seconds that a process waits in all for the observers of one plugin, so that quick ones are heard in order."""
LAST_PATIENCE = 5.0
"""Seconds that it waits, once, for observers that are behind when the work is done."""
MOST_COMPLAINTS = 3
"""Lines about one plugin: an observer that raises at each of ten thousand cells is not worth as many."""

Hook = Callable[..., object]


class Ears:
    """The observers of one plugin, called in the order of events by a thread of their own."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self._events: queue.SimpleQueue[tuple[str, Hook, Mapping[str, Any]]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._behind, self._patience, self._is_deaf = 0, PATIENCE, False
        self._complaints: list[str] = []
        self._count = 0
        threading.Thread(target=self._listen, name=f"observers of {plugin}", daemon=True).start()

    def tell(self, hook: str, function: Hook, arguments: Mapping[str, Any]) -> None:
        """Call an observer, and wait for it if none is behind and the patience with this plugin is not used up."""
        if self._is_deaf:
            return
        with self._changed:
            was_behind, self._behind = self._behind > 0, self._behind + 1
        self._events.put((hook, function, arguments))
        if not was_behind:
            self._patience -= self._wait(self._patience)

    def finish(self) -> None:
        """Wait for those that are behind; who still is then hears no more."""
        if not self._is_deaf:
            self._wait(LAST_PATIENCE)
            if self._behind:
                self._is_deaf = True
                events = f"{self._behind} event{'s' * (self._behind > 1)}"
                self._complain(f"observers of plugin {self.plugin!r} are too slow: {events} they did not hear of")

    def complaints(self) -> list[str]:
        """What went wrong since the last call."""
        with self._changed:
            lines, self._complaints = self._complaints, []
        return lines

    def _wait(self, seconds: float) -> float:
        """Wait until none is behind, but no longer than that; the seconds that it took."""
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
                more = " (no more is said of this plugin's observers)" if self._count == MOST_COMPLAINTS else ""
                self._complaints.append(line + more)


class Observers:
    """The observers of all plugins, as one process tells them."""

    def __init__(self) -> None:
        self._ears: dict[tuple[int, str], Ears] = {}
        self._lock = threading.Lock()

    def tell(self, plugin: str, hook: str, function: Hook, arguments: Mapping[str, Any]) -> list[str]:
        """Have a plugin hear of an event, of which it gets a copy; what went wrong, a line each."""
        ears = self._of(plugin)
        ears.tell(hook, function, copy.deepcopy(dict(arguments)))
        return ears.complaints()

    def finish(self) -> list[str]:
        """The work is done: wait for the slow ones, within limits; what went wrong, a line each."""
        lines = []
        for ears in self._here():
            ears.finish()
            lines += ears.complaints()
        return lines

    def _of(self, plugin: str) -> Ears:
        """Those of a plugin in this process: a thread does not follow a fork."""
        with self._lock:
            key = (os.getpid(), plugin)
            if key not in self._ears:
                self._ears[key] = Ears(plugin)
            return self._ears[key]

    def _here(self) -> list[Ears]:
        with self._lock:
            return [ears for (process, _), ears in self._ears.items() if process == os.getpid()]


def _described(error: BaseException) -> str:
    try:
        return repr(error)
    except BaseException:  # the exception's own code
        return error_line(error)
