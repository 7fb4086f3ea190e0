"""Write RESULTS.md and its pictures from the packed stores of the campaigns: python benchmarks/pools/results.py

Everything is computed from the records and the campaigns' configurations; the same stores give the same files.
"""

import functools
import sys
import tomllib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "paper")]

import click  # noqa: E402
from adapted import adapted  # noqa: E402
from answers.judging import repeats_needed  # noqa: E402
from one_screen import as_markdown, at_last_iterations, draw, draw_forest, markdown_table, matrix_from  # noqa: E402

from harness.datasets.problems import traits_of  # noqa: E402
from harness.plugins.discovery import plugins  # noqa: E402
from harness.report.comparing.comparison import compare, without_duplicates  # noqa: E402
from harness.report.comparing.question import Question  # noqa: E402
from harness.report.results import read_results  # noqa: E402
from harness.report.scores import Scores, read_scores  # noqa: E402
from harness.report.tables.comparison_table import sheet_of  # noqa: E402
from harness.report.tables.formats import markdown  # noqa: E402
from harness.report.tables.wording import difference, percent  # noqa: E402
from harness.types.names import Name, parse_name  # noqa: E402

CAMPAIGNS = {
    "campaign.toml": "store.tar.xz", "digits.toml": "digits.tar.xz", "questions.toml": "digits.tar.xz",
    "evaluators.toml": "digits.tar.xz", "batch_norm.toml": "digits.tar.xz", "mnist.toml": "mnist.tar.xz",
}  # fmt: skip
"""The packed store of each campaign, by its configuration."""
BASELINE = "single"
"""The pool that others are compared with, whatever its options."""
FRAME = "random"
"""Real images, which every method is compared with."""
HEAD = """# Which pool helps which method?

Written by `python benchmarks/pools/results.py` from the packed stores beside this page; no number is typed by hand.
[README.md](README.md) says how they were computed and where that departs from the published recipes.
"""
PLANNED = """\
*points ±* is half the 95 % interval of a difference, from so many pairs of distillations. *For 1 point*: so many pairs
would find a difference of one point with 80 % probability, if they spread as these did; the spread of few pairs is
itself uncertain.
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=HERE, help="Folder. [beside this]")
def main(output):
    """Write the page of pools."""
    (output / "figures").mkdir(parents=True, exist_ok=True)
    parts = [HEAD]
    stores = {packed: read_scores([HERE / packed]) for packed in dict.fromkeys(CAMPAIGNS.values())}
    for config, packed in CAMPAIGNS.items():
        parts += _campaign(tomllib.loads((HERE / config).read_text()), config, stores[packed], packed, output)
    (output / "RESULTS.md").write_text("\n".join(parts))
    click.echo(output / "RESULTS.md")


def _campaign(config, name, read, packed, output):
    """Return the parts of the page about one campaign, and write its pictures."""
    scores, notes = without_duplicates(read.scores)
    on_test = _asked_for((score for score in scores if score.score_on == "test"), config)
    collected = Scores(on_test, (*read.notes, *notes), (packed,))
    parts = [f"## {config['title']}\n", f"`{name}`, `{packed}`\n"]
    baseline = _baseline(collected.scores)
    if matrix := matrix_from(collected, baseline):
        stem = Path("figures") / Path(name).stem
        picture, forest = f"{stem}-matrix.png", f"{stem}-forest.svg"
        draw(matrix, output / picture)
        parts += [as_markdown(matrix, picture), f"![{draw_forest(matrix, output / forest)}]({forest})\n"]
        parts += ["### How many distillations a point takes\n", _spreads(matrix), PLANNED]
        parts += ["### Beside real images\n", *_frame(collected)]
        parts += ["### All differences\n", markdown(sheet_of(_compared(collected, Question("pool", baseline))))]
    if any(map(_adapts, {score.pool for score in collected.scores if score.pool})):
        sets = _sets_of(read.scores, {(score.method, score.pool) for score in collected.scores}, packed)
        parts += adapted(sets, collected.scores, output, Path("figures") / Path(name).stem)
    parts += ["### What was run\n", *_run(collected.scores, config)]
    return [*parts, *([*(f"* {note}" for note in collected.notes), ""] if collected.notes else [])]


def _sets_of(scores, arms, packed):
    """Return the sets of some methods and pools; of each, the record of one student is read with it."""
    students = {score.set_key: score.key for score in reversed(scores) if (score.method, score.pool) in arms}
    return read_results([HERE / packed], plugins().registry, keys={*students, *students.values()}).sets


def _adapts(pool):
    """Whether a pool changes with what it observes."""
    return plugins().registry.resolve("pool", pool).make().adapts


def _baseline(scores):
    """Return the baseline as records name it: with its options."""
    named = {score.pool for score in scores if score.pool and parse_name(score.pool).name == BASELINE}
    return BASELINE if BASELINE in named or not named else min(named)


def _compared(collected, question):
    """Compare at the last iteration of each method."""
    return compare(replace(collected, scores=tuple(at_last_iterations(collected.scores))), question)


def _spreads(matrix):
    """Return a table of the half-widths of all intervals, with the number of pairs that would show one point."""
    rows = []
    for row, pool, cell in matrix.cells:
        estimate = cell.effect.estimate
        if estimate.low is None or cell.effect.of_one_set:
            rows.append([row.name, pool, str(cell.distillations), "–", "–"])
            continue
        width = estimate.high - estimate.low
        paired = len(estimate.units) == 1
        needed = repeats_needed(width, estimate.units[0]) if paired else None
        number = "not paired" if not paired else "more than 1000" if needed is None else str(needed)
        rows.append([row.name, pool, str(cell.distillations), percent(width / 2), number])
    return markdown_table(["condition", f"pool against {matrix.baseline}", "pairs", "points ±", "for 1 point"], rows)


def _frame(collected):
    """Return a table of every method against real images: the mean over all students."""
    if FRAME not in {score.method for score in collected.scores}:
        return ["Not run yet.\n"]
    comparison = _compared(collected, Question("method", FRAME, over=("all",)))
    rows = []
    for row in comparison.rows:
        for method, effect in row.effects.items():
            estimate = effect.estimate
            names = [f"`{method}`", str(row.condition["pool"] or "–"), f"`{row.condition['evaluator']}`"]
            numbers = [percent(row.arms[FRAME].mean), percent(row.arms[method].mean)]
            rows.append([*names, *numbers, difference(estimate.difference, estimate.low, estimate.high)])
    headings = ["method", "pool", "evaluator", "real images", "learned", "difference"]
    return [markdown_table(headings, sorted(rows)), "Accuracy in %, the mean over all students' architectures.\n"]


def _run(scores, config):
    """Return a table of the students that the configuration asks for, and how many of them there are."""
    students, recorded = defaultdict(set), {}
    for score in scores:
        student = (_typed(score.evaluator), _typed(score.architecture).name, score.distillation, score.student)
        students[score.method, score.iterations or 0, _typed(score.pool or "")].add(student)
    rows = []
    for stage in config["stage"]:
        asked = {**config["common"], **stage}
        for method, iterations in stage["iterations"].items():
            recorded[method] = recorded.get(method) or _recorded(method, asked["dataset"][0])
            for pool in stage["pool"] if _uses_pool(method) else [""]:
                there = _of_pool(students, recorded[method], iterations, pool, stage["pool"])
                rows.append([f"`{method}`", str(iterations), pool or "–", *_share(asked, there)])
    headings = ["method", "iterations", "pool", "students' architectures", "whole distillations", "students"]
    return [markdown_table(headings, rows)]


def _uses_pool(method):
    return plugins().registry.resolve("method", method).cls.uses_pool


def _recorded(method, dataset):
    """Return a method's name as records have it: with the data set's defaults, and without its own."""
    registry = plugins().registry
    defaults = traits_of(registry.resolve("dataset", dataset)).defaults
    return str(registry.resolve("method", defaults.complete(parse_name(method))))


def _share(asked, students):
    """Return the cells about the students of one method and pool: architectures, distillations, students."""
    architectures, evaluators = asked["architecture"], [_typed(name) for name in asked["evaluator"]]
    every = len(architectures) * len(evaluators) * asked["students"]
    there = [
        distillation
        for evaluator, name, distillation, student in students
        if any(_means(asked_for, evaluator) for asked_for in evaluators)
        if name in architectures and distillation < asked["distillations"] and student < asked["students"]
    ]
    whole = sum(there.count(distillation) == every for distillation in range(asked["distillations"]))
    wanted = asked["distillations"]
    return [", ".join(architectures), f"{whole} of {wanted}", f"{len(there)} of {every * wanted}"]


def _asked_for(scores, config):
    """Return the scores of the methods, pools and evaluators of a configuration: several of them may share a store."""
    dataset, stages = config["common"]["dataset"][0], config["stage"]
    pools, evaluators = defaultdict(list), defaultdict(list)
    for stage in stages:
        for method in stage["iterations"]:
            recorded = _recorded(method, dataset)
            pools[recorded] += stage["pool"]
            evaluators[recorded] += {**config["common"], **stage}["evaluator"]
    return tuple(
        score
        for score in scores
        if score.method in pools and _nearest(score.evaluator, evaluators[score.method])
        if score.pool is None or _nearest(score.pool, pools[score.method])
    )


def _of_pool(students, method, iterations, pool, pools):
    """Return the students of a method through a pool that was typed."""
    parts = (
        of_pool
        for (name, count, recorded), of_pool in students.items()
        if (name, count, _nearest(str(recorded), pools)) == (method, iterations, pool)
    )
    return set().union(*parts)


def _nearest(recorded, pools):
    """Return the typed pool that a record's is, of several that with most options; an empty text if there is none."""
    typed = [text for text in pools if recorded and _means(_typed(text), _typed(recorded))]
    return max(typed, key=lambda text: len(_typed(text).options), default="")


def _means(typed, recorded):
    """Whether a record's name is the one that was typed: it holds more, such as the protocol, which has a default."""
    return recorded.name == typed.name and set(typed.options) <= set(recorded.options)


@functools.cache
def _typed(text):
    """Return a name with its options in one order, however they were typed."""
    name = parse_name(text) if text else Name("")
    return Name(name.name, tuple(sorted(name.options)))


if __name__ == "__main__":
    main()
