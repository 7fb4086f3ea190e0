"""The contract of trackers."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import SkipTest

from harness.errors import UsageError
from harness.plugins.tracker import Tracker
from harness.testing.contract import Contract
from harness.testing.small import small_problem, small_set

_CELLS: tuple[Mapping[str, Any], ...] = tuple(
    {"key": letter * 64, "kind": "distilled", "label": f"dm on digits, ipc {letter}/1", "identity": {"iterations": 3}}
    for letter in "ab"
)


class TrackerContract(Contract):
    """The obligations of every tracker, in an empty working folder."""

    kind = "tracker"

    def test_follows_a_distillation(self) -> None:
        """It takes the events of a set from its start to its end, a loss that is NaN among them."""
        with self._tracker() as tracker:
            self._follow(tracker, [_CELLS[0]])

    def test_follows_cells_side_by_side(self) -> None:
        """It takes the events of two sets in turns, and that one fails."""
        with self._tracker() as tracker:
            self._follow(tracker, _CELLS)
            tracker.cell_started(_CELLS[0])
            tracker.cell_finished(_CELLS[0], {"status": "failed", "reason": "no luck"})

    def test_takes_any_end(self) -> None:
        """It may be closed before anything has happened, or in the middle of a distillation."""
        with self._tracker():
            pass
        with self._tracker() as tracker:
            tracker.cell_started(_CELLS[0])
            tracker.step(_CELLS[0], 1, {"loss": 1.0})

    def _follow(self, tracker: Tracker[Any], cells: Sequence[Mapping[str, Any]]) -> None:
        for cell in cells:
            tracker.cell_started(cell)
        for iteration in (1, 2, 3):
            for cell in cells:
                tracker.step(cell, iteration, {"loss": 1.0 / iteration, "lost": float("nan")})
        for cell in cells:
            tracker.set_finished(cell, small_set(small_problem(), 1))
            tracker.cell_finished(cell, {"kind": "distilled", "result": {"status": "done"}})

    @contextlib.contextmanager
    def _tracker(self) -> Iterator[Tracker[Any]]:
        resolved = self.resolved()
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            try:
                tracker: Tracker[Any] = resolved.make()
            except UsageError as error:  # the package that it writes with is optional
                raise SkipTest(str(error)) from None
            yield tracker
            tracker.close()
