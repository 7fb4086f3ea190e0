"""Base class of trackers: observers with options, which a run asks for by name (``--track tensorboard``)."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from harness.system.packages import require_packages
from harness.types.options import Options

if TYPE_CHECKING:  # a tracker of scalars needs no torch
    from harness.types.distilled import DistilledSet

O = TypeVar("O", bound=Options)  # noqa: E741
_LONGEST_NAME = 150


class Tracker(ABC, Generic[O]):
    """A tracker shows the course of distillations: it hears what observers hear, and decides no number.

    Its methods are called in order by a thread of their own, in the process that does the work; see the hooks of
    the same names. Several cells may be at work between two calls about one of them.
    """

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on."""
    needs: ClassVar[Mapping[str, str]] = {}
    """By module that it imports, what pip installs it from: ``{"tensorboard": "ddbench[tensorboard]"}``."""

    def __init__(self, options: O) -> None:
        self.options = options
        require_packages(type(self).__name__, self.needs)

    @abstractmethod
    def step(self, cell: Mapping[str, Any], iteration: int, scalars: Mapping[str, float]) -> None:
        """Receive what a method logged at an iteration; a scalar may be NaN."""

    def cell_started(self, cell: Mapping[str, Any]) -> None:
        """Receive that work on a cell begins."""

    def set_finished(self, cell: Mapping[str, Any], distilled: "DistilledSet") -> None:
        """Receive a distilled set that is in the store."""

    def cell_finished(self, cell: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Receive the record of a cell, or ``{"status": "failed", "reason": ...}``."""

    def close(self) -> None:
        """Finish what is open: the work of this process is done."""

    @staticmethod
    def run_name(cell: Mapping[str, Any]) -> str:
        """Return a name for what a tracker calls a run: the cell's label and key, fit to be a file's name."""
        label = re.sub(r"[^A-Za-z0-9_.=+]+", "-", str(cell["label"])).strip("-.")
        return f"{label[:_LONGEST_NAME]}-{cell['key'][:8]}"
