"""Seconds an iteration of the methods, the parts of an iteration, and how far it is from what the machine can."""

from dataclasses import dataclass
from statistics import median

from figures import Figure, median_of
from processes import alternating, timed

PART = "steps"


def measure(settings, machine, progress):
    """All figures, as they are found."""
    for method in settings.methods:
        for ipc in settings.ipc:
            progress(f"{method}, ipc {ipc}")
            yield from iterations(settings, machine, method, ipc)
    for method in settings.methods[:1] if settings.computed_ipc else ():
        progress(f"{method}, ipc {settings.computed_ipc}, its parts")
        facts = arithmetic(settings, method, settings.computed_ipc)
        for precision, measured in parts(settings, method, settings.computed_ipc, facts).items():
            what = f"{method}, ipc {settings.computed_ipc}, {precision}"
            yield Figure(PART, what, "computed from parts", measured.whole, "s")
            yield from limits(what, machine, precision, measured.facts, measured.whole)
            yield from measured.figures(what, measured.whole)
    for method in settings.cheap:
        progress(method)
        yield from cheap(settings, method)


def iterations(settings, machine, method, ipc):
    """One method at one ipc: in every precision, and by the other implementations, in turn."""
    count, name = settings.count or (3 if ipc == 1 else 1), method.partition("[")[0]
    cases = [
        {"method": method, "ipc": ipc, "precision": precision, "count": count} for precision in settings.precisions
    ]
    works = [lambda other=other: other.seconds(method=name, ipc=ipc, count=count) for other in settings.others]
    works += [lambda: timed("iterations", dataset=settings.dataset, policy=settings.compile, cases=cases)]
    *beside, lines = alternating(settings.repeats, *works)
    inside = parts(settings, method, ipc, facts_of(lines, 0)) if ipc > 1 else {}
    for index, precision in enumerate(settings.precisions):
        what, facts, seconds = f"{method}, ipc {ipc}, {precision}", facts_of(lines, index), seconds_of(lines, index)
        yield median_of(PART, what, "ddbench", seconds)
        for other, measured in zip(settings.others, beside, strict=True):
            yield median_of(PART, what, other.name, measured)
            yield Figure(PART, what, f"{other.name} / ddbench", median(measured) / median(seconds), "times")
        yield from limits(what, machine, precision, facts, median(seconds))
        yield median_of(PART, what, "warming up", seconds_of(lines, index, "start"))
        if precision in inside:
            yield from inside[precision].figures(what, median(seconds))


@dataclass(frozen=True)
class Parts:
    """What an iteration is made of: seconds of matching in an outer step, and of an epoch of the inner loop."""

    matching: list
    epoch: list
    facts: dict

    def figures(self, what, whole):
        """Both, and the share that each has of a ``whole`` iteration's seconds."""
        outer, inner = self.facts["loops"]
        yield median_of(PART, what, "one matching", self.matching)
        yield median_of(PART, what, "one inner epoch", self.epoch)
        yield Figure(PART, what, "all matching", 100 * outer * median(self.matching) / whole, "%")
        yield Figure(PART, what, "all inner loops", 100 * (outer - 1) * inner * median(self.epoch) / whole, "%")

    @property
    def whole(self):
        """Seconds of an iteration, by arithmetic."""
        outer, inner = self.facts["loops"]
        return outer * median(self.matching) + (outer - 1) * inner * median(self.epoch)


def parts(settings, method, ipc, facts):
    """By precision the parts of an iteration: from one outer step alone, and from two with a short inner loop.

    None of a method that has no such loops, as the ``facts`` of its arithmetic show.
    """
    inner, seconds_by_part = settings.inner, {}
    for precision in settings.precisions if facts["loops"] else ():
        case = {"method": method, "ipc": ipc, "precision": precision}
        single, two = {**case, "outer": 1, "count": 3}, {**case, "outer": 2, "inner": inner, "count": 3}
        lines = timed("iterations", dataset=settings.dataset, policy=settings.compile, cases=[single, two])
        matching = seconds_of(lines, 0)
        epochs = [(both - 2 * single) / inner for single, both in zip(matching, seconds_of(lines, 1), strict=True)]
        seconds_by_part[precision] = Parts(matching, epochs, facts)
    return seconds_by_part


def limits(what, machine, precision, facts, seconds):
    """The rate of arithmetic, and the least that the convolutions take: of real images in the precision, else fp32."""
    if facts["flop"]:
        yield Figure(PART, what, "rate", facts["flop"] / seconds / 1e9, "GFLOP/s")
    if facts["real_passes"] and machine.convolutions:
        real = facts["real_passes"]
        least = machine.convolutions[precision] * real + machine.convolutions["fp32"] * (facts["passes"] - real)
        yield Figure(PART, what, "convolutions at least", least / 3, "s")
        yield Figure(PART, what, "ddbench / convolutions", 3 * seconds / least, "times")


def cheap(settings, method):
    """A method without inner loops at ipc 1; the epoch of an expert is computed for all training images."""
    case = {"method": method, "ipc": 1, "of_class": settings.of_class, "count": 3}
    every = {"method": method, "ipc": 1, "count": 0}
    lines = timed("iterations", dataset=settings.dataset, policy=settings.compile, cases=[case, every])
    what = f"{method}, ipc 1, fp32"
    seconds = seconds_of(lines, 0)
    yield median_of(PART, what, "ddbench", seconds)
    yield from limits(what, None, "fp32", facts_of(lines, 0), median(seconds))
    images = facts_of(lines, 1)["images"]
    for line in lines:
        if "artifact" in line:
            epoch = 3 * images * line["seconds"] / line["passes"]
            yield Figure(PART, what, f"an epoch of an {line['artifact']}, computed from fewer images", epoch, "s")


def arithmetic(settings, method, ipc):
    """That of an iteration which is not done."""
    case = {"method": method, "ipc": ipc, "count": 0}
    return facts_of(timed("iterations", dataset=settings.dataset, policy=settings.compile, cases=[case]), 0)


def facts_of(lines, index):
    """Return the arithmetic that a case reported first."""
    return next(line for line in lines if line["case"] == index and "flop" in line)


def seconds_of(lines, index, name="seconds"):
    """Return what a case reported of each iteration."""
    return [line[name] for line in lines if line["case"] == index and name in line and "artifact" not in line]
