"""DD-Ranking's label-robust and augmentation-robust scores (Li and others, 2025), from the scores in stores."""

import math
import shlex
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.report.comparing.ambiguous_names import distinguish
from harness.report.comparing.arm_scores import ArmScores, Unit
from harness.report.comparing.code_versions import CodeVersions, mixed_code_warning
from harness.report.comparing.question import values_meant_by
from harness.report.comparing.statistics import std
from harness.report.tables.comparison_table import Column, Sheet, SheetCell
from harness.report.tables.formats import markdown
from harness.report.tables.wording import real_data_lines, real_data_mark
from harness.types.data.labels import LabelKind
from harness.types.names import name_or_text
from harness.types.options import Options, option
from harness.types.report import Report, Results
from harness.types.score import Score

_SOURCE = "DD-Ranking"
Place = tuple[str, int | None, str]
"""Data set, images per class and architecture, within which scores are compared."""
Line = tuple[str, str | None, int | None]
"""Method, pool and iterations."""


class RobustOptions(Options):
    """Options of `RobustScores`; evaluators are matched by name and by the options in brackets."""

    hard: str = option(
        "plain[protocol=v1]",
        "evaluator that trains on hard labels without augmentation; of sets with soft labels one with labels=hard",
        source=_SOURCE,
    )
    own: str | None = option(None, "evaluator that the methods' authors use; auto: as hard", source=_SOURCE)
    augmented: str = option("plain[protocol=dsa]", "evaluator with augmentation", source=_SOURCE)
    bare: str | None = option(
        None, "evaluator without augmentation that the augmented one is beside, of the same labels; auto: as hard",
        source=_SOURCE,
    )  # fmt: skip
    whole: str = option("whole", "method that takes all training images")
    random: str = option("random", "method that draws real images")
    weight: float = option(0.5, "w, the share of the improvement over random images", source=_SOURCE, ge=0, le=1)
    gamma: float = option(0.5, "the share of evaluation with augmentation", source=_SOURCE, ge=0, le=1)


def normalised(value: float) -> float:
    """Map [-1, 1] to [0, 1]: (e^value - e^-1) / (e - e^-1)."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))


def label_robust(own: float, random: float, hard: float, whole: float, weight: float) -> float:
    """Return LRS from accuracies as fractions: gain over random images against the loss of hard labels to real data."""
    return normalised(weight * (own - random) - (1 - weight) * (whole - hard))


def augmentation_robust(
    augmented: float, random_augmented: float, bare: float, random_bare: float, gamma: float
) -> float:
    """Return ARS from accuracies as fractions: gain over random images with augmentation and without."""
    return normalised(gamma * (augmented - random_augmented) + (1 - gamma) * (bare - random_bare))


@dataclass(frozen=True)
class Robust:
    """LRS and ARS of a method and pool in one place, a value for each distillation; empty if baselines are missing."""

    place: Place
    method: str
    pool: str | None
    iterations: int | None
    lrs: tuple[float, ...]
    ars: tuple[float, ...]


class RobustScores(Report[RobustOptions]):
    """A Markdown table of both scores, each as mean and standard deviation over distillations.

    Accuracies are fractions, as the formulas require; DD-Ranking's code passes percentages. They are measured after the
    last epoch, and nothing is tuned on test images.
    """

    Options = RobustOptions
    suffix = ".md"

    def render(self, results: Results) -> str:
        """Render the table of both scores as Markdown.

        Raises:
            UsageError: there are no scores on test, or no method has the baselines and evaluators that either score
                needs.
        """
        scores, distinctions = distinguish(
            [score for score in results.scores if score.score_on == "test"], by_store=False
        )
        if not scores:
            raise UsageError("there are no scores on test: run `ddbench run` first")
        mixed = mixed_code_warning(list(_code_by_place(scores)))
        notes = [*([mixed] if mixed else []), *results.notes, *distinctions]
        evaluators = self._evaluators(scores)
        soft = {} if _makes_hard(evaluators["hard"]) else _soft_label_lines(results, scores)
        robust = list(robust_scores(scores, evaluators, self.options, soft))
        lacking = [
            name for name, some in (("LRS", _any_value(robust, "lrs")), ("ARS", _any_value(robust, "ars"))) if not some
        ]
        if len(lacking) == 2:
            raise UsageError(self._missing(scores, evaluators))
        notes += [f"{name} is incomplete: {self._missing(scores, evaluators)}" for name in lacking]
        hard = evaluators["hard"] or self.options.hard
        notes += [
            f"{name} has {soft[name]} labels, and {hard} does not train on them as hard labels: no LRS; set hard= to "
            "an evaluator with labels=hard"
            for name in sorted(soft)
        ]
        with_real_data = {score.evaluator for score in scores if score.real_data}
        marked = {role for role, name in evaluators.items() if name in with_real_data}
        return markdown(_sheet(robust, evaluators, marked, self.options, notes))

    def _evaluators(self, scores: Sequence[Score]) -> dict[str, str | None]:
        """Return the evaluator of each role as the scores name it; None if no score has it."""
        roles = {"hard": self.options.hard, "own": self.options.own or self.options.hard}
        roles["augmented"], roles["bare"] = self.options.augmented, self.options.bare or self.options.hard
        by_role: dict[str, str | None] = {}
        for role, text in roles.items():
            names = values_meant_by(text, scores, "evaluator")
            if len(names) > 1:
                raise UsageError(f"{role}={text} is ambiguous: set {role}= to one of {', '.join(names)}")
            by_role[role] = names[0] if names else None
        return by_role

    def _missing(self, scores: Sequence[Score], evaluators: Mapping[str, str | None]) -> str:
        """Describe what is missing, and the command that computes it."""
        texts = {"hard": self.options.hard, "own": self.options.own or self.options.hard}
        texts["augmented"], texts["bare"] = self.options.augmented, self.options.bare or self.options.hard
        methods_there = {score.names["method"].name for score in scores}
        lacking = [f"evaluator {texts[role]}" for role, name in evaluators.items() if name is None]
        lacking += [f"method {name}" for name in (self.options.random, self.options.whole) if name not in methods_there]
        what = " and ".join(dict.fromkeys(lacking)) or "a distillation that method and random images both have"
        # A command can only be written for sets that ddbench distilled.
        own = [score for score in scores if not score.from_file] or scores
        first = next((score for score in own if score.ipc is not None), own[0])
        same = [score for score in own if (score.dataset, score.ipc) == (first.dataset, first.ipc)]
        words = ["ddbench", "run", "--dataset", str(first.typed_name("dataset"))]
        words += ["--keep-hold-out"] if first.hold_out else []
        methods = [score.typed_name("method") for score in same]
        words += _option_words("--method", [self.options.random, self.options.whole, *methods])
        words += _option_words("--pool", [score.typed_name("pool") for score in same])
        words += _option_words("--evaluator", [evaluators[role] or text for role, text in texts.items()])
        words += _option_words("--architecture", [score.typed_name("architecture") for score in same])
        iterations = sorted({score.iterations for score in same if score.iterations is not None})
        words += ["--iterations", ",".join(map(str, iterations))] if iterations else []
        # Counts are highest index + 1, so that the same command adds nothing to what is there.
        words += ["--ipc", str(first.ipc or 1), "--distillations", str(1 + max(score.distillation for score in same))]
        words += ["--students", str(1 + max(score.student for score in same)), "--seed", str(first.seed)]
        return f"no scores of {what}: run {shlex.join([*words, '--store', first.store])}"


def _any_value(several: Iterable["Robust"], name: str) -> bool:
    return any(getattr(robust, name) for robust in several)


def _soft_label_lines(results: Results, scores: Sequence[Score]) -> dict[str, LabelKind | None]:
    """Return the kind of labels by method, with its pool, whose sets have no hard ones; one set of each is read."""
    one_of_each = {(score.method, score.pool): (score.store, score.set_key) for score in scores}
    sets = {(record.store, record.key): record for record in results.sets}
    wanted = {_name(*line): sets[place] for line, place in one_of_each.items() if place in sets and line[1]}
    kinds = {name: record.load().label_kind for name, record in wanted.items()}
    return {name: kind for name, kind in kinds.items() if kind != "hard"}


def _makes_hard(evaluator: str | None) -> bool:
    """Return whether an evaluator makes hard labels of a set's own, as its name says."""
    return evaluator is not None and ("labels", "hard") in name_or_text(evaluator).options


def _name(method: str, pool: str | None) -> str:
    return f"{method} through {pool}" if pool else method


def robust_scores(
    scores: Sequence[Score],
    evaluators: Mapping[str, str | None],
    options: RobustOptions,
    soft: Collection[str] = (),
) -> Iterator[Robust]:
    """Yield the scores of each method, pool, iterations and place, for distillations that random images have too.

    Args:
        scores: scores on test.
        evaluators: by role (``hard``, ``own``, ``augmented``, ``bare``), as the scores name them.
        options: weights and the names of the baselines.
        soft: methods, with their pools, that have no score with hard labels.
    """
    arms = _arms(scores)
    heads = {line: arm.scores[0].names["method"].name for (_, line, _), arm in arms.items()}
    for place, line in sorted(dict.fromkeys((place, line) for place, line, _ in arms), key=str):
        method, pool, iterations = line
        if heads[line] in (options.whole, options.random):
            continue
        roles = ("own", "hard", "augmented", "bare")
        own, hard, augmented, unaugmented = (_means(arms, place, line, evaluators[role]) for role in roles)
        # Random images are drawn through no pool and after no iterations.
        drawn: Line = (options.random, None, None)
        real = {role: _means(arms, place, drawn, name) for role, name in evaluators.items()}
        whole = _means(arms, (place[0], None, place[2]), (options.whole, None, None), evaluators["hard"])
        lrs, ars = [], []
        if whole and _name(method, pool) not in soft:
            upper = statistics.fmean(whole.values())
            for ours, random, bare in _join_by_distillation(own, real["own"], hard):
                lrs.append(label_robust(ours, random, bare, upper, options.weight))
        for ours, random, bare, random_bare in _join_by_distillation(
            augmented, real["augmented"], unaugmented, real["bare"]
        ):
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
    """Yield, for each place, the versions of the code behind the accuracies of its scores."""
    places: dict[Place, dict[str, CodeVersions]] = {}
    for (place, (method, pool, _), evaluator), arm in _arms(scores).items():
        # A set of all training images is a baseline of sets of any size, so sizes do not separate places here.
        name = f"{_name(method, pool)}, {evaluator}, {place[2]}"
        places.setdefault((place[0], None, place[2]), {})[f"{name}, ipc {place[1]}"] = arm.code
    yield from places.values()


def _means(
    arms: Mapping[tuple[Place, Line, str], ArmScores], place: Place, line: Line, evaluator: str | None
) -> dict[Unit, float]:
    """Return the mean of the students of each distillation."""
    arm = arms.get((place, line, evaluator or ""))
    return {unit: statistics.fmean(students.values()) for unit, students in arm.values.items()} if arm else {}


def _join_by_distillation(*parts: Mapping[Unit, float]) -> Iterator[tuple[float, ...]]:
    """Yield the values of each distillation that all parts have."""
    for unit in parts[0]:
        if all(unit in part for part in parts):
            yield tuple(part[unit] for part in parts)


def _option_words(word: str, values: Iterable[str | None]) -> list[str]:
    return [part for value in dict.fromkeys(values) if value is not None for part in (word, value)]


def _sheet(
    several: Sequence[Robust],
    evaluators: Mapping[str, str | None],
    with_real_data: Collection[str],
    options: RobustOptions,
    notes: Sequence[str],
) -> Sheet:
    """Lay out the table; roles whose evaluator used real images are in ``with_real_data``."""
    marks = [
        real_data_mark(any(role in with_real_data for role in roles))
        for roles in (("own", "hard"), ("augmented", "bare"))
    ]
    columns = [Column(text) for text in ("dataset", "ipc", "method", "pool", "iterations", "architecture")]
    columns += [Column("LRS", number=True), Column("ARS", number=True), Column("distillations", number=True)]
    lines = []
    for robust in several:
        dataset, ipc, architecture = robust.place
        names = (dataset, ipc, robust.method, robust.pool, robust.iterations, architecture)
        cells = [SheetCell("–" if value is None else str(value)) for value in names]
        cells += [
            SheetCell(_spread(values) + (mark if values else ""))
            for values, mark in zip((robust.lrs, robust.ars), marks, strict=True)
        ]
        lines.append((*cells, SheetCell(str(max(len(robust.lrs), len(robust.ars))))))
    named = ", ".join(f"{role} {name or 'missing'}" for role, name in evaluators.items())
    caption = [
        "As defined by DD-Ranking, from accuracies as fractions after the last epoch, not tuned on test images: mean ± "
        "standard deviation (ddof 1) over distillations; 0 to 1, higher is better.",
        "Both: (e^a − e^−1) / (e − e^−1), 0 for a = −1 and 1 for a = 1.",
        f"LRS: a = {options.weight:g} (own − random) − {1 - options.weight:g} (whole − hard).",
        f"ARS: a = {options.gamma:g} (augmented − random augmented) + {1 - options.gamma:g} (bare − random).",
        "DD-Ranking's code puts percent into the same formulas, so that its numbers leave the range from 0 to 1.",
        f"Evaluators: {named}. – : a baseline or an evaluator is missing.",
        *real_data_lines(bool(with_real_data)),
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
