"""Weights & Biases, offline unless it is asked to be online."""

from collections.abc import Mapping
from typing import Any, Literal

from harness import Options, option
from mpdd_plugins.trackers.runs import RunTracker


class WandbOptions(Options):
    """Options of `Wandb`."""

    project: str = option("ddbench", "the project")
    mode: Literal["offline", "online"] = option("offline", "offline: into files, for `wandb sync`; online: to a server")
    folder: str = option(".", "the folder in which the folder wandb is made")


class Wandb(RunTracker[WandbOptions]):
    """Logs the curves of each distilled set to a run of Weights & Biases."""

    Options = WandbOptions
    needs = {"wandb": "ddbench[wandb]"}

    def start(self, name: str, cell: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Start a run."""
        import wandb

        return wandb.init(
            project=self.options.project,
            name=name,
            config={"key": cell["key"], "label": cell["label"]},
            mode=self.options.mode,
            dir=self.options.folder,
            reinit="create_new",
            # Its console capture would replace stdout under the run, and its handlers Ctrl-C.
            settings=wandb.Settings(console="off", silent=True),
        )
