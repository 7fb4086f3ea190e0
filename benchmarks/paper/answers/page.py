"""RESULTS.md: the answers, the tables and what they were made with, as Markdown."""

from collections import Counter
from itertools import groupby

from answers.grid import CHANCE, arms, is_at_chance, is_lost, shares
from answers.judging import FAILS, HOLDS, LEVEL, MARGIN, OPEN, SUM_MARGIN
from one_screen import markdown_table

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.verdict import POWER
from harness.report.published import nearest_published, published_beside
from harness.report.tables.comparison_table import sheet_of
from harness.report.tables.formats import markdown
from harness.report.tables.wording import percent
from harness.types.names import parse_name

ARCHITECTURES = ("mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18")
NOT_RUN = "not run"
OWN = (
    ("dc", 1, "plain", "plain v1"),
    ("dc", 10, "plain", "plain v1"),
    ("dsa", 1, "plain[protocol=dsa]", "plain dsa v1"),
    ("dsa", 10, "plain[protocol=dsa]", "plain dsa v1"),
)
"""Whose authors' numbers are asked for: method, images per class, evaluator and its protocol."""


def page(scores, summary, answered, configs, figures, compute, failed=()):
    """The whole page.

    Args:
        scores: the scores of the stores.
        summary: which pool helps, in one screen; empty if no pools can be compared.
        answered: the six answers.
        configs: the grids that it is a part of.
        figures: by caption, the picture's path as it is linked.
        compute: lines about machine, versions and time.
        failed: lines about cells that could not be made.
    """
    parts = [
        _HEAD.format(stores=" ".join(scores.stores), images=_images(scores.scores)),
        *(["## Which pool helps?\n", summary] if summary else []),
        "## The six answers\n",
        _verdicts(answered),
        *(_in_short(answer) for answer in answered),
        _WORDS.format(level=100 * LEVEL, margin=100 * MARGIN, both=100 * SUM_MARGIN, power=100 * POWER),
        *(f"![{caption}]({path})\n" for caption, path in figures.items()),
        *(_at_length(answer) for answer in answered),
        "## The authors' own numbers\n",
        _own_numbers(scores.scores),
        "## What was run\n",
        _run(scores.scores),
        "## What remains\n",
        *(_remaining(scores.scores, config) for config in configs),
        *_left_out(scores.notes, failed),
        "## Made with\n",
        "\n".join(f"* {line}" for line in compute) + "\n",
    ]
    return "\n".join(parts)


_HEAD = """# Tables 4 and 5 of the model-pool paper, measured

Written by `python benchmarks/paper/results.py {stores}` from the records there; no number is typed by hand, and
`scores.csv` beside this page names the record of each student. [README.md](README.md) says how to go on.{images}
"""
_WORDS = """\
Intervals are {level:g} %, over distillations where there are several, with students paired. *undecided* is whatever
neither holds nor does not hold.

* Questions 1, 2, 3 and 6: *holds* where the test, by Holm for all effects of its table, excludes zero on that side;
  *does not hold* where it does on the other side, or where the interval excludes a gain of {margin:g} point. One set of
  each kind decides nothing about others. So many distillations of each would show {margin:g} point with {power:g} %
  probability, even as the first of the table's effects by Holm.
* Question 4: *holds* where the interval of (pool and kd − pool) − (kd − neither) lies within {both:g} points of zero,
  *does not hold* where it does not, and excludes zero.
* Question 5 is asked of the very sets that were published, so that their students are the units: *holds* where the
  interval lies above half of the published gap, *does not hold* where it lies below.
"""


def _images(scores):
    """The data set, and what has to be said where it is not the known one itself."""
    lines = ""
    for dataset, like in sorted({(score.dataset, score.like) for score in scores}):
        copy = like and like != dataset
        also = f", a copy of {like}: accuracies may differ a little from those on the original" if copy else ""
        lines += f"\n\nData set: `{dataset}`{also}."
    return lines


def _verdicts(answered):
    """Return a row for each question: how often each verdict came out."""
    rows = []
    for answer in answered:
        counts = Counter(finding.verdict.word for finding in answer.findings)
        words = ", ".join(f"*{word}* {counts[word]}" for word in (HOLDS, FAILS, OPEN) if counts[word])
        rows.append([f"{answer.number}. {answer.question}", words or NOT_RUN])
    return markdown_table(["question", "effects with each verdict"], rows)


def _in_short(answer):
    lines = [f"**{answer.number}. {answer.question}**", ""]
    if not answer.findings:
        return "\n".join([*lines, f"* {NOT_RUN}", ""])
    for (where, what), findings in groupby(answer.findings, lambda finding: (finding.where, finding.what)):
        lines.append(f"* {_code(what)}, {where}: {_counted(list(findings))}")
    lines += [f"* {count}" for count in answer.counts]
    return "\n".join([*lines, ""])


def _counted(findings):
    """The verdicts in order, each with the students that it is about."""
    words = {word: [finding for finding in findings if finding.verdict.word == word] for word in (HOLDS, FAILS, OPEN)}
    return "; ".join(f"*{word}* for {', '.join(map(_effect, ones))}" for word, ones in words.items() if ones)


def _effect(finding):
    return f"{finding.over} {_points(finding)}"


def _points(finding):
    estimate = finding.estimate
    interval = ""
    if estimate.low is not None:
        interval = f" [{percent(estimate.low, signed=True)}, {percent(estimate.high, signed=True)}]"
    return percent(estimate.difference, signed=True) + interval


def _at_length(answer):
    lines = [f"## {answer.number}. {answer.question}", ""]
    lines += [f"{note}\n" for note in answer.notes]
    if not answer.findings:
        return "\n".join([*lines, f"Verdict: {NOT_RUN}.", ""])
    rows = []
    for finding in answer.findings:
        repeats = " and ".join(dict.fromkeys(f"{sets}×{students}" for sets, students in finding.arms))
        rows.append([finding.where, _code(finding.what), finding.over, _points(finding), repeats, str(finding.verdict)])
    lines.append(markdown_table(["condition", "effect", "students", "points", "repeats", "verdict"], rows).rstrip())
    lines += ["", "*repeats*: distillations × students.", ""]
    lines += [markdown(sheet_of(comparison)) for comparison in answer.comparisons]
    return "\n".join(lines)


def _own_numbers(scores):
    """ConvNet students of single, beside what the method's authors report; what was not run is there too."""
    groups, rows = {}, {}
    for score in scores:
        if score.pool == "single" and score.architecture == "convnet" and score.score_on == "test":
            key = (score.method, score.ipc, score.iterations or 0, score.precision, score.evaluator)
            groups.setdefault(key, []).append(score)
    for (method, ipc, *others, evaluator), members in groups.items():
        if near := published_beside(ArmScores.of("", members)):
            cells = [_code(method), *map(str, [ipc, *others]), _code(evaluator)]
            rows[parse_name(method).name, ipc, method, *others, evaluator] = [
                *cells, _mean(members), _repeats(members), _beside(near)
            ]  # fmt: skip
    run = {order[:2] for order in rows}
    for like in {score.like for score in scores}:
        for method, ipc, evaluator, protocol in OWN:
            near = nearest_published(_own_condition(like, method, ipc, protocol))
            if near and (method, ipc) not in run:
                rows[method, ipc] = [_code(method), str(ipc), "–", "–", _code(evaluator), NOT_RUN, "–", _beside(near)]
    headings = ["method", "ipc", "iterations", "precision", "evaluator", "ours", "repeats", "published"]
    return markdown_table(headings, [rows[order] for order in sorted(rows)]) if rows else f"{NOT_RUN}\n"


def _own_condition(like, method, ipc, protocol):
    """The row of a table that the authors' number stands beside."""
    return {
        "like": like,
        "ipc": ipc,
        "iterations": 1000,
        "method": method,
        "pool": "single",
        "protocol": protocol,
        "architecture": "convnet",
        "score_on": "test",
        "preprocessing": like,
    }


def _beside(near):
    otherwise = f", for {', '.join(near.departures)}" if near.departures else ""
    return f"{near.published} ({near.published.source}{otherwise})"


def _run(scores):
    """Every arm with its accuracies, how often it ended at chance, and how its sets ended."""
    rows = []
    for (ipc, iterations, method, pool, evaluator, precision), members in arms(scores).items():
        name = f"{method} {pool}".strip().removeprefix("file:")
        cells = [_mean([score for score in members if score.architecture == a]) for a in ARCHITECTURES]
        sets = {score.set_key: is_lost(score) for score in members}
        low = sum(map(is_at_chance, members))
        columns = [str(ipc), str(iterations or "–"), _code(name), _code(evaluator), precision, _repeats(members)]
        rows.append([*columns, *cells, f"{low} of {len(members)}", f"{sum(sets.values())} of {len(sets)}"])
    columns = ["ipc", "iterations", "set", "evaluator", "precision", "repeats"]
    headings = [*columns, *ARCHITECTURES, "at chance", "sets lost"]
    note = (
        f"Mean ±between students ±between distillations, in %; at chance: students below {100 * CHANCE:g} %; "
        "sets lost: diverged or blown up. A set from a file does not give its iterations: its name does.\n"
    )
    return f"{markdown_table(headings, rows)}\n{note}"


def _repeats(members):
    """Distillations by students, over all architectures."""
    sets = {score.set_key for score in members}
    counts = sorted(Counter((score.set_key, score.architecture) for score in members).values())
    most = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"{len(sets)}×{most}"


def _mean(members):
    """Mean and both spreads, in percent."""
    if not members:
        return "–"
    arm = ArmScores.of("", members)
    spreads = (arm.std_students, arm.std_distillations)
    return percent(arm.mean) + "".join(f" ±{'–' if spread is None else percent(spread)}" for spread in spreads)


def _remaining(scores, config):
    parts = shares(scores, config)
    there, wanted = sum(part.there for part in parts), sum(part.wanted for part in parts)
    lines = [f"`{config.name}`: {there:,} of {wanted:,} students are there."]
    for part in parts:
        if part.there:
            what = f"ipc {part.ipc}, {part.iterations} iterations, {_code(part.pool)}, {_code(part.evaluator)}"
            lines.append(f"* {what}: {part.there} of {part.wanted}")
    return "\n".join([*lines, ""])


def _left_out(notes, failed):
    """What is in no number above."""
    if notes or failed:
        yield "## What was left out\n"
        yield "\n".join(f"* {line}" for line in (*notes, *failed)) + "\n"


def _code(text):
    return f"`{text}`"
