"""Distilled sets that others published: what file it is, how it is read and evaluated, and which accuracy is stated."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StatedAccuracy:
    """An accuracy that was published for a set.

    Attributes:
        mean: a fraction.
        std: standard deviation between students, a fraction; None if it was not published.
    """

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class PublishedSet:
    """A distilled set that others published.

    Attributes:
        name: ``METHOD/DATASET/ipcN`` as it is typed, with more words if there are several.
        file: the name of its file.
        source: where it comes from.
        dataset: the data set that it was distilled from, and whose preprocessing it is in.
        evaluator: the evaluator, with its protocol, that the stated accuracies are of.
        sha256: checksum of the file; None if it is not known.
        format: how the file is read (``--from``); None if its content says it.
        entry: index of the set in the file; None for the last.
        step_size: learned step size that the file does not hold; None if there is none.
        students: how many students the stated accuracies are of; None if that was not published.
        stated: by architecture, the stated accuracy.
        note: what a reader of the numbers should know.
    """

    name: str
    file: str
    source: str
    dataset: str
    evaluator: str = "plain"
    sha256: str | None = None
    format: str | None = None
    entry: int | None = None
    step_size: float | None = None
    students: int | None = None
    stated: Mapping[str, StatedAccuracy] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "file", "source", "dataset", "evaluator", "note"):
            text = getattr(self, name)
            if not isinstance(text, str) or (not text and name != "note") or not text.isprintable():
                raise ValueError(f"{name} is {text!r}, but it has to be a printable text")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", str(self.sha256)):
            raise ValueError(f"sha256 is {self.sha256!r}, but a checksum has 64 digits from 0 to f")
        if self.students is not None and (type(self.students) is not int or self.students < 1):
            raise ValueError(f"students is {self.students!r}, but it has to be a number from 1")
        for architecture, stated in self.stated.items():
            for number in (stated.mean, stated.std):
                if number is not None and not 0 <= number <= 1:
                    raise ValueError(f"{architecture} has {100 * number:g} %, but accuracies are between 0 and 100 %")
