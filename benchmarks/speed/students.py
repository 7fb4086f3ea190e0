"""Seconds a student by architecture and evaluator, beside the same recipe in plain eager code."""

from statistics import median

from figures import Figure, median_of
from processes import alternating, timed

PART = "students"
SIDE_BY_SIDE = 2


def measure(settings, progress):
    """All figures, as they are found, and the sums over the architectures."""
    figures = []
    for architecture in settings.architectures:
        progress(architecture)
        for figure in of_architecture(settings, architecture):
            figures.append(figure)
            yield figure
    if len(settings.architectures) > 1:
        yield from sums(settings, figures)


def of_architecture(settings, architecture):
    """By each evaluator two students at a time, then those of the others one after another, in turn."""
    asked = {"dataset": settings.dataset, "ipc": 1, "architecture": architecture}
    plain = plain_ones(settings.evaluators)
    mine, eager = [], {name: [] for name in plain}

    def ours():
        mine.extend(
            timed("students", **asked, policy=settings.compile, evaluators=settings.evaluators, counts=[SIDE_BY_SIDE])
        )
        for name in plain:
            epochs = next(line["epochs"] for line in mine if "epochs" in line and line["evaluator"] == name)
            eager[name].extend(timed("eager", **asked, epochs=epochs, count=1))
        return ()

    works = [lambda o=other: o.seconds(architecture=architecture, ipc=1, count=1) for other in settings.other_students]
    *beside, _ = alternating(settings.repeats, *works, ours)
    for evaluator in settings.evaluators:
        of_it, others = [line for line in mine if line["evaluator"] == evaluator], {}
        if evaluator in plain:
            others = {other.name: measured for other, measured in zip(settings.other_students, beside, strict=True)}
            others["eager torch"] = [line["seconds"] for line in eager[evaluator]]
            others["eager torch, scoring"] = [line["scoring"] for line in eager[evaluator]]
        yield from rows(f"{architecture}, {evaluator}", of_it, others)


def plain_ones(evaluators):
    """Those whose recipe eager torch has, and others can be set beside."""
    return [name for name in evaluators if name.partition("[")[0] == "plain"]


def rows(what, mine, others):
    """Of one evaluator: seconds a student, and how many times as long the others take."""
    whole = [line for line in mine if "students" in line]
    seconds = [line["seconds"] for line in whole]
    yield median_of(PART, what, "ddbench", seconds)
    for name, measured in others.items():
        yield median_of(PART, what, name, measured)
        if not name.endswith(", scoring"):
            yield Figure(PART, what, f"{name} / ddbench", median(measured) / median(seconds), "times")
    yield median_of(PART, what, "ddbench, one epoch and scoring", [line["scoring"] for line in whole])
    if teachers := [line["teacher"] for line in mine if "teacher" in line]:
        yield median_of(PART, what, "its teacher, made once for all", teachers)


def sums(settings, figures):
    """All architectures by each evaluator: sums of medians, and their ratio."""
    for evaluator in settings.evaluators:
        ours = [f for f in figures if f.what.endswith(f", {evaluator}") and f.unit == "s"]
        names = dict.fromkeys(figure.name for figure in ours)
        totals = {name: sum(f.value for f in ours if f.name == name) for name in names}
        what = f"all, {evaluator}"
        for name, total in totals.items():
            yield Figure(PART, what, name, total, "s")
        for figure in figures:
            name, divided, _ = figure.name.partition(" / ")
            if divided and figure.what == f"{settings.architectures[0]}, {evaluator}":
                yield Figure(PART, what, figure.name, totals[name] / totals["ddbench"], "times")
