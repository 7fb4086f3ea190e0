"""The sections of the page in their order, with the short ones themselves."""

from collections.abc import Mapping, Sequence

from harness.plugins.registry import Registry
from harness.report.comparing.comparison import Comparison
from harness.report.page.cells import cells_section
from harness.report.page.cost import cost_section
from harness.report.page.data import data_section
from harness.report.page.drawing.pictures import Palette
from harness.report.page.draws import pools_section
from harness.report.page.effects import effects_section
from harness.report.page.gallery import images_section
from harness.report.page.history import curves_section, trajectories_of
from harness.report.page.maps import maps_section
from harness.report.page.metrics import metrics_section
from harness.report.page.panel import MOST_LINES, Panel, pools_called
from harness.report.page.tables import paper_table
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.tables.wording import describe_value, percent
from harness.types.plurals import counted
from harness.types.report import DataRecord, Results
from harness.types.score import ChoiceRecord

MOST_PANELS = 12
"""Maximum number of panels with tables and pictures; the page says how many more there are."""
_CHOICE_COLUMNS = ("chosen", "accuracy on validation, %", "validation", "row")
_CHOICE_INTRO = (
    "The value of an option that was swept with --choose was chosen by the scores on a validation split, a part of the "
    "training images, never on test images. The chosen value was then distilled on the whole training set, unless the "
    "data set's name says that the split was held out there too."
)


def sections_of(
    results: Results,
    panels: Sequence[Panel],
    comparison: Comparison | str,
    registry: Registry,
    pool_names: Mapping[str, str],
    *,
    baseline: str,
    cells: int,
    pictures: int,
    metrics: Sequence[str] = (),
) -> list[Section]:
    """Return all sections that are not empty.

    Args:
        results: what the stores hold.
        panels: the panels of its scores.
        comparison: the comparison of pools, or why there is none.
        registry: the components, to ask pools for their distributions.
        pool_names: full names of pools by those that the results have, where these are shorter.
        baseline: the pool that comes first.
        cells: maximum number of cells that are listed one by one.
        pictures: maximum number of sets whose images are shown.
        metrics: names of the metrics to show; empty for all that are no parts of others.
    """
    # A page of hundreds of pictures would not open.
    shown = panels[:MOST_PANELS]
    trajectories = trajectories_of(results.sets)
    palette = _palette(results, baseline)
    sections = [
        _tables(shown, len(panels)),
        data_section(shown, results),
        _choices(results),
        effects_section(comparison),
        metrics_section(shown, metrics),
        maps_section(shown, comparison),
        cost_section(shown, palette),
        curves_section(shown, trajectories, palette),
        images_section(results.sets, palette, pictures, _data_of_sets(results)),
        pools_section(trajectories, registry, pool_names),
        cells_section(panels, results, cells),
        _notes(results),
    ]
    return [section for section in sections if section]


def _data_of_sets(results: Results) -> Mapping[tuple[str, str], DataRecord]:
    """Return the real data of distilled sets by their store and key."""
    data = {(score.store, score.set_key): results.data_of(score) for score in results.scores}
    return {place: record for place, record in data.items() if record}


def _palette(results: Results, baseline: str) -> Palette:
    """Return the palette with the baseline pool first, and methods without a pool last."""
    methods = {score.method for score in results.scores} | {record.method for record in results.sets}
    pools = {score.pool for score in results.scores} | {record.pool for record in results.sets}
    first = pools_called(results.scores, baseline)
    ordered = sorted((pool for pool in pools if pool), key=lambda pool: (pool not in first, pool))
    return Palette([*ordered, None], sorted(methods))


def _tables(shown: Sequence[Panel], number: int) -> Section:
    left, long = number - len(shown), sum(panel.is_long for panel in shown)
    intro = [f"{counted(left, 'more table')} (other data sets, sizes or evaluators) are not shown."] if left else []
    if long:
        intro.append(f"{counted(long, 'table')} with more than {MOST_LINES} rows and therefore without pictures.")
    return Section("results", "Results", intro, [Part(tables=[paper_table(panel) for panel in shown])])


def _choices(results: Results) -> Section | None:
    """Return the choices with their curves and validation splits; None if there are none."""
    if not results.choices:
        return None
    by_option: dict[str, list[ChoiceRecord]] = {}
    for choice in results.choices:
        by_option.setdefault(choice.option, []).append(choice)
    groups = [
        Group(option, [_choice_row(choice) for choice in choices]) for option, choices in sorted(by_option.items())
    ]
    columns = [Column("option"), *(Column(text) for text in _CHOICE_COLUMNS)]
    table = Table("choices-table", "What was chosen on validation", columns, groups)
    return Section("choices", "Choices", [_CHOICE_INTRO], [Part(tables=[table])])


def _choice_row(choice: ChoiceRecord) -> TableRow:
    curve = ", ".join(f"{name} {percent(mean)}" for name, mean in choice.curve.items())
    split = str(choice.hold_out) if choice.hold_out else "not recorded"
    cells: Sequence[str] = (choice.value, curve, split, _choice_condition(choice))
    return TableRow(choice.option, [Entry(text, number=False) for text in cells])


def _choice_condition(choice: ChoiceRecord) -> str:
    values = {field: value for field, value in choice.condition.items() if value is not None}
    return ", ".join(describe_value(field, value) for field, value in values.items()) or "not recorded"


def _notes(results: Results) -> Section | None:
    return Section("notes", "Notes", results.notes) if results.notes else None
