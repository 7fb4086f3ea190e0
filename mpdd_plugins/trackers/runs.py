"""What Trackio and Weights & Biases have in common: a run for each distilled set, to which scalars are logged."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from harness import Options, Tracker

O = TypeVar("O", bound=Options)  # noqa: E741


class RunTracker(Tracker[O]):
    """Starts a run when a set logs its first scalars, and finishes it with the set."""

    def __init__(self, options: O) -> None:
        super().__init__(options)
        self._runs: dict[str, Any] = {}

    @abstractmethod
    def start(self, name: str, cell: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Start the run of a set, which has ``log`` and ``finish``."""

    def step(self, cell: Mapping[str, Any], iteration: int, scalars: Mapping[str, float]) -> None:
        """Log the scalars."""
        if cell["key"] not in self._runs:
            self._runs[cell["key"]] = self.start(self.run_name(cell), cell)
        self._runs[cell["key"]].log(dict(scalars), step=iteration)

    def cell_finished(self, cell: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Finish the run of the set."""
        if run := self._runs.pop(cell["key"], None):
            run.finish()

    def close(self) -> None:
        """Finish all runs."""
        while self._runs:
            self._runs.popitem()[1].finish()
