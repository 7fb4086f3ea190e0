"""Sources of distilled sets: what all have in common, and the set in a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.plugins.code_digest import package_digest
from harness.plugins.registry import Resolved
from harness.plugins.returns import returned
from harness.store.cells import Cell
from harness.types.data.labels import LabelKind
from harness.types.distilled import DistilledSet
from harness.types.names import Name, name_or_text
from harness.types.network import Architecture
from harness.types.problem import Problem


def machinery_digests() -> dict[str, str]:
    """Return the digests of the code that every number depends on beside its components'."""
    # Whole rooms: nobody can list through which of their modules a number passes.
    return {room: package_digest(room) for room in ("harness.learning", "harness.compute")}


def starts_pretrained(architecture: Resolved[Architecture[Any]]) -> bool:
    """Return whether networks of an architecture start from pretrained weights."""
    return returned(architecture.make().pretrained, bool, f"{architecture.described}: pretrained")


def status_of(distilled: DistilledSet) -> str:
    """Return the status of a set's distillation, as the set itself says; ``done`` if it does not say."""
    status = distilled.provenance.get("status")
    return status if isinstance(status, str) else "done"


class Source(Protocol):
    """A source of distilled sets of a problem: a trajectory or a file."""

    @property
    def problem(self) -> Problem:
        """The real data of the problem."""
        ...

    @property
    def seed(self) -> int:
        """The run's seed."""
        ...

    @property
    def precision(self) -> str | None:
        """Precision of the distillation; None if that is not known."""
        ...

    @property
    def status(self) -> str:
        """The state of a set that the store does not hold."""
        ...

    @property
    def images(self) -> int:
        """Number of images of a set."""
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
        """Number of floats that a set takes; None if only the record of a set holds it."""
        ...

    @property
    def label_kind(self) -> LabelKind | None:
        """The kind of the sets' labels; None if it is known only when a set is there."""
        ...

    @property
    def has_schedule(self) -> bool:
        """Whether the sets have a schedule."""
        ...

    @property
    def is_pretrained(self) -> bool:
        """Whether a network that a set is distilled with starts from pretrained weights; False if that is not known."""
        ...

    @property
    def names(self) -> Mapping[str, Name]:
        """The names of the data set, the method and the pool by kind; a kind that it lacks is missing."""
        ...

    def describe(self, iterations: int | None) -> dict[str, Any]:
        """Return ``dataset``, ``ipc``, ``iterations``, ``method`` and ``pool`` as tables show them."""
        ...

    def set_cell(self, distillation: int, iterations: int | None) -> Cell:
        """Return the cell of a distilled set."""
        ...


def training_of(source: Source) -> dict[str, Any]:
    """Return, for records, how many real images sets are distilled from, and which split is not among them."""
    return {"training_images": source.training_images, "hold_out": hold_out_of(source)}


def kind_note(source: Source) -> str | None:
    """Describe what students on a source's sets train on, for a line beneath a table; None if it is as usual."""
    parts = [
        *(["regression labels"] if source.label_kind == "regression" else []),
        *(["a schedule of steps"] if source.has_schedule else []),
    ]
    return f"sets of {source.describe(None)['method']} have {' and '.join(parts)}" if parts else None


def hold_out_of(source: Source) -> dict[str, int | None] | None:
    """Return the validation split that was cut from the training set, for rows and records; None if none was."""
    hold_out = source.problem.hold_out
    return hold_out.as_json() if hold_out else None


@dataclass(frozen=True, eq=False)
class FileSource:
    """The source of one distilled set, which a file holds.

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
        """Always None: what a file says of its precision is not checked."""

    @property
    def status(self) -> str:
        """The status of the distillation, as the file says."""
        return status_of(self.distilled)

    @property
    def main(self) -> None:
        """Always None: a file names no pool's main architecture."""

    @property
    def storage_floats(self) -> int:
        """Number of floats of the set in the file."""
        return self.distilled.storage_floats

    @property
    def label_kind(self) -> LabelKind | None:
        """The kind of labels of the set in the file."""
        return self.distilled.label_kind

    @property
    def has_schedule(self) -> bool:
        """Whether the set in the file has a schedule."""
        return self.distilled.schedule is not None

    @property
    def images(self) -> int:
        """Number of images that a student trains on."""
        return len(self.distilled.training_data()[0])

    @property
    def is_pretrained(self) -> bool:
        """Always False: a file does not say which networks it was distilled with."""
        return False

    @property
    def training_images(self) -> None:
        """Always None: a file does not say how many real images it was distilled from."""

    @property
    def names(self) -> Mapping[str, Name]:
        """The names that the file gives, parsed."""
        described = self.describe(None)
        return {kind: name_or_text(text) for kind in ("dataset", "method", "pool") if (text := described[kind])}

    def describe(self, iterations: int | None) -> dict[str, Any]:
        """Return the fields of a row, with the file's name as the method unless the set says which one learned it."""
        return {
            "dataset": self.problem.name,
            "ipc": len(self.distilled.images) // len(self.distilled.classes),
            "iterations": iterations,
            "method": self._printable("method") or f"file:{self.name}{self._entry()}",
            "pool": self._printable("pool"),
        }

    def _entry(self) -> str:
        """Return the number of the set in a file that holds several; empty if it holds one."""
        entry, entries = (self.distilled.provenance.get(key) for key in ("entry", "entries"))
        return f"#{entry}" if isinstance(entry, int) and isinstance(entries, int) and entries > 1 else ""

    def _printable(self, key: str) -> str | None:
        # A file may hold anything: no line break and no terminal's escape sequence may reach a table.
        value = self.distilled.provenance.get(key)
        return value if isinstance(value, str) and value.isprintable() else None

    def set_cell(self, distillation: int, iterations: int | None) -> Cell:
        """Return the cell of this set, whose key is a digest of its content."""
        return Cell("distilled", {"file": self.digest}, f"{self.name}")
