"""Versions of the code that made records, known by the digests of the code in each record."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.errors import few
from harness.report.comparing.confounders import MARK
from harness.store.records import Provenance, StoredStudent

Digests = Mapping[str, str]
"""By part and component ("sets mpdd_plugins.methods.dc.DC"), the digest of the code that made it."""
MIXED = "≠"
"""Marks a number that students of different versions of the code share."""
MIXED_MEANS = "its students, sets or teachers were made by different versions of the code"
_DIGITS = 12
"""Number of digits of a digest that are compared, enough to know it from all others."""
_OF_BYTES = " (by its bytes)"
"""Ends the names of components whose records keep only the digests of the first versions, of the code's bytes. Those
are compared among themselves: beside a digest of the syntax tree they say nothing."""


def digests_of(student: StoredStudent, distilled: Provenance | None, teacher: Provenance | None) -> dict[str, str]:
    """Return the digests of the code that made a student, its set and its teacher, as far as records have them.

    Args:
        student: its record.
        distilled: the provenance of its set; None if that is not known.
        teacher: the provenance of its artifact; None if it has none or that is not known.
    """
    digests = {
        f"{part} {name}": digest[:_DIGITS]
        for part, provenance in (("students", student.provenance), ("sets", distilled), ("teachers", teacher))
        for name, digest in _digests_in(provenance).items()
    }
    # The file of the set too, because a set may have been distilled again after the student was trained on it.
    return digests | ({f"files {student.set[:_DIGITS]}": student.set_file[:_DIGITS]} if student.set_file else {})


def _digests_in(provenance: Provenance | None) -> Mapping[str, str]:
    """Return the digests in a record by component, those of the first versions under names of their own."""
    if provenance is None:
        return {}
    if provenance.code_digests:
        return provenance.code_digests
    return {f"{name}{_OF_BYTES}": digest for name, digest in provenance.sources.items()}


@dataclass(frozen=True)
class CodeVersions:
    """The versions of the code that made some students.

    Attributes:
        counts: by part and component, and by digest, the number of students that it made. A student without a digest
            of a component is not counted: unknown code counts as the same.
    """

    counts: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, students: Iterable[Digests]) -> "CodeVersions":
        """Count the versions that made students, given by the digests of each."""
        # Thousands of students share a few dictionaries (`read_scores`): each of these is looked through once.
        every = list(students)
        shared = {id(digests): digests for digests in every}
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for place, number in Counter(map(id, every)).items():
            for name, digest in shared[place].items():
                counts[name][digest] += number
        return cls(dict(counts))

    @classmethod
    def together(cls, several: "Iterable[CodeVersions]") -> "CodeVersions":
        """Count the versions that made the students of several arms."""
        counts: dict[str, Counter[str]] = {}
        for versions in several:
            for name, by_digest in versions.counts.items():
                counts.setdefault(name, Counter()).update(by_digest)
        return cls(counts)

    @cached_property
    def number(self) -> int:
        """The minimum number of versions; 1 if nothing is known."""
        # At least: that two components differ each in two ways may be two versions or four.
        return max((len(by_digest) for by_digest in self.counts.values()), default=1)

    @property
    def is_mixed(self) -> bool:
        """Whether more than one version made the students."""
        return self.number > 1

    @property
    def shares(self) -> str:
        """The number of students that each version made: ``2 and 3``."""
        most = max(self.counts.values(), key=len, default={})
        *others, last = map(str, sorted(most.values()))
        return f"{', '.join(others)} and {last}" if others else last

    @property
    def differing(self) -> str:
        """The components that differ between the versions, with the parts that they made, for people."""
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
    """Return a warning about numbers that different versions of the code share; None if there are none.

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
