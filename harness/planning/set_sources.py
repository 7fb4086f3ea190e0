"""Where distilled sets come from, and one way to get them: a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.plugins.code_digest import package_digest
from harness.store.cells import Cell
from harness.types.distilled import DistilledSet
from harness.types.names import Name, name_or_text
from harness.types.problem import Problem


def machinery_digests() -> dict[str, str]:
    """Return the digests of the code that every number rests on, beside that of its components."""
    return {room: package_digest(room) for room in ("harness.learning", "harness.compute")}


def status_of(distilled: DistilledSet) -> str:
    """What became of a set's distillation, as far as the set itself tells."""
    status = distilled.provenance.get("status")
    return status if isinstance(status, str) else "done"


class Source(Protocol):
    """One way to get distilled sets of a problem."""

    @property
    def problem(self) -> Problem:
        """The real data."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    @property
    def precision(self) -> str | None:
        """Of the distillation; None where that is not known."""
        ...

    @property
    def status(self) -> str:
        """The state of a set that the store does not hold."""
        ...

    @property
    def images(self) -> int:
        """How many images a set has."""
        ...

    @property
    def training_images(self) -> int | None:
        """Number of real images that a set is distilled from; None if that is not known."""
        ...

    @property
    def main(self) -> Name | None:
        """The pool's main architecture; None if there is none or it is not known."""
        ...

    @property
    def storage_floats(self) -> int | None:
        """How many numbers a set takes; None if only the record of a set can tell."""
        ...

    @property
    def names(self) -> Mapping[str, Name]:
        """The names of the data set, the method and the pool by kind; a kind that it lacks is missing."""
        ...

    def describe(self, iterations: int | None) -> dict[str, Any]:
        """``dataset``, ``ipc``, ``iterations``, ``method`` and ``pool`` as they stand in tables."""
        ...

    def set_cell(self, distillation: int, iterations: int | None) -> Cell:
        """The cell of a distilled set."""
        ...


def training_of(source: Source) -> dict[str, Any]:
    """For records: how many real images sets are distilled from, and which split is not among them."""
    return {"training_images": source.training_images, "hold_out": hold_out_of(source)}


def hold_out_of(source: Source) -> dict[str, int | None] | None:
    """For rows and records: the validation split that was cut from the training set; None if nothing was."""
    hold_out = source.problem.hold_out
    return hold_out.as_json() if hold_out else None


@dataclass(frozen=True, eq=False)
class FileSource:
    """One distilled set that lies in a file.

    Attributes:
        part: what the set lacks, in a line, as records of its students hold it; None if it is a whole set.
    """

    problem: Problem
    distilled: DistilledSet
    digest: str
    name: str
    seed: int
    part: str | None = None

    @property
    def precision(self) -> None:
        """Not known: what a file says of it is not checked."""

    @property
    def status(self) -> str:
        """What the file says became of the distillation."""
        return status_of(self.distilled)

    @property
    def main(self) -> None:
        """Not known."""

    @property
    def storage_floats(self) -> int:
        """Of the set in the file."""
        return self.distilled.storage_floats

    @property
    def images(self) -> int:
        """How many a student trains on."""
        return len(self.distilled.training_data()[0])

    @property
    def training_images(self) -> None:
        """Not known: the file does not tell."""

    @property
    def names(self) -> Mapping[str, Name]:
        """The names that the file gives, parsed."""
        described = self.describe(None)
        return {kind: name_or_text(text) for kind in ("dataset", "method", "pool") if (text := described[kind])}

    def describe(self, iterations: int | None) -> dict[str, Any]:
        """The file's name in place of a method, unless the set says which method learned it."""
        return {
            "dataset": self.problem.name,
            "ipc": len(self.distilled.images) // len(self.distilled.classes),
            "iterations": iterations,
            "method": self._told("method") or f"file:{self.name}{self._entry()}",
            "pool": self._told("pool"),
        }

    def _entry(self) -> str:
        """Which set of a file that holds several."""
        entry, entries = (self.distilled.provenance.get(key) for key in ("entry", "entries"))
        return f"#{entry}" if isinstance(entry, int) and isinstance(entries, int) and entries > 1 else ""

    def _told(self, key: str) -> str | None:
        value = self.distilled.provenance.get(key)
        return value if isinstance(value, str) and value.isprintable() else None

    def set_cell(self, distillation: int, iterations: int | None) -> Cell:
        """The cell of this very set: known by its content."""
        return Cell("distilled", {"file": self.digest}, f"{self.name}")
