"""The six questions: which scores answer them, and what they say."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from answers.grid import arms, is_at_chance, is_lost
from answers.judging import LEVEL, OPEN, Verdict, of_additivity, of_difference, of_explanation, of_gain

from harness.report.comparing.arm_scores import ArmScores
from harness.report.comparing.comparison import Comparison, compare
from harness.report.comparing.question import Question
from harness.report.comparing.statistics import paired
from harness.report.published import nearest_published
from harness.report.scores import Scores

SINGLE, SIMILAR, RELEASED = "single", "main-similar", "main-similar[preset=as-released]"
PLAIN, HALF = "plain", "plain[ce_weight=0.5]"
UNSEEN = ("others", "architecture")
"""The mean of the architectures that no set was learned with, and each architecture."""
ALONE = "file:res_DC_CIFAR10_ConvNet_{ipc}ipc_1000.pt"
POOLED = "file:modelpool_res_DC_CIFAR10_ConvNet_{ipc}ipc_1000.pt"
"""The sets that the paper's authors published, as they stand in tables."""
TABLE_4 = "plain v1, apparently with half the cross-entropy"
TABLE_5 = "plain v1"
"""Protocols of the published tables."""


@dataclass(frozen=True)
class Finding:
    """One effect with what it says: ``where`` names its condition, ``what`` the two arms, ``over`` the students."""

    where: str
    what: str
    over: str
    estimate: object
    arms: tuple
    verdict: Verdict


@dataclass(frozen=True)
class Answer:
    """What the stores say of one question; without findings it was not run.

    ``counts`` belong to the answer itself, ``notes`` stand beside its tables.
    """

    number: int
    question: str
    findings: list[Finding] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    counts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def answers(scores):
    """The six answers, from the scores of stores."""
    asked: list[Callable] = [_pool, _which_pool, _kd, _additive, _half, _variants]
    return [ask(number, scores) for number, ask in enumerate(asked, 1)]


def _pool(number, scores):
    text = "Does main-similar beat single on architectures that the set was not learned with?"
    answer = Answer(number, text, notes=(_published_pool(),))
    _compare(answer, scores, Question("pool", SINGLE, {"pool": (SIMILAR,), **_DC}, UNSEEN), of_gain)
    _compare(answer, scores, Question("pool", SINGLE, {"pool": (RELEASED,), **_DC}, UNSEEN), of_gain)
    for ipc in (1, 10):
        names = [form.format(ipc=ipc) for form in (ALONE, POOLED)]
        asked = Question("method", names[0], {"method": (names[1],), "evaluator": (PLAIN,)}, UNSEEN)
        _compare(answer, scores, asked, of_gain)
    return answer


def _which_pool(number, scores):
    text = "Is total-random worse than main-model, and that worse than main-similar?"
    answer = Answer(number, text, counts=tuple(_ends(scores.scores)))
    for better, worse in (("main-model", "total-random"), (SIMILAR, "main-model"), (SIMILAR, "total-random")):
        asked = Question("pool", better, {"pool": (worse,), **_DC}, UNSEEN)
        _compare(answer, scores, asked, lambda effect, family: of_gain(effect, family, -1))
    return answer


def _kd(number, scores):
    text = "Does knowledge distillation as equation (1) writes it help, and which student?"
    answer = Answer(number, text)
    _compare(answer, scores, Question("evaluator", PLAIN, {"evaluator": ("kd",)}, UNSEEN), of_gain)
    return answer


def _additive(number, scores):
    text = "Do the gains of pool and knowledge distillation add up?"
    answer = Answer(number, text)
    groups = defaultdict(lambda: defaultdict(list))
    for score in scores.scores:
        kind = PLAIN if score.evaluator == PLAIN else "kd" if score.evaluator.startswith("kd") else None
        if score.pool in (SINGLE, SIMILAR) and kind and score.score_on == "test":
            groups[_condition(score)][score.pool, kind].append(score)
    for condition, found_arms in sorted(groups.items()):
        cells = [found_arms.get((pool, kind)) for pool in (SINGLE, SIMILAR) for kind in (PLAIN, "kd")]
        if all(cells):
            answer.findings.append(_interaction(condition, *(ArmScores.of("", scores) for scores in cells)))
    return answer


def _half(number, scores):
    text = "Does half the cross-entropy explain where table 4 departs from table 5, for the same published sets?"
    answer = Answer(number, text)
    for ipc in (1, 10):
        asked = Question(
            "evaluator", PLAIN, {"evaluator": (HALF,), "method": (POOLED.format(ipc=ipc),)}, ("architecture",)
        )
        _compare(answer, scores, asked, lambda effect, _, ipc=ipc: _explains(effect, ipc))
    return answer


def _variants(number, scores):
    text = "What do the warm-up and the depth of the similar networks change?"
    answer = Answer(number, text)
    for variant in ("main-similar[warmup=150]", "main-similar[depth=1]", RELEASED):
        asked = Question("pool", SIMILAR, {"pool": (variant,), **_DC}, UNSEEN)
        _compare(answer, scores, asked, of_difference)
    return answer


_DC = {"method": ("dc",), "evaluator": (PLAIN,)}


def _compare(answer, scores, question, judge):
    """Add what the scores say; nothing where one of the two arms has none: then it was not run."""
    chosen = [score for score in scores.scores if score.score_on == question.score_on and _is_asked(score, question)]
    if {_side(score, question) for score in chosen} < {"baseline", "other"}:
        return
    only = {axis: _occurring(chosen, axis, names) for axis, names in question.only.items()}
    comparison = compare(Scores(tuple(chosen), scores.notes, scores.stores), replace(question, only=only))
    for row in comparison.rows:
        for label, effect in row.effects.items():
            where = ", ".join(_describe_condition(row.condition))
            answer.findings.append(
                Finding(where, f"{label} − {comparison.baseline}", row.over, effect.estimate,
                        (effect.baseline.counts, effect.other.counts), judge(effect, comparison.family))
            )  # fmt: skip
    answer.comparisons.append(comparison)


def _ends(scores):
    """How often each pool's sets were lost, and students that learn from them plainly ended at chance."""
    for (ipc, iterations, method, pool, evaluator, _), members in arms(scores).items():
        if evaluator == PLAIN and pool in ("total-random", "main-model", SIMILAR) and _named(method, _DC["method"]):
            sets = {score.set_key: is_lost(score) for score in members}
            low = sum(map(is_at_chance, members))
            lost = f"{sum(sets.values())} of {len(sets)} sets diverged or blew up"
            where = f"ipc {ipc}, {iterations} iterations, {method}"
            yield f"`{pool}`, {where}: {lost}, {low} of {len(members)} students ended at chance"


def _occurring(scores, axis, names):
    """The names in full, as scores have them."""
    return tuple(sorted({value for score in scores if _named(value := getattr(score, axis), names)}))


def _is_asked(score, question):
    others = (axis for axis in question.only if axis != question.by)
    return _side(score, question) is not None and all(
        _named(getattr(score, axis), question.only[axis]) for axis in others
    )


def _side(score, question):
    value = getattr(score, question.by)
    if value == question.baseline:
        return "baseline"
    return "other" if _named(value, question.only[question.by]) else None


def _named(value, names):
    """Whether it is one of the names; ``kd`` is every kd, whose temperature was chosen, and ``dc`` every dc."""
    return value in names or (value is not None and value.split("[")[0] in {"kd", "dc"}.intersection(names))


def _describe_condition(condition):
    words = {"ipc": "ipc {}", "iterations": "{} iterations"}
    skipped = ("dataset", "protocol", "evaluator", "real_data")  # no evaluator of these questions uses real images
    for name, value in condition.items():
        if value is not None and name not in skipped and value != "unknown":
            yield words.get(name, "{}").format(str(value).removeprefix("file:"))


def _condition(score):
    return score.ipc, score.iterations or 0, score.method, score.precision, score.architecture


def _interaction(condition, single, single_kd, pool, pool_kd):
    """(pool and kd minus pool) minus (kd minus nothing), over the distillations that all four have."""
    ipc, iterations, method, precision, architecture = condition
    arms = [arm.values for arm in (pool_kd, pool, single_kd, single)]
    interactions = []
    for unit in sorted(set.intersection(*map(set, arms))):
        four = [arm[unit] for arm in arms]
        students = set.intersection(*map(set, four))
        differences = [four[0][s] - four[1][s] - four[2][s] + four[3][s] for s in sorted(students)]
        interactions.append(sum(differences) / len(differences))
    where = f"ipc {ipc}, {iterations} iterations, {method}, {precision}"
    estimate = paired(interactions, LEVEL)
    counts = (single.counts, pool_kd.counts)
    return Finding(where, "interaction", architecture, estimate, counts, of_additivity(estimate))


def _explains(effect, ipc):
    architecture = effect.other.architectures[0]
    gap = published_gap(ipc, architecture)
    return Verdict(OPEN, "no such cell in both tables") if gap is None else of_explanation(effect.estimate, gap)


def published_gap(ipc, architecture):
    """Table 4 minus table 5 for the pool's set of 1000 iterations, as a fraction; None where one has no such cell."""
    fields = {"like": "cifar10", "ipc": ipc, "iterations": 1000, "method": "dc", "pool": SIMILAR,
              "architecture": architecture, "score_on": "test", "preprocessing": "cifar10"}  # fmt: skip
    cells = [nearest_published({**fields, "protocol": protocol}) for protocol in (TABLE_4, TABLE_5)]
    if any(cell is None or cell.departures for cell in cells):
        return None
    return (cells[0].published.accuracy - cells[1].published.accuracy) / 100


def _published_pool():
    """The comparator: what the authors' own logs say of their released sets, like for like."""
    gains_by_name = []
    for ipc in (1, 10):
        for architecture in ("mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18"):
            fields = {"like": "cifar10", "ipc": ipc, "iterations": 3000, "method": "dc", "architecture": architecture,
                      "protocol": TABLE_5, "score_on": "test", "preprocessing": "cifar10"}  # fmt: skip
            cells = [nearest_published({**fields, "pool": pool}) for pool in (SIMILAR, SINGLE)]
            if all(cell and not cell.departures for cell in cells):
                gain = cells[0].published.accuracy - cells[1].published.accuracy
                gains_by_name.append(f"{architecture} at ipc {ipc} {gain:+.1f}".replace("-", "−"))
    gains = ", ".join(gains_by_name)
    return f"By the authors' logs, one set of each kind after 3000 iterations, the pool gains, in points: {gains}."
