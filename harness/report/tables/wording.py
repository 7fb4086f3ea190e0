"""Wording that the run table, the comparison and the page share: numbers, values of fields, marks and captions."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.report.comparing.code_versions import MIXED, MIXED_MEANS
from harness.types.plurals import count_range, counted, plural

MINUS = "−"
DASH = "–"
"""Stands for a value that is missing or does not apply."""


@dataclass(frozen=True)
class Mark:
    """A sign behind a number, and what it means."""

    sign: str
    meaning: str


MARKS = {
    "diverged": Mark("†", "the distillation diverged; its last set in range was scored"),
    "blown up": Mark("‡", "the distilled images are more than 8 times as large as real ones"),
    "incomplete": Mark("…", "not all students are there"),
    "failed": Mark("✗", "nothing could be scored"),
}
"""The marks by status, in the order of their captions; the status ``done`` has none."""
REAL_DATA = Mark(
    "◊",
    "students learned from more than the set: their evaluator used real images, or a network was pretrained "
    "(weights=); never set against those without",
)
"""The mark of scores whose evaluator used real data, or with a pretrained network among students, teachers or pool."""
COLLAPSED = "collapsed: loss not finite, or one class given to at least 99 % of the images; counted in the mean"


def tenths(value: float, signed: bool = False) -> str:
    """Format a number with one digit behind the point; with ``signed``, zero keeps the sign of what was rounded."""
    # Without a sign in front, "−0.0" would look like a mistake: adding 0.0 turns a negative zero into a positive one.
    rounded = round(value, 1)
    return (f"{rounded:+.1f}" if signed else f"{rounded + 0.0:.1f}").replace("-", MINUS)


def percent(fraction: float, signed: bool = False) -> str:
    """Format a fraction in percent with one digit behind the point."""
    return tenths(100 * fraction, signed)


def optimism(values: Collection[str], probed: Collection[str]) -> str:
    """Return a phrase on values that were probed on the validation split by which they are chosen."""
    which = f"{len(probed)} of {counted(len(values), 'value')} {plural(len(probed), 'was', 'were')}"
    return f"{which} probed on it, whose accuracies are optimistic"


def significant(value: float, signed: bool = False) -> str:
    """Format a number of any size with four significant digits, for metrics whose unit is unknown."""
    return (f"{value:+.4g}" if signed else f"{value + 0.0:.4g}").replace("-", MINUS)


class Show(Protocol):
    """A function that formats a number, with its sign if it is a difference."""

    def __call__(self, value: float, /, signed: bool = False) -> str:
        """Format the number."""
        ...


def plus_minus(std: float | None, show: Show = percent) -> str:
    """Format a standard deviation as ``±0.4``; None gives an empty text."""
    return "" if std is None else f"±{show(std)}"


def spreads(between_students: float | None, between_distillations: float | None, show: Show = percent) -> str:
    """Format both standard deviations as ``±0.3 ±0.4``, without those that are None."""
    return plus_minus(between_students, show) + labelled(" ", plus_minus(between_distillations, show))


def one_line(text: str) -> str:
    """Join a text into one line without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def mean_with_spread(mean: float, spread: float | None, show: Show = percent) -> str:
    """Format a mean with a standard deviation as ``28.4±0.7``; without one if it is None."""
    return show(mean) + ("" if spread is None else f"±{show(spread)}")


def difference(value: float, low: float | None, high: float | None, show: Show = percent) -> str:
    """Format a difference with its interval as ``+0.4 [−0.3, +1.1]``; without one if there is none."""
    return f"{show(value, True)}{labelled(' ', interval(low, high, show))}"


def interval(low: float | None, high: float | None, show: Show = percent) -> str:
    """Format an interval as ``[−0.3, +1.1]``; empty if there is none."""
    return "" if low is None or high is None else f"[{show(low, True)}, {show(high, True)}]"


def verdict_line(arm: str, baseline: str, verdict: object, numbers: str) -> str:
    """Write the verdict on an arm, with the numbers that it rests on in brackets."""
    return f"{arm} against {baseline}: {verdict} ({numbers})"


def counts_caption(counts: Sequence[tuple[int, int]]) -> str:
    """Describe numbers of distillations and of students on each: ``2 students on each of 5 distillations``."""
    sets, students = ([each[index] for each in counts] for index in (0, 1))
    return f"{count_range(students, 'student')} on each of {count_range(sets, 'distillation')}"


def or_dash(value: object) -> str:
    """Format a value of any type; None gives a dash."""
    return DASH if value is None else str(value)


def describe_value(field: str, value: object) -> str:
    """Format a field's value so that it is understood without a heading: ``ipc 10``, ``100 iterations``, ``dc``."""
    if field == "iterations":
        return f"{value} {plural(int(str(value)), 'iteration')}"
    return f"{field} {value}" if field in ("ipc", "precision") else str(value)


def per_class(ipc: int) -> str:
    """Format a number of images per class: ``10 images per class``."""
    return f"{counted(ipc, 'image')} per class"


def comma_list(values: Iterable[object]) -> str:
    """Join values with commas, each once and in their order, without None."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))


def labelled(label: str, value: str) -> str:
    """Put a label before a value; an empty value stays empty."""
    return f"{label}{value}" if value else ""


def spread_caption(students: int, distillations: int) -> str:
    """Describe the standard deviations behind a mean of at most so many students and distillations."""
    if students < 2 and distillations < 2:
        return ""
    between = " ±between distillations" if distillations > 1 else ""
    return f" ±between students{between} (standard deviations, ddof 1)"


def protocol_lines(protocols: Iterable[object], devices: Iterable[object]) -> list[str]:
    """Return the caption with the evaluation protocols and the devices; no line if neither is known."""
    known = [labelled("protocol: ", comma_list(protocols)), labelled("device: ", comma_list(devices))]
    return ["; ".join(filter(None, known))] if any(known) else []


def mark_lines(statuses: Collection[str]) -> list[str]:
    """Return a caption for each mark that the statuses have."""
    return [f"{mark.sign} {mark.meaning}" for status, mark in MARKS.items() if status in statuses]


def real_data_mark(real_data: bool) -> str:
    """Return the mark of scores whose evaluator used real data; empty if it used none."""
    return REAL_DATA.sign if real_data else ""


def real_data_lines(real_data: bool) -> list[str]:
    """Return the caption of the mark for evaluators that used real data, if there are such numbers."""
    return [f"{REAL_DATA.sign} {REAL_DATA.meaning}"] if real_data else []


def mixed_code_lines(is_mixed: bool) -> list[str]:
    """Return the caption of the mark for numbers from several versions of the code, if there are such numbers."""
    return [f"{MIXED} {MIXED_MEANS}"] if is_mixed else []


def collapsed_lines(collapsed: bool) -> list[str]:
    """Return the caption that explains collapsed students, if there are any."""
    return [COLLAPSED] if collapsed else []


def _plain(dataset: str) -> str:
    return dataset.partition("[")[0].replace("-", "")


def copy_lines(pairs: Iterable[tuple[str, str | None]]) -> list[str]:
    """Return a caption for each data set that is a copy of a known one.

    Args:
        pairs: names of data sets, each with the known data set that its images are like.
    """
    # With other options it is still the set itself; tiny-imagenet is the published numbers' tinyimagenet.
    copies = {(dataset, like) for dataset, like in pairs if like and _plain(dataset) != _plain(like)}
    return [f"{dataset} is a copy of {like}" for dataset, like in sorted(copies)]


def published_lines(sources: Iterable[str]) -> list[str]:
    """Return a caption for each publication that numbers are taken from."""
    return [f"published: {source}" for source in sorted(set(sources))]
