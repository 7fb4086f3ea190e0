"""The sections of the page, in their order."""

from collections.abc import Sequence

from harness.plugins.registry import Registry
from harness.report.comparing.comparison import Comparison
from harness.report.page.cells import cells_section
from harness.report.page.choices import choices_section
from harness.report.page.cost import cost_section
from harness.report.page.draws import pools_section
from harness.report.page.effects import effects_section
from harness.report.page.gallery import images_section
from harness.report.page.history import curves_section, trajectories_of
from harness.report.page.maps import maps_section
from harness.report.page.panel import MOST_LINES, Panel, is_pool
from harness.report.page.pictures import Palette
from harness.report.page.tables import count, paper_table
from harness.report.page.view import Part, Section
from harness.types.report import Results

MOST_PANELS = 12
"""Panels that have tables and pictures of their own; of a store with more the first are shown, and it is said."""


def sections_of(
    results: Results,
    panels: Sequence[Panel],
    comparison: Comparison | str,
    registry: Registry,
    *,
    baseline: str,
    cells: int,
    pictures: int,
) -> list[Section]:
    """All sections for which there is something to show.

    Args:
        results: what the stores hold.
        panels: its scores.
        comparison: of the pools, or why there is none.
        registry: to ask pools what they were meant to draw.
        baseline: the pool that stands before the others.
        cells: the most cells that are listed one by one.
        pictures: the most sets whose images are shown.
    """
    shown = panels[:MOST_PANELS]
    trajectories = trajectories_of(results.sets)
    palette = _palette(results, baseline)
    made = [
        _tables(shown, len(panels)),
        choices_section(results),
        effects_section(comparison),
        maps_section(shown, comparison),
        cost_section(shown, palette),
        curves_section(shown, trajectories, palette),
        images_section(results.sets, palette, pictures),
        pools_section(trajectories, registry),
        cells_section(panels, results, cells),
        _notes(results),
    ]
    return [section for section in made if section]


def _palette(results: Results, baseline: str) -> Palette:
    """The baseline pool first, and last methods without one."""
    told = {(one.method, one.pool) for one in results.scores} | {(one.method, one.pool) for one in results.sets}
    pools = sorted({pool for _, pool in told if pool}, key=lambda pool: (not is_pool(pool, baseline), pool))
    return Palette([*pools, None], sorted({method for method, _ in told}))


def _tables(shown: Sequence[Panel], number: int) -> Section:
    left, long = number - len(shown), sum(panel.is_long for panel in shown)
    intro = [f"{count(left, 'more table')} (other data sets, sizes or evaluators) are left out."] if left else []
    if long:
        intro.append(f"{count(long, 'table')} with more than {MOST_LINES} rows: for these there are no pictures.")
    return Section("results", "Results", intro, [Part(tables=[paper_table(panel) for panel in shown])])


def _notes(results: Results) -> Section | None:
    return Section("notes", "Notes", results.notes) if results.notes else None
