"""Panels: scores as the page's tables show them, lines by architectures."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.comparison_warnings import lines_of
from harness.report.comparing.effects import effect_of
from harness.report.comparing.question import in_natural_order
from harness.report.comparing.statistics import holm
from harness.report.tables.wording import per_class
from harness.types.score import Score

LEVEL = 0.95
_COMPARED = ("method", "pool")
"""Axes along which the lines of a panel are compared."""
MOST_LINES = 40
"""Maximum number of rows that pictures show and that are tested against each other."""


@dataclass(frozen=True)
class Line:
    """A line of a panel: a method with a pool after a number of iterations.

    Attributes:
        pool: the pool; None for a method that draws no network.
        iterations: the iterations; None for a method that takes no steps.
        from_file: whether the sets come from a file.
    """

    method: str
    pool: str | None
    iterations: int | None
    from_file: bool = False

    @property
    def is_baseline(self) -> bool:
        """Whether nothing was learned: the set consists of real images."""
        return self.pool is None and self.iterations is None and not self.from_file

    @property
    def end(self) -> "Line":
        """The line without its iterations."""
        return replace(self, iterations=None)

    def __str__(self) -> str:
        return f"{self.method} · {self.pool}" if self.pool else self.method


Tiles = Mapping[tuple[Line, str], ArmScores]
"""Arms by line and architecture."""


@dataclass(frozen=True, eq=False)
class Panel:
    """The scores of one table: one data set, number of images per class, evaluator, split and precision.

    Attributes:
        id: unique among the panels of a page.
        lines: lines of real images first, then by pool, method and iterations.
        architectures: architectures of the students, in the order of their names.
        tiles: the scores by line and architecture.
        protocols: evaluation protocols of the scores.
    """

    id: str
    dataset: str
    ipc: int | None
    evaluator: str
    score_on: str
    precision: str
    lines: tuple[Line, ...]
    architectures: tuple[str, ...]
    tiles: Tiles
    protocols: tuple[str, ...]

    @property
    def title(self) -> str:
        """The values that all numbers of the panel have in common."""
        size = f", {per_class(self.ipc)}" if self.ipc else ""
        precision = f", {self.precision}" if self.precision not in ("fp32", "unknown") else ""
        split = f", on {self.score_on}" if self.score_on != "test" else ""
        return f"{self.dataset}{size}, {self.evaluator}{precision}{split}"

    @property
    def last(self) -> tuple[Line, ...]:
        """The lines with the most iterations of those that differ only in iterations."""
        return tuple({line.end: line for line in self.lines}.values())

    @property
    def is_long(self) -> bool:
        """Whether the panel has more rows than a picture can show."""
        return len(self.last) > MOST_LINES

    def holds(self, condition: Mapping[str, Any]) -> bool:
        """Return whether a condition of a comparison belongs to this panel."""
        fields = ("dataset", "ipc", "evaluator", "precision")
        return all(condition.get(field) == getattr(self, field) for field in fields)

    def mean_of(self, line: Line) -> float | None:
        """Return the mean of a line over all architectures in percent; None if one is missing."""
        arms = [self.tiles.get((line, architecture)) for architecture in self.architectures]
        return 100 * statistics.fmean(arm.mean for arm in arms if arm) if all(arms) else None

    def best(self) -> set[tuple[Line, str]]:
        """Return the learned line of each column that is significantly better than all others, if there is one.

        Significant: at least two distillations in common, and a paired t test over them below 5 % against each of the
        others after Holm's correction over all pairs of the column, since the best line is selected after looking.
        """
        winners: set[tuple[Line, str]] = set()
        for architecture in () if self.is_long else self.architectures:
            lines = [line for line in self.last if not line.is_baseline and (line, architecture) in self.tiles]
            winner = _winner([self.tiles[line, architecture] for line in lines])
            if winner is not None:
                winners.add((lines[winner], architecture))
        return winners


def _winner(arms: Sequence[ArmScores]) -> int | None:
    if len(arms) < 2 or min(len(arm.values) for arm in arms) < 2:
        return None
    pairs = list(combinations(range(len(arms)), 2))
    # The best by its mean is selected after looking, so that all pairs count as tests, not only its own.
    top = max(range(len(arms)), key=lambda index: arms[index].mean)
    effects = [effect_of(arms[a], arms[b], LEVEL) for a, b in pairs]
    adjusted = holm([1.0 if effect.estimate.p is None else effect.estimate.p for effect in effects])
    sure = [
        effect.design == "distillations" and p < 1 - LEVEL
        for (pair, effect, p) in zip(pairs, effects, adjusted, strict=True)
        if top in pair
    ]
    return top if all(sure) else None


def panels_of(scores: Iterable[Score], first_pool: str) -> list[Panel]:
    """Group scores into panels; sets of all images are in every panel of their data set and evaluator.

    Args:
        scores: scores with qualified names.
        first_pool: the pool whose lines come first.
    """
    grouped: dict[tuple[Any, ...], list[Score]] = defaultdict(list)
    everywhere: dict[tuple[Any, ...], list[Score]] = defaultdict(list)
    for score in scores:
        common = (score.dataset, score.evaluator, score.score_on)
        if score.ipc is None:
            everywhere[common].append(score)
        else:
            grouped[*common, score.ipc, score.precision].append(score)
    # Real images are the baseline of sets of every size.
    for common, whole in everywhere.items():
        beside = [key for key in grouped if key[:3] == common] or [(*common, None, whole[0].precision)]
        for key in beside:
            grouped[key].extend(whole)
    order = sorted(grouped, key=lambda key: (*key[:3], key[3] or 0, key[4]))
    return [_panel(f"panel-{place}", key, grouped[key], first_pool) for place, key in enumerate(order)]


def _panel(name: str, key: tuple[Any, ...], scores: Sequence[Score], first_pool: str) -> Panel:
    tiles: dict[tuple[Line, str], list[Score]] = defaultdict(list)
    first_pools = pools_called(scores, first_pool)
    for score in scores:
        line = Line(score.method, score.pool, score.iterations, score.from_file)
        tiles[line, score.architecture].append(score)

    def order(line: Line) -> tuple[Any, ...]:
        pool = line.pool or ""
        return not line.is_baseline, bool(pool), pool not in first_pools, pool, line.method, line.iterations or 0

    dataset, evaluator, score_on, ipc, precision = key
    return Panel(
        id=name,
        dataset=dataset,
        ipc=ipc,
        evaluator=evaluator,
        score_on=score_on,
        precision=precision,
        lines=tuple(sorted({line for line, _ in tiles}, key=order)),
        architectures=tuple(in_natural_order(score.architecture for score in scores)),
        tiles={place: ArmScores.of(str(place[0]), students) for place, students in tiles.items()},
        protocols=tuple(sorted({score.protocol for score in scores})),
    )


def warnings_on(panels: Iterable[Panel]) -> tuple[str, ...]:
    """Return warnings about lines of a panel that differ in more than their names say."""
    several = list(panels)
    side_by_side = [(_COMPARED, list(_first_arms(panel).values())) for panel in several]
    code = [
        {f"{line}, {name}": panel.tiles[line, name].code for line in panel.last if (line, name) in panel.tiles}
        for panel in several
        for name in panel.architectures
    ]
    return lines_of(side_by_side, code)


def _first_arms(panel: Panel) -> dict[Line, ArmScores]:
    """Return the students of each line's first architecture, since the sets are the same for all architectures."""
    arms: dict[Line, ArmScores] = {}
    for line in panel.last:
        for architecture in panel.architectures:
            if (line, architecture) in panel.tiles:
                arms.setdefault(line, panel.tiles[line, architecture])
    return arms


def pools_called(scores: Iterable[Score], text: str) -> set[str]:
    """Return the pools among the scores that ``text`` names, with options or without."""
    named = {score.pool: score.names["pool"] for score in scores if score.pool}
    return {pool for pool, name in named.items() if text in (pool, str(name), name.name)}
