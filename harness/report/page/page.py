"""The report page: all results of stores in one HTML file."""

import base64
import hashlib
from dataclasses import replace
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.errors import UsageError
from harness.plugins.discovery import plugins
from harness.report.comparing.ambiguous_names import distinguish
from harness.report.page.effects import compare_pools, summary_of
from harness.report.page.panel import panels_of, warnings_on
from harness.report.page.sections import sections_of
from harness.report.tables.hold_outs import hold_out_notes
from harness.types.options import Options, option
from harness.types.plurals import counted
from harness.types.report import Report, Results


class PageOptions(Options):
    """Options of `Page`."""

    title: str = option("Dataset distillation: what was measured", "heading of the page")
    baseline: str = option("single", "pool that the others are compared with")
    cells: int = option(2000, "maximum number of cells that are listed one by one", ge=0)
    pictures: int = option(48, "maximum number of sets whose images are shown", ge=0)


class Page(Report[PageOptions]):
    """An HTML page that needs no network and no script, fits light and dark screens, and can be printed."""

    Options = PageOptions
    suffix = ".html"

    def render(self, results: Results) -> str:
        """Render the results of stores as one HTML page."""
        if not results.scores:
            raise UsageError(f"{', '.join(results.stores)}: no student has been scored yet; use `ddbench run`")
        room = files("harness.report.page")
        style = room.joinpath("style.css").read_text(encoding="utf-8")
        # Escaped automatically: names come from plugins and files of others. An undefined name is an error.
        template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
            room.joinpath("template.html").read_text(encoding="utf-8")
        )
        results = distinguish_names(results)
        panels = panels_of(results.scores, self.options.baseline)
        comparison = compare_pools(results, panels, self.options.baseline)
        sentence, effects = summary_of(panels, comparison)
        # The page's Content-Security-Policy allows only this very style sheet, and nothing else.
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        return template.render(
            title=self.options.title,
            about=_about(results),
            summary=sentence,
            warnings=warnings_on(panels),
            effects=effects,
            sections=sections_of(
                results,
                panels,
                comparison,
                plugins().registry,
                baseline=self.options.baseline,
                cells=self.options.cells,
                pictures=self.options.pictures,
            ),
            style=Markup(style),
            style_hash=f"sha256-{digest}",
            footer=_footer(results),
        )


def distinguish_names(results: Results) -> Results:
    """Return the results with qualified names of scores and sets where equal names stand for different things."""
    scores, notes = distinguish(results.scores, by_store=False)
    named = {(score.store, score.set_key): score for score in scores}
    sets = []
    for record in results.sets:
        score = named.get((record.store, record.key))
        if score:
            record = replace(record, dataset=score.dataset, method=score.method, pool=score.pool)
        sets.append(record)
    return replace(
        results, scores=tuple(scores), sets=tuple(sets), notes=(*results.notes, *hold_out_notes(results.scores), *notes)
    )


def _about(results: Results) -> str:
    days = sorted({results.origin(score).finished[:10] for score in results.scores})
    when = f"on {days[0]}" if len(days) == 1 else f"between {days[0]} and {days[-1]}"
    return (
        f"{counted(len(results.scores), 'student')} on {counted(len(results.sets), 'distilled set')}, "
        f"finished {when}, from {', '.join(results.stores)}"
    )


def _footer(results: Results) -> str:
    versions = sorted({results.origin(score).versions.get("ddbench", "?") for score in results.scores})
    return f"Made by ddbench from records of ddbench {', '.join(versions)}; this page loads nothing from the network."
