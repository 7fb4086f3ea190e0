"""What a file format of distilled sets is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.types.distilled import DistilledSet
from harness.types.formats.content import Content
from harness.types.options import Options

LAST = -1
"""The entry that is taken where none is asked for."""


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: as it is typed.
        suffixes: of a file that is written in it unless something else is said; empty: a folder.
        summary: what lies in it.
        read: given path, options and entry, what a file tells.
        write: given a set and the path of a file or folder that is not there, writes it and says what is lost; None:
            it is only read.
        options: what can be said in brackets of how to read it.
        several: whether a file may hold several sets.
    """

    name: str
    suffixes: tuple[str, ...]
    summary: str
    read: Callable[[Path, Any, int], Content]
    write: Callable[[DistilledSet, Path], tuple[str, ...]] | None = None
    options: type[Options] = Options
    several: bool = False


def all_but_data(distilled: DistilledSet) -> tuple[str, ...]:
    """What is lost where only images and labels are kept."""
    lost = [f"preprocessing {distilled.preprocessing.name}", "class names"]
    if distilled.step_size is not None:
        lost.append(f"step size {distilled.step_size:g}")
    return (*lost, *(["provenance"] if distilled.provenance else []), *packing(distilled))


def packing(distilled: DistilledSet) -> tuple[str, ...]:
    """What is lost where a packed set is decoded before it is written."""
    if distilled.decoder is None:
        return ()
    images, _ = distilled.training_data()
    return (f"packing by {distilled.decoder.name}: {len(images)} decoded images are written",)
