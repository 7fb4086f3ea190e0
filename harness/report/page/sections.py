"""The sections of the page in their order, with the short ones themselves."""

from collections.abc import Mapping, Sequence

from harness.plugins.registry import Registry
from harness.report.comparing.comparison import Comparison
from harness.report.page.cells import cells_section
from harness.report.page.choices import choices_section
from harness.report.page.cost import cost_section
from harness.report.page.data import data_section
from harness.report.page.drawing.pictures import Palette
from harness.report.page.effects import effects_section
from harness.report.page.gallery import images_section
from harness.report.page.history import curves_section, trajectories_of
from harness.report.page.maps import maps_section
from harness.report.page.metrics import metrics_section
from harness.report.page.panel import MOST_LINES, Panel, pools_called
from harness.report.page.pools.adapting import adapting_section
from harness.report.page.pools.draws import pools_section
from harness.report.page.tables import paper_table
from harness.report.page.view import Part, Section
from harness.types.plurals import counted
from harness.types.report import DataRecord, Results

MOST_PANELS = 12
"""Maximum number of panels with tables and pictures; the page says how many more there are."""


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
        choices_section(results.choices, registry),
        effects_section(comparison),
        metrics_section(shown, metrics),
        maps_section(shown, comparison),
        cost_section(shown, palette),
        curves_section(shown, trajectories, palette),
        images_section(results.sets, palette, pictures, _data_of_sets(results)),
        pools_section(trajectories, registry, pool_names),
        adapting_section(trajectories, palette),
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


def _notes(results: Results) -> Section | None:
    return Section("notes", "Notes", results.notes) if results.notes else None
