"""The description of a file format of distilled sets."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.types.distilled import DistilledSet
from harness.types.formats.content import Content
from harness.types.options import Options
from harness.types.plurals import counted

LAST = -1
"""The entry that is read by default."""


@dataclass(frozen=True)
class Format:
    """A file format, with the functions that read and write it.

    Attributes:
        name: the name on the command line.
        suffixes: suffixes of the files that are written in it by default; empty if it is a folder.
        summary: one line about its content.
        read: reads a file, from its path, options and entry.
        write: writes a set to the path of a file or folder that does not exist, and returns what is lost, in words;
            None if the format is only read.
        options: options in brackets that say how to read it.
        several: whether a file may hold several sets.
    """

    name: str
    suffixes: tuple[str, ...]
    summary: str
    read: Callable[[Path, Any, int], Content]
    write: Callable[[DistilledSet, Path], tuple[str, ...]] | None = None
    options: type[Options] = Options
    several: bool = False


def check_hard(distilled: DistilledSet, holder: str) -> None:
    """Check that a set can be held by a format with a class for each image and no order of training.

    Args:
        distilled: the set.
        holder: what the format is called, and what it holds.

    Raises:
        DataError: its labels are not hard, or it has a schedule.
    """
    if distilled.label_kind != "hard":
        raise DataError(f"{holder}, and these labels are {distilled.label_kind}: write safetensors or npz")
    if distilled.schedule is not None:
        steps = counted(len(distilled.schedule.steps), "step")
        raise DataError(f"{holder}, and this set has a schedule of {steps}: write safetensors or npz")


def all_but_data(distilled: DistilledSet) -> tuple[str, ...]:
    """Return what is lost if only images and labels are written, in words."""
    lost = [f"preprocessing {distilled.preprocessing.name}", "class names"]
    if distilled.step_size is not None:
        lost.append(f"step size {distilled.step_size:g}")
    return (*lost, *(["provenance"] if distilled.provenance else []), *packing(distilled))


def packing(distilled: DistilledSet) -> tuple[str, ...]:
    """Return the loss of writing decoded images in place of packed ones, in words; empty if the set is not packed."""
    if distilled.encoding is None:
        return ()
    images, _ = distilled.training_data()
    return (f"packing by {distilled.encoding.name}: {len(images)} decoded images are written",)
