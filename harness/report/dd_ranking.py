"""DD-Ranking's label-robust and augmentation-robust scores (Li and others, 2025), from the scores in stores."""

import math
import shlex
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.report.comparing.ambiguous_names import told_apart
from harness.report.comparing.arm_scores import ArmScores, Unit
from harness.report.comparing.code_versions import CodeVersions, mixed_code_warning
from harness.report.comparing.question import matching
from harness.report.comparing.spread import std
from harness.report.tables.comparison_table import Cell, Column, Sheet
from harness.report.tables.formats import markdown
from harness.report.tables.hold_outs import typed_dataset
from harness.types.options import Options, option
from harness.types.report import Report, Results
from harness.types.score import Score

_SOURCE = "DD-Ranking"
Place = tuple[str, int | None, str]
"""Data set, images per class and architecture: where scores are compared."""
Line = tuple[str, str | None, int | None]
"""Method, pool and iterations."""


class RobustOptions(Options):
    """Options of `RobustScores`; an evaluator is found by its name and the options given with it."""

    hard: str = option("plain[protocol=v1]", "evaluator that trains on hard labels without augmentation")
    own: str | None = option(None, "evaluator that the methods' authors use; auto: as hard", source=_SOURCE)
    augmented: str = option("plain[protocol=dsa]", "evaluator with augmentation", source=_SOURCE)
    whole: str = option("whole", "method that takes all training images")
    random: str = option("random", "method that draws real images")
    weight: float = option(0.5, "w, the share of the improvement over random images", source=_SOURCE, ge=0, le=1)
    gamma: float = option(0.5, "the share of evaluation with augmentation", source=_SOURCE, ge=0, le=1)


def normalised(value: float) -> float:
    """(e^value - e^-1) / (e - e^-1): 0 at -1 and 1 at 1."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))


def label_robust(own: float, random: float, hard: float, whole: float, weight: float) -> float:
    """LRS of accuracies as fractions: improvement over random against what hard labels lose to real data."""
    return normalised(weight * (own - random) - (1 - weight) * (whole - hard))


def augmentation_robust(
    augmented: float, random_augmented: float, bare: float, random_bare: float, gamma: float
) -> float:
    """ARS of accuracies as fractions: improvement over random with augmentation and without."""
    return normalised(gamma * (augmented - random_augmented) + (1 - gamma) * (bare - random_bare))


@dataclass(frozen=True)
class Robust:
    """The scores of one method and pool in one place, a value a distillation; empty where baselines are missing."""

    place: Place
    method: str
    pool: str | None
    iterations: int | None
    lrs: tuple[float, ...]
    ars: tuple[float, ...]


class RobustScores(Report[RobustOptions]):
    """A Markdown table of both scores, each a mean and a standard deviation over distillations.

    Accuracies are fractions, as the formulas need them; DD-Ranking's code feeds percentages. They are those after the
    last epoch, and nothing is tuned on test images.
    """

    Options = RobustOptions
    suffix = ".md"

    def render(self, results: Results) -> str:
        """The table.

        Raises:
            UsageError: there are no scores on test, or no method has the baselines and evaluators that either score
                needs.
        """
        scores, told = told_apart([score for score in results.scores if score.score_on == "test"], by_store=False)
        if not scores:
            raise UsageError("there are no scores on test: `ddbench run` makes some")
        mixed = mixed_code_warning(list(_code_by_place(scores)))
        notes = [*([mixed] if mixed else []), *results.notes, *told]
        evaluators = self._evaluators(scores)
        soft = _soft(results, scores)
        found = list(robust_scores(scores, evaluators, self.options, soft))
        lacking = [name for name, some in (("LRS", _any(found, "lrs")), ("ARS", _any(found, "ars"))) if not some]
        if len(lacking) == 2:
            raise UsageError(self._missing(scores, evaluators))
        notes += [f"{name} lacks something: {self._missing(scores, evaluators)}" for name in lacking]
        notes += [f"{name} has soft labels, which no evaluator trains on as hard ones: no LRS" for name in sorted(soft)]
        return markdown(_sheet(found, evaluators, self.options, notes))

    def _evaluators(self, scores: Sequence[Score]) -> dict[str, str | None]:
        """By role, the evaluator as it stands in the scores; None where there is none."""
        roles = {"hard": self.options.hard, "own": self.options.own or self.options.hard}
        roles["augmented"] = self.options.augmented
        found: dict[str, str | None] = {}
        for role, text in roles.items():
            names = matching(text, scores, "evaluator")
            if len(names) > 1:
                raise UsageError(f"{role}={text} may be any of {', '.join(names)}: give one of them as {role}=")
            found[role] = names[0] if names else None
        return found

    def _missing(self, scores: Sequence[Score], evaluators: Mapping[str, str | None]) -> str:
        """What is lacking, and the command that makes it."""
        texts = {"hard": self.options.hard, "own": self.options.own or self.options.hard}
        texts["augmented"] = self.options.augmented
        there = {score.method.partition("[")[0] for score in scores}
        lacking = [f"evaluator {texts[role]}" for role, name in evaluators.items() if name is None]
        lacking += [f"method {name}" for name in (self.options.random, self.options.whole) if name not in there]
        what = " and ".join(dict.fromkeys(lacking)) or "a distillation that method and random images both have"
        own = [score for score in scores if not score.from_file] or scores
        first = next((score for score in own if score.ipc is not None), own[0])
        same = [score for score in own if (score.dataset, score.ipc) == (first.dataset, first.ipc)]
        words = ["ddbench", "run", "--dataset", typed_dataset(first), *(["--keep-hold-out"] if first.hold_out else [])]
        words += _repeated("--method", [self.options.random, self.options.whole, *(score.method for score in same)])
        words += _repeated("--pool", [score.pool for score in same])
        words += _repeated("--evaluator", [evaluators[role] or text for role, text in texts.items()])
        words += _repeated("--architecture", [score.architecture for score in same])
        iterations = sorted({score.iterations for score in same if score.iterations is not None})
        words += ["--iterations", ",".join(map(str, iterations))] if iterations else []
        words += ["--ipc", str(first.ipc or 1), "--distillations", str(1 + max(score.distillation for score in same))]
        words += ["--students", str(1 + max(score.student for score in same)), "--seed", str(first.seed)]
        return f"no scores of {what}: {shlex.join([*words, '--store', first.store])} makes them"


def _any(found: Iterable["Robust"], name: str) -> bool:
    return any(getattr(one, name) for one in found)


def _soft(results: Results, scores: Sequence[Score]) -> set[str]:
    """Names of methods, with their pools, whose sets have soft labels; one set of each is read."""
    one_of_each = {(score.method, score.pool): (score.store, score.set_key) for score in scores}
    sets = {(record.store, record.key): record for record in results.sets}
    wanted = {_name(*line): sets[place] for line, place in one_of_each.items() if place in sets and line[1]}
    return {name for name, record in wanted.items() if record.load().label_kind == "soft"}


def _name(method: str, pool: str | None) -> str:
    return f"{method} through {pool}" if pool else method


def robust_scores(
    scores: Sequence[Score],
    evaluators: Mapping[str, str | None],
    options: RobustOptions,
    soft: Collection[str] = (),
) -> Iterator[Robust]:
    """For each method, pool, iterations and place, the scores of each distillation that random images have too.

    Args:
        scores: on test.
        evaluators: by role (``hard``, ``own``, ``augmented``), as they stand in the scores.
        options: weights and the names of the baselines.
        soft: names of methods, with their pools, that have no score with hard labels.
    """
    arms = _arms(scores)
    for place, line in sorted(dict.fromkeys((place, line) for place, line, _ in arms), key=str):
        method, pool, iterations = line
        if method.partition("[")[0] in (options.whole, options.random):
            continue
        own, hard, augmented = (_means(arms, place, line, evaluators[role]) for role in ("own", "hard", "augmented"))
        drawn: Line = (options.random, None, None)
        real = {role: _means(arms, place, drawn, name) for role, name in evaluators.items()}
        whole = _means(arms, (place[0], None, place[2]), (options.whole, None, None), evaluators["hard"])
        lrs, ars = [], []
        if whole and _name(method, pool) not in soft:
            upper = statistics.fmean(whole.values())
            for ours, random, bare in _joined(own, real["own"], hard):
                lrs.append(label_robust(ours, random, bare, upper, options.weight))
        for ours, random, bare, random_bare in _joined(augmented, real["augmented"], hard, real["hard"]):
            ars.append(augmentation_robust(ours, random, bare, random_bare, options.gamma))
        yield Robust(place, method, pool, iterations, tuple(lrs), tuple(ars))


def _arms(scores: Iterable[Score]) -> dict[tuple[Place, Line, str], ArmScores]:
    grouped: dict[tuple[Place, Line, str], list[Score]] = {}
    for score in scores:
        place = (score.dataset, score.ipc, score.architecture)
        line = (score.method, score.pool, score.iterations)
        grouped.setdefault((place, line, score.evaluator), []).append(score)
    return {key: ArmScores.of(key[1][0], members) for key, members in grouped.items()}


def _code_by_place(scores: Iterable[Score]) -> Iterator[dict[str, CodeVersions]]:
    """For each place, the versions of the code behind the means that its scores are made of."""
    places: dict[Place, dict[str, CodeVersions]] = {}
    for (place, (method, pool, _), evaluator), arm in _arms(scores).items():
        # All training images stand beside sets of any size.
        name = f"{_name(method, pool)}, {evaluator}, {place[2]}"
        places.setdefault((place[0], None, place[2]), {})[f"{name}, ipc {place[1]}"] = arm.code
    yield from places.values()


def _means(
    arms: Mapping[tuple[Place, Line, str], ArmScores], place: Place, line: Line, evaluator: str | None
) -> dict[Unit, float]:
    """By distillation, the mean of its students."""
    arm = arms.get((place, line, evaluator or ""))
    return {unit: statistics.fmean(students.values()) for unit, students in arm.values.items()} if arm else {}


def _joined(*parts: Mapping[Unit, float]) -> Iterator[tuple[float, ...]]:
    """The values of each distillation that all parts have."""
    for unit in parts[0]:
        if all(unit in part for part in parts):
            yield tuple(part[unit] for part in parts)


def _repeated(word: str, values: Iterable[str | None]) -> list[str]:
    return [part for value in dict.fromkeys(values) if value is not None for part in (word, value)]


def _sheet(
    found: Sequence[Robust], evaluators: Mapping[str, str | None], options: RobustOptions, notes: Sequence[str]
) -> Sheet:
    columns = [Column(text) for text in ("dataset", "ipc", "method", "pool", "iterations", "architecture")]
    columns += [Column("LRS", number=True), Column("ARS", number=True), Column("distillations", number=True)]
    lines = []
    for one in found:
        dataset, ipc, architecture = one.place
        told = (dataset, ipc, one.method, one.pool, one.iterations, architecture)
        cells = [Cell("–" if value is None else str(value)) for value in told]
        cells += [Cell(_spread(values)) for values in (one.lrs, one.ars)]
        lines.append((*cells, Cell(str(max(len(one.lrs), len(one.ars))))))
    named = ", ".join(f"{role} {name or 'not there'}" for role, name in evaluators.items())
    caption = [
        "After DD-Ranking, with accuracies as fractions after the last epoch, nothing tuned on test images: mean ± "
        "standard deviation (ddof 1) over distillations; 0 to 1, higher is better.",
        "Both: (e^a − e^−1) / (e − e^−1), 0 for a = −1 and 1 for a = 1.",
        f"LRS: a = {options.weight:g} (own − random) − {1 - options.weight:g} (whole − hard).",
        f"ARS: a = {options.gamma:g} (augmented − random augmented) + {1 - options.gamma:g} (hard − random).",
        f"Evaluators: {named}. – : a baseline or an evaluator is not there.",
        *notes,
    ]
    return Sheet(
        "Label-robust and augmentation-robust scores", tuple(columns), tuple(lines), frozenset(), {}, tuple(caption)
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = std(values)
    return f"{statistics.fmean(values):.3f}" + (f" ± {spread:.3f}" if spread is not None else "")
