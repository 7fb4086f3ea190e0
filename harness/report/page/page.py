"""The report page: all results of stores in one HTML file."""

import base64
import hashlib
from dataclasses import replace
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.errors import UsageError
from harness.plugins.discovery import plugins
from harness.report.answer.matrix import matrix_of
from harness.report.answer.sentences import sentences_of
from harness.report.comparing.ambiguous_names import distinguish
from harness.report.comparing.question import in_natural_order
from harness.report.page.answer import answer_part
from harness.report.page.effects import compare_pools, describe_panels
from harness.report.page.panel import panels_of, warnings_on
from harness.report.page.sections import sections_of
from harness.report.tables.arm_names import arm_names
from harness.report.tables.hold_outs import hold_out_notes
from harness.types.names import name_or_text
from harness.types.options import NameList, Options, option
from harness.types.plurals import counted
from harness.types.report import Report, Results


class PageOptions(Options):
    """Options of `Page`."""

    title: str = option("Dataset distillation: what was measured", "heading of the page")
    baseline: str = option("single", "pool that the others are compared with")
    cells: int = option(2000, "maximum number of cells that are listed one by one", ge=0)
    metrics: NameList = option((), "metrics that are shown beside the accuracy, joined by +; empty: all without parts")
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
        results, names = shorten_names(results)
        results = distinguish_names(results)
        panels = panels_of(results.scores, self.options.baseline)
        comparison = compare_pools(results, panels, self.options.baseline)
        matrix = None if isinstance(comparison, str) else matrix_of(comparison)
        # The page's Content-Security-Policy allows only this very style sheet, and nothing else.
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        return template.render(
            title=self.options.title,
            about=_about(results),
            names=names,
            summary=sentences_of(matrix) if matrix else (f"{describe_panels(panels)}; {comparison}.",),
            answer=answer_part(matrix) if matrix else None,
            warnings=warnings_on(panels),
            sections=sections_of(
                results,
                panels,
                comparison,
                plugins().registry,
                {short: name for field, short, name in names if field == "pool"},
                baseline=self.options.baseline,
                cells=self.options.cells,
                metrics=self.options.metrics,
                pictures=self.options.pictures,
            ),
            style=Markup(style),
            style_hash=f"sha256-{digest}",
            footer=_footer(results),
        )


def shorten_names(results: Results) -> tuple[Results, tuple[tuple[str, str, str], ...]]:
    """Return the results with the shortest names that tell components apart, and field, short and full name of each.

    Data sets keep their names, which say where the images are from.
    """
    short_names: dict[str, str] = {}
    for field in ("method", "pool", "evaluator", "architecture"):
        typed = in_natural_order(name for score in results.scores if (name := getattr(score, field)))
        of_field, alone = arm_names(field, typed), len(typed) == 1
        short_names |= {name: name_or_text(name).name if alone else of_field[name] for name in typed}
    changed = {name: text for name, text in short_names.items() if text != name}
    scores = tuple(score.labelled(changed) for score in results.scores)
    sets = tuple(
        replace(
            record, method=changed.get(record.method, record.method), pool=changed.get(record.pool or "", record.pool)
        )
        for record in results.sets
    )
    names = {(field, getattr(score, field), name) for score in scores for field, name in score.labels.items()}
    return replace(results, scores=scores, sets=sets), tuple(sorted(name for name in names if name[0] != "main"))


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
