"""Versions of the code that made records, known by the digests of the code that each record keeps."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.errors import few
from harness.report.comparing.confounders import MARK

Record = Mapping[str, Any]
Digests = Mapping[str, str]
"""By part and component ("sets mpdd_plugins.methods.dc.DC"), the digest of the code that made it."""
MIXED = "≠"
"""Marks a number that students of different versions of the code share."""
MIXED_MEANS = "its students, sets or teachers were made by different versions of the code"
_DIGITS = 12
"""Of a digest, enough to know it from all others."""
_OF_BYTES = " (by its bytes)"
"""Ends the names of components whose records keep only the digests of the first versions, of the code's bytes. Those
are compared among themselves: beside a digest of the syntax tree they say nothing."""


def digests_of(student: Record, distilled: Record | None, teacher: Record | None) -> dict[str, str]:
    """Return which code made a student, its set and its teacher; what a record does not say is left out.

    A student also names the file of the set that it was trained on: the set may have been made again since.
    """
    digests = {
        f"{part} {name}": digest[:_DIGITS]
        for part, record in (("students", student), ("sets", distilled), ("teachers", teacher))
        for name, digest in _recorded(record).items()
    }
    file = student.get("set_file")
    return digests | ({f"files {str(student.get('set'))[:_DIGITS]}": file[:_DIGITS]} if isinstance(file, str) else {})


def _recorded(record: Record | None) -> dict[str, str]:
    """Return the digests of a record by component, those of the first versions under names of their own."""
    provenance = (record or {}).get("provenance")
    if not isinstance(provenance, Mapping):
        return {}
    by_tree = _texts(provenance.get("code_digests"))
    return by_tree or {f"{name}{_OF_BYTES}": digest for name, digest in _texts(provenance.get("sources")).items()}


def _texts(value: object) -> dict[str, str]:
    pairs = value.items() if isinstance(value, Mapping) else ()
    return {name: digest for name, digest in pairs if isinstance(name, str) and isinstance(digest, str)}


@dataclass(frozen=True)
class CodeVersions:
    """The versions of the code that made some students.

    Attributes:
        counts: by part and component, by digest, how many students it made. A student that has no digest of a
            component is not counted: unknown code counts as the same.
    """

    counts: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, students: Iterable[Digests]) -> "CodeVersions":
        """Of students one by one."""
        counts: dict[str, Counter[str]] = {}
        for digests in students:
            for name, digest in digests.items():
                counts.setdefault(name, Counter())[digest] += 1
        return cls(counts)

    @classmethod
    def together(cls, several: "Iterable[CodeVersions]") -> "CodeVersions":
        """Of the students of several."""
        counts: dict[str, Counter[str]] = {}
        for versions in several:
            for name, by_digest in versions.counts.items():
                counts.setdefault(name, Counter()).update(by_digest)
        return cls(counts)

    @cached_property
    def number(self) -> int:
        """How many versions there are at least; 1 if nothing is known."""
        return max((len(by_digest) for by_digest in self.counts.values()), default=1)

    @property
    def is_mixed(self) -> bool:
        """Whether there is more than one."""
        return self.number > 1

    @property
    def shares(self) -> str:
        """How many students each version made: ``2 and 3``."""
        most = max(self.counts.values(), key=len, default={})
        *others, last = map(str, sorted(most.values()))
        return f"{', '.join(others)} and {last}" if others else last

    @property
    def differing(self) -> str:
        """What differs between the versions, for people: components with the part that they made."""
        parts: dict[str, list[str]] = {}
        for name, by_digest in self.counts.items():
            if len(by_digest) > 1:
                part, _, component = name.removesuffix(_OF_BYTES).partition(" ")
                what = f"set {component}, which was made again" if part == "files" else component
                parts.setdefault(what, []).append(part)
        return few(
            [f"{what} ({', '.join(dict.fromkeys(parts[what]))})".removesuffix(" (files)") for what in sorted(parts)]
        )


def mixed_code_warning(side_by_side: Sequence[Mapping[str, CodeVersions]]) -> str | None:
    """One line that says which numbers different versions of the code share; None if there are none.

    Args:
        side_by_side: for each comparison, the versions behind its numbers by their names.
    """
    between = [every for cells in side_by_side if (every := CodeVersions.together(cells.values())).is_mixed]
    if not between:
        return None
    differing = f"{CodeVersions.together(between).differing}; `ddbench run --rerun-stale` makes the older ones again"
    within = {name: versions for cells in side_by_side for name, versions in cells.items() if versions.is_mixed}
    if not within:
        return f"{MARK}what stands side by side was made by different versions of the code: {differing}"
    name, first = next(iter(within.items()))
    more = f" and so in {len(within) - 1} more" if len(within) > 1 else ""
    cells = f"{first.shares} students in {name}{more}"
    return f"{MARK}a number averages students of different versions of the code: {cells}; they differ in {differing}"
