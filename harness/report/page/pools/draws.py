"""The section of pools: what they drew, beside the counts expected from their distributions."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import DDBenchError
from harness.learning.networks.lottery import Lottery, Resolve
from harness.planning.set_options import SetOptions
from harness.plugins.registry import Registry, Resolved
from harness.report.page.drawing.pictures import COLOURS, WIDTH, Picture, as_svg, drawing, short
from harness.report.page.view import Column, Entry, Group, Part, Section, Table, TableRow
from harness.report.tables.wording import DASH
from harness.types.names import parse_name
from harness.types.network import Architecture
from harness.types.plurals import counted
from harness.types.report import SetRecord
from harness.types.seeds import Streams

MOST_DRAWN = 12
"""Number of a pool's architectures that have their own row; the others are counted together."""


@dataclass(frozen=True)
class PoolDraws:
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
        return [(name, number, mean if self.expected is not None else None) for name, number, mean in rows]


def draws_of(pool: str, trajectories: Sequence[SetRecord], registry: Registry, full_name: str) -> PoolDraws:
    """Count the draws of a pool in trajectories, each represented by the record of its last set."""
    counts: Counter[str] = Counter()
    for record in trajectories:
        names = record.architectures
        counts.update(names[index] for draws in record.draws for index in draws)
    total = sum(counts.values())
    by_frequency = dict(counts.most_common())
    try:
        expected = _expected(full_name, trajectories, registry)
    except DDBenchError as error:
        return PoolDraws(pool, len(trajectories), total, by_frequency, None, str(error))
    if expected is None:
        return PoolDraws(pool, len(trajectories), total, by_frequency, None, "the pool adapts to what it observes")
    return PoolDraws(pool, len(trajectories), total, by_frequency, expected)


def _expected(pool: str, trajectories: Sequence[SetRecord], registry: Registry) -> dict[str, float] | None:
    """Sum the pool's probabilities over the draws; None if the pool adapts."""
    component = registry.resolve("pool", pool).make()
    # Its distribution depends on what it observed, which a fresh instance has not.
    if component.adapts:
        return None
    expected: dict[str, float] = defaultdict(float)
    for texts in dict.fromkeys(record.set_options for record in trajectories):
        alike = [record for record in trajectories if record.set_options == texts]
        # Streams(0): only probabilities are asked for, nothing is drawn.
        lottery = Lottery(component, _resolver(registry, texts), Streams(0))
        for iteration in range(max(len(record.draws) for record in alike)):
            draws = sum(len(record.draws[iteration]) for record in alike if iteration < len(record.draws))
            for architecture, probability in lottery.mixture(iteration):
                expected[str(architecture)] += draws * probability
    return dict(expected)


def _resolver(registry: Registry, set_options: Sequence[str]) -> Resolve:
    """Return what looks up an architecture as the trajectories did: with the options that were set for it."""
    options = SetOptions.read(set_options, registry)

    def resolve(text: str) -> Resolved[Architecture[Any]]:
        name = parse_name(text)
        return registry.resolve("architecture", options.complete(name, registry.find("architecture", name.name), {}))

    return resolve


def draw_bars(draws: PoolDraws) -> Picture:
    """Draw a bar for the count of each architecture, and a line at its expected count."""
    rows = draws.rows
    with drawing(WIDTH, 0.7 + 0.26 * len(rows)) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(rows))[::-1]
        axes.barh(places, [count for _, count, _ in rows], height=0.62, color=COLOURS[0], label="drawn")
        for place, (_, _, mean) in zip(places, rows, strict=True):
            if mean is not None:
                label = "expected" if place == 0 else None
                axes.plot([mean, mean], [place - 0.42, place + 0.42], color=COLOURS[1], linewidth=2.2, label=label)
        axes.set_yticks(places, [short(name, 40) for name, _, _ in rows])
        axes.set_xlabel("networks")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower right")
        counts = "; ".join(f"{name} {count}" for name, count, _ in rows)
        return as_svg(figure, f"Networks drawn by {draws.pool}: {counts}", draws.pool)


def pools_section(
    trajectories: Sequence[SetRecord], registry: Registry, pool_names: Mapping[str, str]
) -> Section | None:
    """Return the actual and the expected draws of each pool, as pictures and as tables.

    Args:
        trajectories: the last set of each.
        registry: finds pools and architectures.
        pool_names: full names of the pools that have shorter ones in ``trajectories``.
    """
    by_pool: dict[str, list[SetRecord]] = defaultdict(list)
    for record in trajectories:
        if record.pool and record.draws:
            by_pool[record.pool].append(record)
    pictures, tables = [], []
    for index, (pool, records) in enumerate(sorted(by_pool.items())):
        draws = draws_of(pool, records, registry, pool_names.get(pool, pool))
        tables.append(_table(f"pool-{index}", draws))
        if len(draws.rows) > 1:
            pictures.append(draw_bars(draws))
    intro = [
        "Over all methods, data sets and distillations: how often each pool drew each architecture, and how often it "
        "is expected to by its distribution."
    ]
    return Section("pools", "What the pools drew", intro, [Part(pictures=pictures, folded=tables)]) if tables else None


def _table(name: str, draws: PoolDraws) -> Table:
    rows = [
        TableRow(architecture, [Entry(f"{number:,}"), *_expected_of(expected_count, draws.total)])
        for architecture, number, expected_count in draws.rows
    ]
    notes = [f"Expected counts are unknown: {draws.reason}"] if draws.reason else []
    trajectories = counted(draws.trajectories, "trajectory", "trajectories")
    columns = [Column("architecture")]
    columns += [Column(text, number=True) for text in ("drawn", "expected", "mean probability")]
    return Table(
        name, f"{draws.pool}: {counted(draws.total, 'network')} in {trajectories}", columns, [Group("", rows)], notes
    )


def _expected_of(expected_count: float | None, total: int) -> list[Entry]:
    """Return the expected count, and the pool's mean probability over all draws."""
    if expected_count is None:
        return [Entry(DASH), Entry(DASH)]
    return [Entry(f"{expected_count:,.1f}"), Entry(f"{expected_count / total:.4f}")]
