"""The section of data: the real images that sets were distilled from and students scored on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.errors import few
from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.question import in_natural_order
from harness.report.page.panel import Panel
from harness.report.page.tables import entry
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.tables.wording import DASH, spread_caption
from harness.types.report import DataRecord, Results
from harness.types.score import Score

_MOST_NAMES = 10
"""Class names of an entry; the others are counted."""
_COLOURS = {1: "grey", 3: "colour"}
_MOMENTS = "Mean and standard deviation of each channel of the training images, of pixels in [0, 1]."


@dataclass(frozen=True)
class _DataSet:
    """A data set of the page.

    Attributes:
        name: its name in tables; with the split if that is not the test set.
        record: its description.
        bounds: by method, evaluator and architecture, the scores of students that were trained on all its images.
    """

    name: str
    record: DataRecord
    bounds: dict[tuple[str, str, str], list[Score]] = field(default_factory=dict)


def data_section(panels: Sequence[Panel], results: Results) -> Section | None:
    """Return a table of the panels' data sets, a column for each; None if no store describes one."""
    sets = _data_sets(panels, results)
    if not sets:
        return None
    bounds = [score for data in sets for scores in data.bounds.values() for score in scores]
    rows = [*_rows(sets), *_bound_rows(sets)]
    alone = len(sets) == 1
    # On a phone each value follows on its column's heading, which the caption says already if there is only one.
    columns = [Column("what"), *(Column("" if alone else data.name, number=True) for data in sets)]
    caption = f"The real images of {sets[0].name}" if alone else "The real images by data set"
    table = Table("data-table", caption, columns, [Group("", rows)], [_MOMENTS, *_bound_notes(bounds)])
    return Section("data", "Data", parts=[Part(tables=[table])])


def _data_sets(panels: Sequence[Panel], results: Results) -> list[_DataSet]:
    """Return the described data sets in the order of the panels, each once."""
    sets: dict[tuple[str, int], _DataSet] = {}
    seen: set[tuple[str, str]] = set()
    for score in (score for panel in panels for arm in panel.tiles.values() for score in arm.scores):
        record = results.data_of(score)
        # Sets of all images stand in several panels.
        if record is None or (score.store, score.key) in seen:
            continue
        seen.add((score.store, score.key))
        split = "" if score.score_on == "test" else f", on {score.score_on}"
        data = sets.setdefault((score.dataset, id(record)), _DataSet(f"{score.dataset}{split}", record))
        if (score.ipc, score.pool, score.iterations) == (None, None, None) and not score.from_file:
            data.bounds.setdefault((score.method, score.evaluator, score.architecture), []).append(score)
    return list(sets.values())


def _rows(sets: Sequence[_DataSet]) -> Iterator[TableRow]:
    def row(head: str, cell: Callable[[DataRecord], Entry]) -> TableRow:
        return TableRow(head, [cell(data.record) for data in sets])

    yield row("classes", lambda data: Entry(str(len(data.classes)), below=few(data.classes, most=_MOST_NAMES)))
    yield row("training images", lambda data: Entry(f"{sum(data.train):,}"))
    for split in dict.fromkeys(data.record.score_on for data in sets):
        yield row(f"{split} images", lambda data, split=split: _scored(data, split))  # type: ignore[misc]
    yield row("smallest class, training images", _smallest)
    yield row("largest class, training images", _largest)
    yield row("image size", lambda data: Entry(f"{data.shape[1]}x{data.shape[2]}", below="height x width in pixels"))
    yield row("channels", lambda data: Entry(str(data.shape[0]), below=_COLOURS.get(data.shape[0], "")))
    yield row("mean", lambda data: _of_channels(data.mean))
    yield row("standard deviation", lambda data: _of_channels(data.std))


def _scored(data: DataRecord, split: str) -> Entry:
    return Entry(f"{sum(data.scored):,}") if data.score_on == split else Entry(DASH)


def _smallest(data: DataRecord) -> Entry:
    least = min(data.train)
    below = "every class" if least == max(data.train) else f"class {data.classes[data.train.index(least)]}"
    return Entry(f"{least:,}", below=below)


def _largest(data: DataRecord) -> Entry:
    least, most = min(data.train), max(data.train)
    if least == most:
        return Entry(f"{most:,}", below="balanced")
    ratio = f"; {most / least:.1f} times the smallest" if least else ""
    return Entry(f"{most:,}", below=f"class {data.classes[data.train.index(most)]}{ratio}")


def _of_channels(values: Sequence[float]) -> Entry:
    return Entry(" ".join(f"{value:.3f}" for value in values))


def _bound_rows(sets: Sequence[_DataSet]) -> Iterator[TableRow]:
    """Yield a row for each network that was trained on all images."""
    keys = dict.fromkeys(key for data in sets for key in data.bounds)
    evaluators = {evaluator for _, evaluator, _ in keys}
    order = in_natural_order(architecture for _, _, architecture in keys)
    for method, evaluator, architecture in sorted(keys, key=lambda key: (*key[:2], order.index(key[2]))):
        how = f", {evaluator}" if len(evaluators) > 1 else ""
        scores = [data.bounds.get((method, evaluator, architecture)) for data in sets]
        cells = [entry(ArmScores.of(method, several) if several else None) for several in scores]
        yield TableRow(f"accuracy of {method} on {architecture}{how}, %", cells)


def _bound_notes(scores: Sequence[Score]) -> list[str]:
    """Describe the accuracies of students that were trained on all images; no line if there are none."""
    if not scores:
        return []
    students = 1 + max(score.student for score in scores)
    distillations = 1 + max(score.distillation for score in scores)
    methods = ", ".join(dict.fromkeys(score.method for score in scores))
    spread = spread_caption(students, distillations)
    return [f"{methods}: students trained on all real images, an upper bound; mean{spread}."]
