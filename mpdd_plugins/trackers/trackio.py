"""Trackio: experiment tracking on this machine."""

from collections.abc import Mapping
from typing import Any

from harness import Options, option
from mpdd_plugins.trackers.runs import RunTracker


class TrackioOptions(Options):
    """Options of `Trackio`."""

    project: str = option("ddbench", "the project, for `trackio show --project`")


class Trackio(RunTracker[TrackioOptions]):
    """Logs the curves of each distilled set to a local Trackio project."""

    Options = TrackioOptions
    needs = {"trackio": "ddbench[trackio]"}

    def start(self, name: str, cell: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Start a run, or go on with that of an interrupted distillation."""
        import trackio

        config = {"key": cell["key"], "label": cell["label"]}
        return trackio.init(self.options.project, name, config=config, resume="allow", embed=False)
