"""The section of pools that adapt: the main architecture's probability, and the probes, over iterations."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from harness.report.page.drawing.curves import Curve, draw_curves
from harness.report.page.drawing.pictures import Key, Palette, Picture, draw_legend
from harness.report.page.history import NO_POOL, mean_curve
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.tables.run_rows import undrawn_probes
from harness.report.tables.wording import DASH, per_class
from harness.types.names import name_or_text
from harness.types.pool import MAIN_PROBABILITY
from harness.types.report import SetRecord

_INTRO = (
    "Pools whose probabilities change with what they observe: the main architecture's probability at each iteration, "
    "and the accuracy on a validation split of the students that were trained on the set in the making, if the pool "
    "asks for such probes. No test image decides anything here. Seconds of probes, and of the distillation without the "
    "split in which they were made, are part of the seconds of a set. The last column is the number of iterations that "
    "the pool single of the same main architecture does in as many seconds: run it with as many to compare the two at "
    "equal cost. Pools without a main architecture have no such numbers. "
    "A probe without a draw rewarded a distribution by which no network was drawn since the probe before."
)
_FIXED = "single"
"""The pool whose iterations in as many seconds are computed."""
_COLUMNS = (
    "first", "last", "mean", "share of main in the draws", "probes", "seconds of probes and search", "seconds",
    f"iterations of {_FIXED} in as many seconds",
)  # fmt: skip
Trajectories = Mapping[str | None, Sequence[SetRecord]]
"""Trajectories by their pool."""


def adapting_section(trajectories: Sequence[SetRecord], palette: Palette) -> Section | None:
    """Return probabilities and probes over iterations, as pictures and as a table; None if no pool adapts.

    Args:
        trajectories: the last set of each.
        palette: the colours of pools.
    """
    grouped: dict[tuple[str, int, str], dict[str | None, list[SetRecord]]] = defaultdict(lambda: defaultdict(list))
    fixed: dict[tuple[str, int, str], list[SetRecord]] = defaultdict(list)
    for record in trajectories:
        about = record.dataset, record.ipc or 0, record.method
        if record.scalars.get(MAIN_PROBABILITY) or record.probes or record.search_seconds:
            grouped[about][record.pool].append(record)
        elif name_or_text(record.pool or "").name == _FIXED:
            fixed[about].append(record)
    if not grouped:
        return None
    parts, groups = [], []
    for (dataset, ipc, method), by_pool in sorted(grouped.items(), key=lambda item: item[0]):
        title = ", ".join([f"{method} on {dataset}", *([per_class(ipc)] if ipc else [])])
        keys = {pool: Key(pool or NO_POOL, palette.colour(pool)) for pool in sorted(by_pool, key=palette.pools.index)}
        legend = draw_legend(list(keys.values()), "Legend")
        parts.append(Part(title, pictures=[*_pictures(by_pool, keys, method), legend]))
        beside = fixed[dataset, ipc, method]
        groups.append(Group(title, [_row(pool, by_pool[pool], beside) for pool in keys]))
    columns = [Column("pool"), *(Column(text, number=True) for text in _COLUMNS)]
    table = Table("adapting-table", "The main architecture's probability", columns, groups)
    return Section("adapting", "How the pools adapted", [_INTRO], [*parts, Part(tables=[table])])


def _pictures(by_pool: Trajectories, keys: Mapping[str | None, Key], title: str) -> Iterator[Picture]:
    probabilities = [
        curve
        for pool, key in keys.items()
        if (curve := mean_curve(key, [record.scalars.get(MAIN_PROBABILITY, ()) for record in by_pool[pool]]))
    ]
    if probabilities:
        name = "probability of main"
        yield draw_curves(probabilities, title=title, x="iteration", y=name, within=(0, 1), logarithmic=False)
    probes = [curve for pool, key in keys.items() if (curve := _probe_curve(key, by_pool[pool]))]
    if probes:
        name = "accuracy of probes, %"
        yield draw_curves(probes, title=title, x="iteration", y=name, within=(0, 100), logarithmic=False)


def _probe_curve(key: Key, records: Sequence[SetRecord]) -> Curve | None:
    """Return mean and standard deviation over distillations at the iterations that all of them probed."""
    scores = [{at: 100 * _mean(accuracies) for at, accuracies in record.probes} for record in records]
    common = sorted(set.intersection(*(set(of_record) for of_record in scores)))
    if not common:
        return None
    values = [[of_record[at] for of_record in scores] for at in common]
    spread = [statistics.stdev(several) if len(several) > 1 else 0.0 for several in values]
    return Curve(key, [float(at) for at in common], [statistics.fmean(several) for several in values], spread)


def _mean(accuracies: Mapping[str, Sequence[float]]) -> float:
    """Return the mean over architectures of the mean over students, which pools are rewarded by."""
    return statistics.fmean(statistics.fmean(scores) for scores in accuracies.values())


def _row(pool: str | None, records: Sequence[SetRecord], fixed: Sequence[SetRecord]) -> TableRow:
    curves = [[share or 0.0 for share in record.scalars.get(MAIN_PROBABILITY, ())] for record in records]
    curves = [curve for curve in curves if curve]
    firsts, lasts = ([curve[place] for curve in curves] for place in (0, -1))
    shares = [firsts, lasts, [share for curve in curves for share in curve]]
    mains = {record.main for record in records if record.main is not None}
    probes = max(len(record.probes) for record in records)
    undrawn = max(undrawn_probes([at for at, _ in record.probes], record.draws) for record in records)
    search = statistics.fmean(record.search_seconds for record in records)
    seconds = statistics.fmean(record.seconds for record in records)
    cells = [
        *(f"{statistics.fmean(several):.3f}" if several else DASH for several in shares),
        _main_share(records),
        f"{probes}{f', {undrawn} without a draw' if undrawn else ''}" if probes else DASH,
        f"{search:.1f}" if probes else DASH,
        f"{seconds:.1f}",
        # Iterations through a larger network take longer: those of another main architecture say nothing here.
        _iterations_in(seconds, [each for each in fixed if each.main in mains]),
    ]
    return TableRow(pool or NO_POOL, [Entry(cell) for cell in cells])


def _iterations_in(seconds: float, records: Sequence[SetRecord]) -> str:
    """Return how many iterations trajectories do in so many seconds; a dash if there are none, or nothing was timed."""
    spent = sum(record.seconds for record in records)
    return f"{seconds * sum(record.iterations or 0 for record in records) / spent:.0f}" if spent else DASH


def _main_share(records: Sequence[SetRecord]) -> str:
    """Return the share of the main architecture among the networks that were drawn; a dash if that is not known."""
    drawn = [
        (record.architectures[index], record.main) for record in records for draws in record.draws for index in draws
    ]
    if not drawn or any(main is None for _, main in drawn):
        return DASH
    return f"{sum(name == main for name, main in drawn) / len(drawn):.3f}"
