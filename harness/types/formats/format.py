"""Base class of file formats of distilled sets: how files are recognised, read and, if the format allows, written."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from harness.types.distilled import DistilledSet
from harness.types.formats.content import Content
from harness.types.options import Options
from harness.types.plurals import counted
from harness.types.problem import Shape

O = TypeVar("O", bound=Options)  # noqa: E741
LAST = -1
"""The entry that is read by default."""


class SetFormat(ABC, Generic[O]):
    """A file layout of distilled sets, which ``ddbench eval`` and ``convert`` read, and ``convert`` writes.

    Files come from anywhere: reading them runs no code (never ``pickle``), and checks what a header promises before it
    allocates memory. `harness.read_arrays`, `harness.read_safetensors` and `harness.read_pickled` do both; who parses a
    file otherwise begins with `harness.plain_file` and `harness.check_promise`.
    """

    Options: ClassVar[type[Options]] = Options
    version: ClassVar[int] = 1
    """A whole number from 1 on; increase it whenever the same file is read otherwise."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes, in lower case with the dot, of files that are written in this format unless ``--to`` says another."""
    several: ClassVar[bool] = False
    """Whether a file may hold several sets, of which ``--entry`` names one."""

    def __init__(self, options: O) -> None:
        self.options = options

    def recognises(self, path: Path) -> bool:
        """Return whether the file or folder at ``path`` is of this format; by default, a file with its suffix is.

        It is asked of every file whose format nobody named: it looks at names and the first bytes, returns False for
        what it cannot read, and never raises. If several formats answer True, the user has to name one.
        """
        return path.suffix.lower() in self.suffixes and path.is_file()

    @abstractmethod
    def read(self, path: Path, entry: int) -> Content:
        """Read a set, on the CPU.

        Args:
            path: the file or folder; it exists, and its content may be anything.
            entry: index of the set in a file that holds `several`; -1 is the last.

        Raises:
            DataError: it is not of the format, is damaged, or cannot hold what it promises; one line that names the
                file and the fault.
        """

    def check_shape(self, path: Path, shape: Callable[[], Shape]) -> None:
        """Raise `DataError` if headers show that images are not of a data set's shape; by default, nothing is checked.

        It is called before `read`, so that images of the wrong size are not decoded first.

        Args:
            path: the file or folder.
            shape: returns channels, height and width; calling it may read the data set.
        """

    def refusal(self, distilled: DistilledSet) -> str | None:
        """Return why the format cannot hold a set, in a phrase with the remedy; None, as by default, if it can."""
        return None

    def write(self, distilled: DistilledSet, path: Path) -> Sequence[str]:
        """Write a set that `refusal` lets pass; a format without this method is only read.

        Args:
            distilled: the set, on the CPU.
            path: the file or folder to write, exactly; it does not exist yet, and has any suffix: it is renamed later.

        Returns:
            What the format does not hold of this set, in words; `lost_metadata` and `lost_encoding` say the usual.
        """
        raise NotImplementedError

    @classmethod
    def is_written(cls) -> bool:
        """Return whether the class defines `write`."""
        return cls.write is not SetFormat.write


def refusal_unless_hard(distilled: DistilledSet, holder: str) -> str | None:
    """Return why a format with a class for each image and no order of training cannot hold a set; None if it can.

    Args:
        distilled: the set.
        holder: what the format is called, and what it holds.
    """
    if distilled.label_kind != "hard":
        return f"{holder}, and these labels are {distilled.label_kind}: write safetensors or npz"
    if distilled.schedule is not None:
        steps = counted(len(distilled.schedule.steps), "step")
        return f"{holder}, and this set has a schedule of {steps}: write safetensors or npz"
    return None


def lost_metadata(distilled: DistilledSet) -> tuple[str, ...]:
    """Return what is lost if only images and labels are written, in words."""
    lost = [f"preprocessing {distilled.preprocessing.name}", "class names"]
    if distilled.step_size is not None:
        lost.append(f"step size {distilled.step_size:g}")
    if distilled.schedule is not None:
        lost.append(f"the schedule of {counted(len(distilled.schedule.steps), 'step')}")
    return (*lost, *(["provenance"] if distilled.provenance else []), *lost_encoding(distilled))


def lost_encoding(distilled: DistilledSet) -> tuple[str, ...]:
    """Return the loss of writing decoded images in place of packed ones, in words; empty if the set is not packed."""
    if distilled.encoding is None:
        return ()
    images, _ = distilled.training_data()
    return (f"packing by {distilled.encoding.name}: {len(images)} decoded images are written",)
