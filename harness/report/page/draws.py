"""The section of pools: what they drew, beside the counts expected from their distributions."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import DDBenchError
from harness.learning.pool_networks import Lottery
from harness.plugins.registry import Registry
from harness.report.page.pictures import COLOURS, WIDTH, Picture, as_svg, drawing, short
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.tables.wording import DASH
from harness.types.plurals import counted
from harness.types.report import SetRecord
from harness.types.seeds import Streams

MOST_DRAWN = 12
"""Number of a pool's architectures that have their own row; the others are counted together."""


@dataclass(frozen=True)
class Drawn:
    """The draws of a pool over all trajectories that used it.

    Attributes:
        pool: its name.
        trajectories: number of trajectories.
        total: number of networks that they drew.
        counts: number of draws by architecture, the most frequent first.
        expected: expected number of draws by architecture; None if unknown.
        reason: why it is unknown.
    """

    pool: str
    trajectories: int
    total: int
    counts: Mapping[str, int]
    expected: Mapping[str, float] | None
    reason: str = ""

    @property
    def rows(self) -> list[tuple[str, int, float | None]]:
        """The architectures with count and expected count; the rarest ones are summed up."""
        expected = self.expected or {}
        names = sorted({*self.counts, *expected}, key=lambda name: (-self.counts.get(name, 0), name))
        rows = [(name, self.counts.get(name, 0), expected.get(name, 0.0)) for name in names]
        if len(rows) > MOST_DRAWN:
            rest = rows[MOST_DRAWN - 1 :]
            together = (f"{len(rest)} others", sum(row[1] for row in rest), sum(row[2] for row in rest))
            rows = [*rows[: MOST_DRAWN - 1], together]
        return [(name, number, wanted if self.expected is not None else None) for name, number, wanted in rows]


def drawn_by(pool: str, trajectories: Sequence[SetRecord], registry: Registry) -> Drawn:
    """Count the draws of a pool in trajectories, each given by the record of its last set."""
    counts: Counter[str] = Counter()
    for record in trajectories:
        names = record.architectures
        counts.update(names[index] for draws in record.draws for index in draws)
    total = sum(counts.values())
    ordered = dict(counts.most_common())
    try:
        expected = _expected(pool, trajectories, registry)
    except DDBenchError as error:
        return Drawn(pool, len(trajectories), total, ordered, None, str(error))
    if expected is None:
        return Drawn(pool, len(trajectories), total, ordered, None, "the pool adapts to what it observes")
    return Drawn(pool, len(trajectories), total, ordered, expected)


def _expected(pool: str, trajectories: Sequence[SetRecord], registry: Registry) -> dict[str, float] | None:
    """Sum the pool's probabilities over the draws; None if the pool adapts."""
    component = registry.resolve("pool", pool).make()
    # Its distribution depends on what it observed, which a fresh instance has not.
    if component.adapts:
        return None
    # Streams(0): only probabilities are asked for, nothing is drawn.
    lottery = Lottery(component, lambda name: registry.resolve("architecture", name), Streams(0))
    expected: dict[str, float] = defaultdict(float)
    for iteration in range(max((len(record.draws) for record in trajectories), default=0)):
        draws = sum(len(record.draws[iteration]) for record in trajectories if iteration < len(record.draws))
        for architecture, probability in lottery.mixture(iteration):
            expected[str(architecture)] += draws * probability
    return dict(expected)


def draw_bars(drawn: Drawn) -> Picture:
    """Draw a bar for the count of each architecture, and a line at its expected count."""
    rows = drawn.rows
    with drawing(WIDTH, 0.7 + 0.26 * len(rows)) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(rows))[::-1]
        axes.barh(places, [count for _, count, _ in rows], height=0.62, color=COLOURS[0], label="drawn")
        for place, (_, _, wanted) in zip(places, rows, strict=True):
            if wanted is not None:
                label = "expected" if place == 0 else None
                axes.plot([wanted, wanted], [place - 0.42, place + 0.42], color=COLOURS[1], linewidth=2.2, label=label)
        axes.set_yticks(places, [short(name, 40) for name, _, _ in rows])
        axes.set_xlabel("networks")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower right")
        counts = "; ".join(f"{name} {count}" for name, count, _ in rows)
        return as_svg(figure, f"Networks drawn by {drawn.pool}: {counts}", drawn.pool)


def pools_section(trajectories: Sequence[SetRecord], registry: Registry) -> Section | None:
    """Return the actual and the expected draws of each pool, as pictures and as tables."""
    by_pool: dict[str, list[SetRecord]] = defaultdict(list)
    for record in trajectories:
        if record.pool and record.draws:
            by_pool[record.pool].append(record)
    pictures, tables = [], []
    for index, (pool, records) in enumerate(sorted(by_pool.items())):
        drawn = drawn_by(pool, records, registry)
        tables.append(_table(f"pool-{index}", drawn))
        if len(drawn.rows) > 1:
            pictures.append(draw_bars(drawn))
    intro = [
        "Over all methods, data sets and distillations: how often each pool drew each architecture, and how often it "
        "is expected to by its distribution."
    ]
    return Section("pools", "What the pools drew", intro, [Part(pictures=pictures, folded=tables)]) if tables else None


def _table(name: str, drawn: Drawn) -> Table:
    rows = [
        TableRow(architecture, [Entry(f"{number:,}"), *_expected_of(wanted, drawn.total)])
        for architecture, number, wanted in drawn.rows
    ]
    notes = [f"Expected counts are unknown: {drawn.reason}"] if drawn.reason else []
    trajectories = counted(drawn.trajectories, "trajectory", "trajectories")
    columns = [Column("architecture")]
    columns += [Column(text, number=True) for text in ("drawn", "expected", "mean probability")]
    return Table(
        name, f"{drawn.pool}: {counted(drawn.total, 'network')} in {trajectories}", columns, [Group("", rows)], notes
    )


def _expected_of(wanted: float | None, total: int) -> list[Entry]:
    """Return the expected count, and the pool's mean probability over all draws."""
    if wanted is None:
        return [Entry(DASH), Entry(DASH)]
    return [Entry(f"{wanted:,.1f}"), Entry(f"{wanted / total:.4f}")]
